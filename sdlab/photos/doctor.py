"""The doctor: what in a dataset will spoil the training, said before any GPU time is spent.

`measure` takes the figures of one photo, once; `examine` compares them with the thresholds.
To add a finding: its kind and what it would do to the training in `KINDS`, and a function in `_FOR_ONE` or
`_FOR_ALL`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from sdlab.photos.faces import Face

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

Record = dict[str, Any]
Level = Literal["note", "warning", "error"]
Box = tuple[int, int, int, int]

BLUR_SIDE = 256
BLUR = 0.6  # Crete's measure: sharp photos have 0.3 to 0.5, those blurred by 1 % of their side 0.65 to 0.8
DARK, BRIGHT = 80, 180  # luminance that nine tenths of the picture stay below or above
GREY = 8  # Hasler and Süsstrunk's measure: below it nobody sees a colour
ENLARGED = 1.25
SAME_PHOTO = 6  # differing bits of 64: other sizes, other light, a little shift
CLOSE_UP, CLOSE_UPS = 0.35, 0.8  # a face of a third of the image; the share of such images
ALIKE, ALIKE_SHARE = 12.0, 0.6  # distance in CIE Lab; the share of images that are that close to one of them
FEWEST_FOR_SHARES = 5
# Photos that are enough, and that are the least; the paper's things and animals have 4 to 6.
ENOUGH = {"person": (15, 5), "animal": (4, 3), "thing": (4, 3), "style": (10, 3)}

# Kind of finding to what it would do to the training. Those in `DROPPABLE` are about single photos.
KINDS = {
    "count": "with few photos the model repeats them",
    "duplicates": "the model memorises this one picture",
    "blurry": "the model learns soft, out-of-focus images",
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
DROPPABLE = tuple(kind for kind in KINDS if kind not in ("count", "framing", "backgrounds", "clothes"))


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor found.

    Args:
        kind: A key of `KINDS`.
        file: The image's name; empty where the dataset as a whole is meant.
        text: What was found, with value and threshold.
        value: What was measured.
        threshold: What it was compared with.
    """

    kind: str
    file: str
    text: str
    value: float
    threshold: float
    level: Level = "warning"

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
    """Takes the figures of one photo.

    Args:
        image: The instance image.
        edges: The same crop, `BLUR_SIDE` pixels large, so that blur doesn't depend on the resolution.
        photo: The whole photo, any size.
        face: In pixels of the instance image; None where no face was found.
        enlarged: Side of the image over the side of the crop.

    Returns:
        blur, 0 (sharp) to 1; darkest and brightest, the 10th and 90th percentile of luminance; colourfulness;
        photo_hash, 64 bits; face_share of the image's side; colours in CIE Lab beside the head and below it.

    Source: Crete et al. 2007, "The Blur Effect", by scikit-image; pHash, by imagehash.
    """
    import imagehash
    import numpy as np
    from skimage.measure import blur_effect

    darkest, brightest = np.percentile(np.asarray(image.convert("L")), (10, 90))
    grey = np.asarray(edges.convert("L"))
    side = image.width
    return {
        "blur": round(float(blur_effect(grey)) if np.ptp(grey) else 1.0, 3),
        "darkest": round(float(darkest), 1),
        "brightest": round(float(brightest), 1),
        "colourfulness": round(colourfulness(np.asarray(image)), 1),
        "photo_hash": str(imagehash.phash(photo)),
        "enlarged": round(enlarged, 3),
        "face_share": round(face.side / side, 3) if face else None,
        "background": [mean_colour(image, box) for box in _beside_the_head(side)],
        "clothes": mean_colour(image, box) if face and (box := _below(face, side)) else None,
    }


def colourfulness(pixels: np.ndarray) -> float:
    """How colourful a picture is: 0 for grey, about 15 for muted, above 60 for strong colours.

    Source: Hasler and Süsstrunk 2003, "Measuring Colourfulness in Natural Images", equation 6.
    """
    import numpy as np

    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    opponents = (red - green, (red + green) / 2 - blue)
    spread = np.hypot(*(value.std() for value in opponents))
    mean = np.hypot(*(value.mean() for value in opponents))
    return float(spread + 0.3 * mean)


def mean_colour(image: Image.Image, box: Box) -> list[float]:
    """The mean colour of a part of a picture in CIE Lab, where distance is about as seen."""
    import numpy as np
    from PIL import Image
    from skimage.color import rgb2lab

    pixel = np.asarray(image.resize((1, 1), Image.Resampling.BOX, box=box))
    return [round(float(value), 1) for value in rgb2lab(pixel)[0, 0]]


