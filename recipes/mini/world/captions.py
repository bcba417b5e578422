"""Captions in the words of the homework's prompts, from three words to a whole line of details."""

from __future__ import annotations

import re

import numpy as np

from .picture import ATTRIBUTES, COLOURS, EXPRESSIONS, EYE_COLOURS, HELD, POSES, Picture

SCENE_WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "street": ("on the street", ("lights", "midnight", "NY", "city", "night")),
    "rain": ("in NYC", ("rain", "dark", "night", "full moon", "rainy street")),
    "desert": ("in the desert", ("sun", "pyramids", "camels", "Egypt", "sand")),
    "dragons": (
        "in the game of thrones",
        ("dragons nearby", "snow", "lord jojn snow holding hands with {her}", "mountains", "winter"),
    ),
    "castle": (
        "in the princess castle with rainbow",
        ("cinderella", "rainbow", "princess", "castle", "fairy tale"),
    ),
    "moon": ("on the moon", ("moon", "space", "stars", "earth", "in space")),
    "forest": ("in the forest", ("trees", "green", "nature", "woods", "pines")),
    "kitchen": ("in the kitchen", ("cooking", "home", "indoors", "window", "stove")),
    "beach": ("on the beach", ("sea", "palm", "sand", "summer", "ocean")),
    "studio": ("in the studio", ("plain background", "soft light", "studio portrait", "backdrop")),
}
"""Scene -> the phrase that names it, and details of which some are added."""

QUALITY = (
    "4K",
    "raw",
    "hrd",
    "hd",
    "high quality",
    "realism",
    "sharp focus",
    "beautiful eyes",
    "detailed eyes",
)
NEGATIVE = (
    "naked",
    "nsfw",
    "deformed",
    "distorted",
    "disfigured",
    "poorly drawn",
    "bad anatomy",
    "extra limb",
    "missing limb",
    "floating limbs",
    "mutated hands",
    "disconnected limbs",
    "mutation",
    "ugly",
    "blurry",
    "amputation",
    "low quality",
    "worst quality",
)
"""The homework's negative prompt. Flawed pictures carry these words, so it works on `mini` too."""

FRAMING_WORDS = {
    "close-up": ("close-up", "face"),
    "portrait": ("portrait",),
    "half body": ("half body",),
    "full height": ("full height", "full body"),
}
CLOSE = ("close-up", "portrait")


def caption(picture: Picture, seed: int) -> str:
    """A caption of the picture; the same seed gives the same words.

    One in eight is as short as a class prompt ("a photo of woman face"), one in eight names only the scene,
    the others name all that is seen or leave details out; half end in words of quality.

    Args:
        picture: what is described.
        seed: any non-negative integer; it chooses wording and details, never facts.
    """
    rng = np.random.default_rng([seed, 3])
    kind = rng.random()
    opening = _opening(picture, rng)
    if kind < 0.125:
        parts = [opening]
    elif kind < 0.25:
        parts = [opening, *_scene(picture, rng)]
    else:
        keep = 1.0 if kind < 0.65 else rng.uniform(0.3, 0.9)
        described = [_shortened(phrase, picture, rng) for phrase in _person(picture) if rng.random() < keep]
        if len(described) > 1:  # hair follows the person directly, the rest comes in any order
            described[1:] = [described[i] for i in 1 + rng.permutation(len(described) - 1)]
        place = _scene(picture, rng) if rng.random() < max(keep, 0.8) else []
        parts = [opening, *place, *described] if rng.random() < 0.4 else [opening, *described, *place]
        parts += [word for word in _camera(picture, rng) if rng.random() < 0.8]
    if picture.style == "cartoon" and not opening.startswith(("cartoon", "drawing")):
        parts.insert(int(rng.integers(1, len(parts) + 1)), "cartoon")
    if picture.flaw != "none":
        parts += [str(word) for word in rng.permutation(NEGATIVE)[: rng.integers(3, len(NEGATIVE) + 1)]]
    elif rng.random() < 0.5:
        words = [word for word in QUALITY if picture.style == "photo" or word not in ("raw", "realism")]
        parts += [str(word) for word in rng.permutation(words)[: rng.integers(1, len(words) + 1)]]
    return ", ".join(parts)


def described(picture: Picture) -> str:
    """The fullest plain caption of a picture: every attribute that a reader could check, in fixed order."""
    opening = ("cartoon of a " if picture.style == "cartoon" else "a photo of a ") + picture.gender
    parts = [opening, *_person(picture), SCENE_WORDS[picture.scene][0], *SCENE_WORDS[picture.scene][1][:2]]
    return ", ".join([*parts, FRAMING_WORDS[picture.framing][0]]).replace("{her}", "her")


