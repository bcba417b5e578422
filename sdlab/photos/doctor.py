"""The doctor: what in a dataset will spoil the training, said before any GPU time is spent.

`measure` takes the figures of one photo, once; `examine` compares them with the limits in doctor.toml. A new
finding about a figure needs nothing but its entry there.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from sdlab.photos.faces import Face

Record = dict[str, Any]

CHECKS: dict[str, Record] = tomllib.loads(Path(__file__).with_name("doctor.toml").read_text("utf-8"))
KINDS: dict[str, str] = {kind: check["effect"] for kind, check in CHECKS.items()}
DROPPABLE = tuple(kind for kind, check in CHECKS.items() if not check.get("whole"))
GREY, ENLARGED = CHECKS["black_and_white"]["below"], CHECKS["low_resolution"]["above"]

BLUR_SIDE = 256
SAME_PHOTO = 6  # differing bits of 64: other sizes, other light, a little shift
CLOSE_UP = 0.35  # a face of a third of the image
ALIKE = 12.0  # distance in CIE Lab
FEWEST_FOR_SHARES = 5
# Photos that are enough, and that are the least; the paper's things and animals have 4 to 6.
ENOUGH = {"person": (15, 5), "animal": (4, 3), "thing": (4, 3), "style": (10, 3)}


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor found."""

    kind: str  # a key of `KINDS`
    file: str  # the image's name; empty where the dataset as a whole is meant
    text: str
    value: float  # what was measured
    threshold: float
    level: Literal["note", "warning", "error"] = "warning"

    @property
    def effect(self) -> str:
        """What it would do to the training."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return f"{self.file or 'dataset'}: {self.text}; {self.effect}"

    def as_dict(self) -> dict[str, Any]:
        """As dataset.json holds it."""
        return {**asdict(self), "effect": self.effect}


def measure(
    image: Image.Image, edges: Image.Image, photo: Image.Image, face: Face | None, enlarged: float
) -> Record:
    """Takes the figures of one photo, of `image` as it is trained, `edges`, the same crop at `BLUR_SIDE`, and
    the whole photo at any size; the face is in pixels of `image`.

    blur is 0 (sharp) to 1; darkest and brightest are the 10th and 90th percentile of luminance; face_share is
    of the image's side; colours are in CIE Lab, of four parts beside the head and of one below the chin.

    Source: Crete et al. 2007, "The Blur Effect", by scikit-image; pHash, by imagehash.
    """
    import imagehash
    from skimage.measure import blur_effect

    darkest, brightest = np.percentile(np.asarray(image.convert("L")), (10, 90))
    grey = np.asarray(edges.convert("L"))
    side = image.width
    margin, third = max(1, side // 7), side // 3
    beside = [
        _mean_colour(image, left, top, left + margin, top + third)
        for top in (0, third)
        for left in (0, side - margin)
    ]
    return {
        "blur": round(float(blur_effect(grey)) if np.ptp(grey) else 1.0, 3),
        "darkest": round(float(darkest), 1),
        "brightest": round(float(brightest), 1),
        "colourfulness": round(_colourfulness(np.asarray(image)), 1),
        "photo_hash": str(imagehash.phash(photo)),
        "enlarged": round(enlarged, 3),
        "face_share": round(face.side / side, 3) if face else None,
        "background": beside,
        "clothes": _colour_below(image, face) if face else None,
    }


def _colourfulness(pixels: np.ndarray) -> float:
    """0 for grey, about 15 for muted, above 60 for strong colours.

    Source: Hasler and Süsstrunk 2003, "Measuring Colourfulness in Natural Images", equation 6.
    """

    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    opponents = (red - green, (red + green) / 2 - blue)
    spread = np.hypot(*(value.std() for value in opponents))
    return float(spread + 0.3 * np.hypot(*(value.mean() for value in opponents)))


def _colour_below(image: Image.Image, face: Face) -> list[float] | None:
    """The colour of a face's width below the chin, where that is in the picture."""
    left, top, width, height = face.as_list()
    left, right, top = max(0, left), min(image.width, left + width), top + round(1.5 * height)
    low = min(image.height, top + height)
    enough = low - top >= image.height // 10 and right - left >= 2
    return _mean_colour(image, left, top, right, low) if enough else None


