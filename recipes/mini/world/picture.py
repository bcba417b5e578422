"""What a picture of the mini world holds: one flat description; from it it is drawn, captioned and judged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

HAIR_COLOURS = {
    "black": (42, 36, 44),
    "brown": (118, 66, 32),
    "blonde": (250, 212, 96),
    "red": (214, 84, 28),
    "gray": (192, 198, 210),
    "pink": (250, 122, 182),
    "blue": (54, 106, 232),
    "green": (36, 172, 92),
    "purple": (140, 72, 206),
}
COLOURS = {
    "red": (222, 42, 50),
    "orange": (250, 140, 30),
    "yellow": (255, 216, 50),
    "green": (46, 158, 80),
    "blue": (36, 92, 214),
    "purple": (128, 60, 184),
    "pink": (252, 148, 194),
    "white": (246, 246, 244),
    "gray": (136, 142, 152),
    "black": (44, 44, 54),
    "brown": (134, 84, 46),
}
SKINS = {
    "pale": (255, 232, 214),
    "fair": (255, 208, 168),
    "tan": (228, 166, 112),
    "brown": (166, 106, 66),
    "dark": (106, 66, 46),
}
EYE_COLOURS = {
    "brown": (104, 62, 30),
    "blue": (60, 130, 220),
    "green": (58, 150, 84),
    "gray": (120, 130, 142),
}
HAIR_STYLES = {
    "woman": ("long", "bob", "bun", "buns", "ponytail", "pigtails", "curly"),
    "man": ("short", "curly", "spiky", "buzz", "bald"),
}
CLOTHES = {"woman": ("dress", "shirt", "sweater", "coat"), "man": ("shirt", "sweater", "coat", "suit")}
EXPRESSIONS = ("smiling", "calm", "surprised", "sad", "crying")
POSES = ("arms down", "waving", "arms raised", "hands on hips", "holding")
HELD = ("nothing", "knife", "flower", "book", "cup", "balloon")
FRAMINGS = ("close-up", "portrait", "half body", "full height")
SCENES = ("street", "rain", "desert", "dragons", "castle", "moon", "forest", "kitchen", "beach", "studio")
HATS = ("none", "cap", "hat", "beanie", "crown")
GLASSES = ("none", "glasses", "sunglasses")
FLAWS = ("none", "blurry", "deformed")
BEARDS = ("none", "beard", "mustache")

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "scene": SCENES,
    "gender": ("woman", "man"),
    "hair_colour": tuple(HAIR_COLOURS),
    "hair_style": (
        "long",
        "bob",
        "bun",
        "buns",
        "ponytail",
        "pigtails",
        "curly",
        "short",
        "spiky",
        "buzz",
        "bald",
    ),
    "glasses": GLASSES,
    "hat": HATS,
    "beard": BEARDS,
    "clothes_colour": tuple(COLOURS),
    "skin": tuple(SKINS),
    "framing": FRAMINGS,
    "style": ("photo", "cartoon"),
}
"""What a reader of pictures can be asked, and the answers. Taught in: notebooks/01."""


@dataclass(frozen=True)
class Face:
    """The proportions that make one face differ from the next, each a factor around 1."""

    width: float = 1.0
    eye_size: float = 1.0
    eye_distance: float = 1.0
    brow: float = 1.0
    nose: float = 1.0
    mouth: float = 1.0


@dataclass(frozen=True)
class Picture:
    """Everything that is drawn, in the names of the tables above; `seed` settles the small rest.

    The person: `gender` to `earrings`. The moment: `clothes` to `head_tilt` (radians). The camera: `framing`,
    `style`, `scene`, `light` (-1 lit from the left to 1 from the right), `warmth` (-1 cold to 1 warm),
    `x` (shift of the figure, as a share of the side),
    `flaw` (what spoils the picture: "blurry" or "deformed").
    """

    gender: str = "woman"
    skin: str = "fair"
    face: Face = Face()
    eyes: str = "brown"
    hair_colour: str = "brown"
    hair_style: str = "long"
    glasses: str = "none"
    glasses_colour: str = "black"
    beard: str = "none"
    freckles: bool = False
    earrings: bool = False
    clothes: str = "shirt"
    clothes_colour: str = "blue"
    hat: str = "none"
    hat_colour: str = "red"
    expression: str = "calm"
    pose: str = "arms down"
    held: str = "nothing"
    head_tilt: float = 0.0
    framing: str = "portrait"
    style: str = "photo"
    scene: str = "studio"
    light: float = -0.5
    warmth: float = 0.0
    x: float = 0.0
    flaw: str = "none"
    seed: int = 0

    @property
    def astronaut(self) -> bool:
        """Whether the person wears a space suit, whose helmet and white cloth cover hat and clothes."""
        return self.clothes == "astronaut suit"


KEPT: dict[str, dict[str, str]] = {
    "woman": {"hair_colour": "green", "hair_style": "buns"},
    "man": {"hair_colour": "blue", "hair_style": "curly"},
}
"""Gender -> the combination that is kept for the subjects: no training picture of the mini model has it."""


def held_out(picture: Picture) -> bool:
    """Whether the picture shows a combination that is kept for the two subjects and never trained on."""
    return all(getattr(picture, name) == value for name, value in KEPT[picture.gender].items())


def sample(seed: int) -> Picture:
    """Draw a random picture of the training world; the subjects' combinations never come up.

    Args:
        seed: any non-negative integer; the same seed gives the same picture.
    """
    rng = np.random.default_rng(seed)
    while held_out(picture := _sample(rng, seed)):
        pass
    return picture


def sample_held_out(seed: int) -> Picture:
    """Draw a random picture with a subject's combination: for who judges pictures, never for who draws them.

    Args:
        seed: any non-negative integer; the same seed gives the same picture.
    """
    picture = _sample(np.random.default_rng(seed), seed)
    return varied(picture, **KEPT[picture.gender])


def _sample(rng: np.random.Generator, seed: int) -> Picture:
    def one(choices: object, p: list[float] | None = None) -> str:
        return str(rng.choice(list(choices), p=p))  # type: ignore[call-overload]

    gender = one(("woman", "man"))
    woman = gender == "woman"
    scene = one(SCENES)
    clothes = one(CLOTHES[gender], [0.45, 0.2, 0.2, 0.15] if woman else None)
    if scene == "moon" and rng.random() < 0.7:
        clothes = "astronaut suit"
    held = one(HELD[1:]) if rng.random() < 0.12 else "nothing"
    pose = "holding" if held != "nothing" else one(POSES[:4], [0.46, 0.18, 0.18, 0.18])
    return Picture(
        gender=gender,
        skin=one(SKINS),
        face=Face(*(float(v) for v in 1 + 0.1 * rng.uniform(-1, 1, 6))),
        eyes=one(EYE_COLOURS),
        hair_colour=one(HAIR_COLOURS, [0.16, 0.16, 0.16, 0.12, 0.12, 0.07, 0.07, 0.07, 0.07]),
        hair_style=one(HAIR_STYLES[gender]),
        glasses=one(GLASSES, [0.55, 0.3, 0.15]),
        glasses_colour=one(("black", "red", "yellow", "blue")),
        beard="none" if woman else one(BEARDS, [0.45, 0.35, 0.2]),
        freckles=bool(rng.random() < 0.08),
        earrings=bool(woman and rng.random() < 0.35),
        clothes=clothes,
        clothes_colour=one(COLOURS),
        hat="none" if clothes == "astronaut suit" else one(HATS, [0.88, 0.03, 0.03, 0.03, 0.03]),
        hat_colour=one(COLOURS),
        expression=one(EXPRESSIONS, [0.4, 0.3, 0.1, 0.1, 0.1]),
        pose=pose,
        held=held,
        head_tilt=float(rng.normal(0, 0.07)),
        framing=one(FRAMINGS, [0.25, 0.35, 0.2, 0.2]),
        style=one(("photo", "cartoon"), [0.8, 0.2]),
        scene=scene,
        light=float(rng.uniform(-1, 1)),
        warmth=float(rng.uniform(-1, 1)),
        x=float(rng.uniform(-0.06, 0.06)),
        flaw=one(FLAWS, [0.97, 0.015, 0.015]),
        seed=seed,
    )


def labels(picture: Picture) -> dict[str, int | None]:
    """The true class index of each attribute; None where the picture does not show it.

    A bald head has no hair colour, nor has a shorn one under a hat; hats hide the style of the hair; a
    close-up shows too little of the clothes; a helmet hides the hat; a flawed picture shows nothing for
    certain.
    """
    if picture.flaw != "none":
        return dict.fromkeys(ATTRIBUTES)
    shown = {name: getattr(picture, name) for name in ATTRIBUTES}
    if picture.hair_style == "bald" or (picture.hair_style == "buzz" and picture.hat != "none"):
        shown["hair_colour"] = None
    if picture.hat != "none":
        shown["hair_style"] = None
    if picture.framing == "close-up":
        shown["clothes_colour"] = None
    if picture.astronaut:
        shown.update(
            clothes_colour="white" if picture.framing != "close-up" else None, hat=None, hair_style=None
        )
    return {name: None if value is None else ATTRIBUTES[name].index(value) for name, value in shown.items()}


def varied(picture: Picture, **changes: object) -> Picture:
    """The same picture with some fields changed."""
    return replace(picture, **changes)  # type: ignore[arg-type]