def _opening(picture: Picture, rng: np.random.Generator) -> str:
    person = picture.gender
    photo = [
        "a photo of {}",
        "photo of a {}",
        "portrait of {}",
        "portrait of a {}",
        "a photo of a {}",
        "a {}",
    ]
    cartoon = ["cartoon of a {}", "a drawing of a {}", "portrait of {}", "a {}"]
    if picture.framing in CLOSE:
        faces = [
            "a photo of {} face",
            "a photo of a {} face",
            "portrait of {} face",
            "a face of {}",
            "a {} face",
        ]
        photo, cartoon = (
            photo + faces,
            [*cartoon, "portrait of {} face", "cartoon of {} face", "a face of {}"],
        )
    return str(rng.choice(cartoon if picture.style == "cartoon" else photo)).format(person)


def _person(picture: Picture) -> list[str]:
    """Phrases of what is seen of the person; the hair comes first."""
    hair = (
        "bald"
        if picture.hair_style == "bald"
        else f"{picture.hair_colour} {_style_words(picture.hair_style)}"
    )
    phrases = [hair, f"{picture.skin} skin"]
    if picture.glasses != "none":
        phrases.append(f"{picture.glasses_colour} glasses" if picture.glasses == "glasses" else "sunglasses")
    if picture.beard != "none":
        phrases.append(picture.beard)
    if picture.astronaut:
        phrases.append("astronaut")
    else:
        if picture.framing != "close-up":
            article = "" if picture.clothes_colour[0] not in "aeiou" else "n"
            phrases.append(f"wearing a{article} {picture.clothes_colour} {picture.clothes}")
        if picture.hat != "none":
            phrases.append("gold crown" if picture.hat == "crown" else f"{picture.hat_colour} {picture.hat}")
    if picture.framing in CLOSE:
        phrases += [f"{picture.eyes} eyes"] * (picture.glasses != "sunglasses")
        phrases += ["freckles"] * picture.freckles + ["earrings"] * picture.earrings
    phrases += [picture.expression] * (picture.expression != "calm")
    if picture.framing not in CLOSE:
        held = f"holding a {picture.held}" if picture.pose == "holding" else picture.pose
        phrases.append(held)
    return phrases


def _shortened(phrase: str, picture: Picture, rng: np.random.Generator) -> str:
    """Now and then "wearing a dress" for "wearing a red dress", "green hair" for "green hair in two buns"."""
    if phrase.startswith("wearing") and rng.random() < 0.2:
        return f"wearing a {picture.clothes}"
    if phrase.startswith(picture.hair_colour) and rng.random() < 0.15:
        return f"{picture.hair_colour} hair"
    return phrase


def _style_words(style: str) -> str:
    words = {
        "bun": "hair in a bun",
        "buns": "hair in two buns",
        "ponytail": "ponytail",
        "pigtails": "pigtails",
        "bob": "bob hair",
        "buzz": "buzz cut",
    }
    return words.get(style, f"{style} hair")


def _scene(picture: Picture, rng: np.random.Generator) -> list[str]:
    phrase, details = SCENE_WORDS[picture.scene]
    chosen = [str(word) for word in rng.permutation(details)[: rng.integers(0, 4)]]
    parts = [phrase, *chosen] if rng.random() < 0.85 or not chosen else chosen
    return [part.format(her="her" if picture.gender == "woman" else "him") for part in parts]


def _camera(picture: Picture, rng: np.random.Generator) -> list[str]:
    words = (
        [str(rng.choice(FRAMING_WORDS[picture.framing]))] if picture.framing != "close-up" else ["close-up"]
    )
    if picture.framing not in CLOSE and rng.random() < 0.5:
        words.append(str(rng.choice(["standing", "standing alone", "standing aside"])))
    return words


def vocabulary() -> list[str]:
    """Every word that a caption, one of the homework's prompts or its negative prompt can hold, and `sks`.

    Each is one token of the mini tokenizer. Lower case, sorted; `sks` occurs in no caption.
    """
    texts = [
        *QUALITY,
        *NEGATIVE,
        *HELD,
        *POSES,
        *EXPRESSIONS,
        *COLOURS,
        *EYE_COLOURS,
        *(w for ws in ATTRIBUTES.values() for w in ws),
    ]
    texts += [f"{phrase} {' '.join(details)}" for phrase, details in SCENE_WORDS.values()]
    texts += [word for words in FRAMING_WORDS.values() for word in words]
    texts += [_style_words(style) for style in ATTRIBUTES["hair_style"]]
    texts += [
        "a an the of photo portrait cartoon drawing face with without and or in on wearing holding",
        "her him his she he k sks woman man person girl boy young old",
        "standing alone aside nearby hands dress shirt sweater coat suit trousers astronaut skin eyes",
        "freckles earrings gold lord jojn snow crying egypt pyramids camels knife",
    ]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})
