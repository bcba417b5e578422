"""The doctor: what in a dataset will spoil the training, said before any GPU time is spent.

It looks at measured figures only, so it costs nothing to ask again. To add a finding: its kind and what it
would do to the training in `KINDS`, and a function in `_FOR_ONE` or `_FOR_ALL`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Record = dict[str, Any]
Level = Literal["note", "warning", "error"]

BLUR = 0.6  # Crete's measure: sharp photos have 0.3 to 0.5, those blurred by 1 % of their side 0.65 to 0.8
DARK, BRIGHT = 80, 180  # luminance that nine tenths of the picture stay below or above
GREY = 8  # Hasler and Süsstrunk's measure: below it nobody sees a colour
ENLARGED = 1.25
SAME_PHOTO = 6  # differing bits of 64: other sizes, other light, a little shift
CLOSE_UP, CLOSE_UPS = 0.35, 0.8  # a face of a third of the image; the share of such images
ALIKE, ALIKE_SHARE = 12.0, 0.6  # distance in CIE Lab; the share of images that are that close to one of them
FEW, TOO_FEW = 15, 5
FEWEST_FOR_SHARES = 5

# Kind of finding to what it would do to the training. Those in `DROPPABLE` are about single photos.
KINDS = {
    "count": "with few photos the model repeats them; 15 to 25 are good",
    "duplicates": "the model learns this one picture by heart",
    "blurry": "the model learns soft, out-of-focus faces",
    "dark": "the model makes the subject dark in every scene",
    "bright": "the model makes the subject washed out in every scene",
    "black_and_white": "grey leaks into every image, whatever the prompt says",
    "low_resolution": "the model learns the blur of the enlargement",
    "several_faces": "the model may mix the faces; the largest was taken",
    "no_face": "the face may be cut off or missing; look at the crop",
    "framing": "prompts such as 'full height' will fail: the model has never seen the body",
    "backgrounds": "the model takes the background for a part of the subject",
    "clothes": "the model takes the clothes for a part of the subject",
}
DROPPABLE = (
    "duplicates",
    "blurry",
    "dark",
    "bright",
    "black_and_white",
    "low_resolution",
    "several_faces",
    "no_face",
)


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor found.

    Args:
        kind: a key of `KINDS`.
        level: "note", "warning" or "error".
        file: the image's name; empty where the dataset as a whole is meant.
        text: what was found, with value and threshold.
        value: what was measured.
        threshold: what it was compared with.
    """

    kind: str
    level: Level
    file: str
    text: str
    value: float
    threshold: float

    @property
    def effect(self) -> str:
        """What it would do to the training."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return f"{self.file or 'dataset'}: {self.text}; {self.effect}"

    def as_dict(self) -> dict[str, Any]:
        """As dataset.json holds it."""
        return {**asdict(self), "effect": self.effect}


def examine(records: Sequence[Record]) -> list[Finding]:
    """Compare what was measured on each image, and on all together, with the thresholds.

    Args:
        records: of the images, with "file", "faces" and "measured".

    Returns:
        Findings: those about the dataset first, then by image.
    """
    measured = [record for record in records if record.get("measured")]
    whole = [finding for check in _FOR_ALL for finding in check(measured)]
    single = [finding for record in measured for check in _FOR_ONE for finding in check(record)]
    in_colour = sum(record["measured"]["colourfulness"] >= GREY for record in measured)
    if in_colour <= len(measured) / 2:  # a set of black-and-white photos is somebody's choice
        single = [finding for finding in single if finding.kind != "black_and_white"]
    return [*_count(len(records)), *whole, *sorted([*single, *_duplicates(measured)], key=lambda f: f.file)]


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse a kind that photos can't be dropped for.

    Args:
        kinds: as given to `--drop`.

    Raises:
        ValueError: the first that isn't one, with those that are.
    """
    for kind in kinds:
        if kind not in DROPPABLE:
            raise ValueError(
                f"photos can't be dropped for being {kind!r}. Choose from: {', '.join(DROPPABLE)}."
            )


def _blurry(record: Record) -> Iterator[Finding]:
    value = record["measured"]["blur"]
    if value > BLUR:
        yield Finding("blurry", "warning", record["file"], f"blurry, {value:.2f} (limit {BLUR})", value, BLUR)