def _beside_the_head(side: int) -> list[Box]:
    """Left and right edge, upper and middle part."""
    margin, half, low = max(1, side // 7), side // 3, 2 * side // 3
    columns = ((0, margin), (side - margin, side))
    return [(left, top, right, end) for top, end in ((0, half), (half, low)) for left, right in columns]


def _below(face: Face, side: int) -> Box | None:
    """A face's width below the chin, where that is in the picture."""
    left, top, width, height = face.as_list()
    left, right, top = max(0, left), min(side, left + width), top + round(1.5 * height)
    low = min(side, top + height)
    return (left, top, right, low) if low - top >= side // 10 and right - left >= 2 else None


def examine(records: Sequence[Record], subject_kind: str = "person") -> list[Finding]:
    """Compares what was measured on each image, and on all together, with the thresholds.

    Args:
        records: Of the images, with "file", "faces" and "measured".
        subject_kind: Faces and clothes are looked at on a person only.

    Returns:
        Findings: those about the dataset first, then by image.
    """
    measured = [record for record in records if record.get("measured")]
    whole = [finding for check in _FOR_ALL for finding in check(measured)]
    single = [finding for record in measured for check in _FOR_ONE for finding in check(record)]
    if subject_kind == "person":
        whole += [*_framing(measured), *_clothes(measured)]
        single += [finding for record in measured for finding in _faces(record)]
    in_colour = sum(record["measured"]["colourfulness"] >= GREY for record in measured)
    if in_colour <= len(measured) / 2:  # a set of black-and-white photos is somebody's choice
        single = [finding for finding in single if finding.kind != "black_and_white"]
    single += _duplicates(measured)
    return [*_count(len(records), subject_kind), *whole, *sorted(single, key=lambda finding: finding.file)]


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuses a kind that photos can't be dropped for.

    Raises:
        ValueError: The first that isn't one, with those that are.
    """
    for kind in kinds:
        if kind not in DROPPABLE:
            raise ValueError(
                f"photos can't be dropped for being {kind!r}. Choose from: {', '.join(DROPPABLE)}."
            )


def _blurry(record: Record) -> Iterator[Finding]:
    value = record["measured"]["blur"]
    if value > BLUR:
        yield Finding("blurry", record["file"], f"blurry, {value:.2f} (limit {BLUR})", value, BLUR)


def _exposure(record: Record) -> Iterator[Finding]:
    darkest, brightest = record["measured"]["darkest"], record["measured"]["brightest"]
    if brightest < DARK:
        text = f"too dark, nine tenths of it below {brightest:.0f} of 255 (limit {DARK})"
        yield Finding("dark", record["file"], text, brightest, DARK)
    elif darkest > BRIGHT:
        text = f"too bright, nine tenths of it above {darkest:.0f} of 255 (limit {BRIGHT})"
        yield Finding("bright", record["file"], text, darkest, BRIGHT)


def _grey(record: Record) -> Iterator[Finding]:
    value = record["measured"]["colourfulness"]
    if value < GREY:
        text = f"black and white among colour, colourfulness {value:.0f} (limit {GREY})"
        yield Finding("black_and_white", record["file"], text, value, GREY)


def _small(record: Record) -> Iterator[Finding]:
    value = record["measured"]["enlarged"]
    if value > ENLARGED:
        text = f"too small, enlarged {value:.1f} times (limit {ENLARGED})"
        yield Finding("low_resolution", record["file"], text, value, ENLARGED)


def _faces(record: Record) -> Iterator[Finding]:
    count = record["faces"]
    if count > 1:
        yield Finding("several_faces", record["file"], f"{count} faces (limit 1)", count, 1)
    elif count == 0 and record.get("detector") != "none":
        yield Finding("no_face", record["file"], "no face found", 0, 1, "note")


def _count(number: int, subject_kind: str) -> Iterator[Finding]:
    enough, least = ENOUGH[subject_kind]
    if number < enough:
        level: Level = "error" if number < least else "warning"
        limit = least if number < least else enough
        text = f"only {number} photo{'s' * (number > 1)} (at least {limit})"
        yield Finding("count", "", text, number, limit, level)


def _framing(records: Sequence[Record]) -> Iterator[Finding]:
    shares = [record["measured"]["face_share"] for record in records]
    known = [share for share in shares if share is not None]
    if len(known) < FEWEST_FOR_SHARES:
        return
    share = sum(value >= CLOSE_UP for value in known) / len(known)
    if share > CLOSE_UPS:
        text = f"{share:.0%} of the images are close-ups (limit {CLOSE_UPS:.0%})"
        yield Finding("framing", "", text, round(share, 2), CLOSE_UPS)


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

    share = max(sum(distance(one, other) < ALIKE for other in colours) for one in colours) / len(colours)
    if share > ALIKE_SHARE:
        text = f"{share:.0%} of the images have {kind} of nearly the same colours (limit {ALIKE_SHARE:.0%})"
        yield Finding(kind, "", text, round(share, 2), ALIKE_SHARE)


def _duplicates(records: Sequence[Record]) -> Iterator[Finding]:
    """Each photo that looks like a better one: in colour, larger, sharper. The best has no finding."""

    def faults(record: Record) -> tuple[bool, float, float, str]:
        measured = record["measured"]
        grey = measured["colourfulness"] < GREY
        return grey, max(1.0, measured["enlarged"]), measured["blur"], record["file"]

    kept: list[tuple[int, str]] = []
    for record in sorted(records, key=faults):
        bits, file = int(record["measured"]["photo_hash"], 16), record["file"]
        for other, name in kept:
            differing = (bits ^ other).bit_count()
            if differing <= SAME_PHOTO:
                text = f"almost the same as {name}, {differing} of 64 bits differ (limit {SAME_PHOTO})"
                yield Finding("duplicates", file, text, differing, SAME_PHOTO)
                break
        else:
            kept.append((bits, file))


_FOR_ONE: tuple[Callable[[Record], Iterator[Finding]], ...] = (_blurry, _exposure, _grey, _small)
_FOR_ALL: tuple[Callable[[Sequence[Record]], Iterator[Finding]], ...] = (_backgrounds,)