def _mean_colour(image: Image.Image, left: int, top: int, right: int, low: int) -> list[float]:
    """In CIE Lab, where distance is about as seen."""
    from skimage.color import rgb2lab

    pixel = np.asarray(image.resize((1, 1), Image.Resampling.BOX, box=(left, top, right, low)))
    return [round(float(value), 1) for value in rgb2lab(pixel)[0, 0]]


def examine(records: Sequence[Record], subject_kind: str = "person") -> list[Finding]:
    """What spoils the training: findings about the dataset first, then by image.

    Faces, framing and clothes are looked at on a person only.
    """
    measured = [record for record in records if record.get("measured")]
    whole = [*_count(len(records), subject_kind), *_shares(measured, subject_kind)]
    single = [*_beyond_limits(measured), *_duplicates(measured)]
    for record in measured if subject_kind == "person" else ():
        file, faces = record["file"], record["faces"]
        if faces > 1:
            single.append(Finding("several_faces", file, f"{faces} faces (limit 1)", faces, 1))
        elif faces == 0 and record.get("detector") != "none":
            single.append(Finding("no_face", file, "no face found", 0, 1, "note"))
    return [*whole, *sorted(single, key=lambda finding: finding.file)]


def _count(number: int, subject_kind: str) -> Iterator[Finding]:
    enough, least = ENOUGH[subject_kind]
    limit = least if number < least else enough
    if number < enough:
        text = f"only {number} photo{'s' * (number > 1)} (at least {limit})"
        yield Finding("count", "", text, number, limit, "error" if number < least else "warning")


def _shares(records: Sequence[Record], subject_kind: str) -> Iterator[Finding]:
    """What too many images of a dataset have in common."""
    for kind in ("framing", "backgrounds", "clothes") if subject_kind == "person" else ("backgrounds",):
        check = CHECKS[kind]
        values = [value for one in records if (value := one["measured"][check["figure"]]) is not None]
        if len(values) < FEWEST_FOR_SHARES:
            continue
        share_of = _share_close if kind == "framing" else _share_alike
        share = share_of(values)
        if share > check["above"]:
            text = f"{share:.0%} of the images {check['text']} (limit {check['above']:.0%})"
            yield Finding(kind, "", text, round(share, 2), check["above"])


def _share_close(shares: list[float]) -> float:
    return sum(share >= CLOSE_UP for share in shares) / len(shares)


def _share_alike(colours: list[Any]) -> float:
    """The share of images that have the colours of one of them, in one place or in several."""
    places = np.array(colours).reshape(len(colours), -1, 3)
    return max(float((np.linalg.norm(places - one, axis=-1).mean(axis=-1) < ALIKE).mean()) for one in places)


def _beyond_limits(records: Sequence[Record]) -> Iterator[Finding]:
    in_colour = sum(record["measured"]["colourfulness"] >= GREY for record in records)
    by_choice = "black_and_white" if in_colour <= len(records) / 2 else ""
    checks = [kind for kind in DROPPABLE if "figure" in CHECKS[kind] and kind != by_choice]
    for record, kind in product(records, checks):
        check = CHECKS[kind]
        value = record["measured"][check["figure"]]
        above, below = check.get("above", math.inf), check.get("below", -math.inf)
        if not below <= value <= above:
            limit = below if value < below else above
            text = f"{check['text'].format(value)} (limit {limit})"
            yield Finding(kind, record["file"], text, value, limit)


def _duplicates(records: Sequence[Record]) -> Iterator[Finding]:
    """Each photo that looks like a better one: in colour, larger, sharper. The best has no finding."""

    def faults(record: Record) -> tuple[bool, float, float, str]:
        one = record["measured"]
        return one["colourfulness"] < GREY, max(1.0, one["enlarged"]), one["blur"], record["file"]

    kept: list[tuple[int, str]] = []
    for record in sorted(records, key=faults):
        bits, file = int(record["measured"]["photo_hash"], 16), record["file"]
        alike = ((name, n) for other, name in kept if (n := (bits ^ other).bit_count()) <= SAME_PHOTO)
        if better := next(alike, None):
            text = f"almost the same as {better[0]}, {better[1]} of 64 bits differ (limit {SAME_PHOTO})"
            yield Finding("duplicates", file, text, better[1], SAME_PHOTO)
        else:
            kept.append((bits, file))