def _exposure(record: Record) -> Iterator[Finding]:
    darkest, brightest = record["measured"]["darkest"], record["measured"]["brightest"]
    if brightest < DARK:
        text = f"too dark, nine tenths of it below {brightest:.0f} of 255 (limit {DARK})"
        yield Finding("dark", "warning", record["file"], text, brightest, DARK)
    elif darkest > BRIGHT:
        text = f"too bright, nine tenths of it above {darkest:.0f} of 255 (limit {BRIGHT})"
        yield Finding("bright", "warning", record["file"], text, darkest, BRIGHT)


def _grey(record: Record) -> Iterator[Finding]:
    value = record["measured"]["colourfulness"]
    if value < GREY:
        text = f"black and white among colour, colourfulness {value:.0f} (limit {GREY})"
        yield Finding("black_and_white", "warning", record["file"], text, value, GREY)


def _small(record: Record) -> Iterator[Finding]:
    value = record["measured"]["enlarged"]
    if value > ENLARGED:
        text = f"too small, enlarged {value:.1f} times (limit {ENLARGED})"
        yield Finding("low_resolution", "warning", record["file"], text, value, ENLARGED)


def _faces(record: Record) -> Iterator[Finding]:
    count = record["faces"]
    if count > 1:
        yield Finding("several_faces", "warning", record["file"], f"{count} faces (limit 1)", count, 1)
    elif count == 0:
        yield Finding("no_face", "note", record["file"], "no face found", 0, 1)


def _count(number: int) -> Iterator[Finding]:
    if number < FEW:
        level: Level = "error" if number < TOO_FEW else "warning"
        least = TOO_FEW if level == "error" else FEW
        yield Finding(
            "count", level, "", f"only {number} photo{'s' * (number > 1)} (at least {least})", number, least
        )


def _framing(records: Sequence[Record]) -> Iterator[Finding]:
    shares = [record["measured"]["face_share"] for record in records]
    known = [share for share in shares if share is not None]
    if len(known) < FEWEST_FOR_SHARES:
        return
    share = sum(value >= CLOSE_UP for value in known) / len(known)
    if share > CLOSE_UPS:
        text = f"{share:.0%} of the images are close-ups (limit {CLOSE_UPS:.0%})"
        yield Finding("framing", "warning", "", text, round(share, 2), CLOSE_UPS)


def _backgrounds(records: Sequence[Record]) -> Iterator[Finding]:
    yield from _too_alike("backgrounds", [record["measured"]["background"] for record in records])


def _clothes(records: Sequence[Record]) -> Iterator[Finding]:
    seen = [record["measured"]["clothes"] for record in records]
    yield from _too_alike("clothes", [[colour] for colour in seen if colour is not None])


def _too_alike(kind: str, colours: Sequence[Sequence[Sequence[float]]]) -> Iterator[Finding]:
    """Whether most images look like one of them."""
    if len(colours) < FEWEST_FOR_SHARES:
        return

    def distance(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
        return sum(map(math.dist, one, other)) / len(one)

    likes = max(sum(distance(one, other) < ALIKE for other in colours) for one in colours)
    share = likes / len(colours)
    if share > ALIKE_SHARE:
        text = f"{share:.0%} of the images have {kind} of nearly the same colours (limit {ALIKE_SHARE:.0%})"
        yield Finding(kind, "warning", "", text, round(share, 2), ALIKE_SHARE)


def _duplicates(records: Sequence[Record]) -> Iterator[Finding]:
    """Each photo that looks like a better one: in colour, larger, sharper. The best has no finding."""
    kept: list[Record] = []

    def faults(record: Record) -> tuple[bool, float, float, str]:
        measured = record["measured"]
        grey = measured["colourfulness"] < GREY
        return grey, max(1.0, measured["enlarged"]), measured["blur"], record["file"]

    for record in sorted(records, key=faults):
        bits = int(record["measured"]["photo_hash"], 16)
        for other in kept:
            differing = (bits ^ int(other["measured"]["photo_hash"], 16)).bit_count()
            if differing <= SAME_PHOTO:
                text = (
                    f"almost the same as {other['file']}, {differing} of 64 bits differ (limit {SAME_PHOTO})"
                )
                yield Finding("duplicates", "warning", record["file"], text, differing, SAME_PHOTO)
                break
        else:
            kept.append(record)


_FOR_ONE: tuple[Callable[[Record], Iterator[Finding]], ...] = (_blurry, _exposure, _grey, _small, _faces)
_FOR_ALL: tuple[Callable[[Sequence[Record]], Iterator[Finding]], ...] = (_framing, _backgrounds, _clothes)
