"""The doctor: what in a dataset will spoil the training, said before any GPU time is spent.

`measure` takes the figures of one photo, once; `examine` compares them with the thresholds. To add a finding:
its kind and effect in `KINDS`, and its limit in `_LIMITS` or a function that `examine` calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

# Kind to the figure that is measured, its limit, whether it is a fault to be above it, and what is said.
_LIMITS = {
    # Crete's measure: sharp photos have 0.3 to 0.5, those blurred by 1 % of their side 0.65 to 0.8
    "blurry": ("blur", 0.6, True, "blurry, {:.2f}"),
    "dark": ("brightest", 80, False, "too dark, nine tenths of it below {:.0f} of 255"),
    "bright": ("darkest", 180, True, "too bright, nine tenths of it above {:.0f} of 255"),
    "black_and_white": ("colourfulness", GREY, False, "black and white among colour, colourfulness {:.0f}"),
    "low_resolution": ("enlarged", ENLARGED, True, "too small, enlarged {:.1f} times"),
}


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
    whole = [*_count(len(records), subject_kind), *_too_alike("backgrounds", "background", measured)]
    single = [*_beyond_limits(measured), *_duplicates(measured)]
    if subject_kind == "person":
        whole += [*_close_ups(measured), *_too_alike("clothes", "clothes", measured)]
        single += _faces(measured)
    return [*whole, *sorted(single, key=lambda finding: finding.file)]


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


def _beyond_limits(records: Sequence[Record]) -> Iterator[Finding]:
    in_colour = sum(record["measured"]["colourfulness"] >= GREY for record in records)
    for record in records:
        for kind, (figure, limit, above, text) in _LIMITS.items():
            value = record["measured"][figure]
            if kind == "black_and_white" and in_colour <= len(records) / 2:
                continue  # a set of black-and-white photos is somebody's choice
            if value > limit if above else value < limit:
                said = f"{text.format(value)} (limit {limit})"
                yield Finding(kind, record["file"], said, value, limit)


def _faces(records: Sequence[Record]) -> Iterator[Finding]:
    for record in records:
        count, file = record["faces"], record["file"]
        if count > 1:
            yield Finding("several_faces", file, f"{count} faces (limit 1)", count, 1)
        elif count == 0 and record.get("detector") != "none":
            yield Finding("no_face", file, "no face found", 0, 1, "note")


def _count(number: int, subject_kind: str) -> Iterator[Finding]:
    enough, least = ENOUGH[subject_kind]
    if number < enough:
        level: Level = "error" if number < least else "warning"
        limit = least if number < least else enough
        text = f"only {number} photo{'s' * (number > 1)} (at least {limit})"
        yield Finding("count", "", text, number, limit, level)


def _close_ups(records: Sequence[Record]) -> Iterator[Finding]:
    shares = [share for record in records if (share := record["measured"]["face_share"]) is not None]
    share = sum(value >= CLOSE_UP for value in shares) / max(1, len(shares))
    if len(shares) >= FEWEST_FOR_SHARES and share > CLOSE_UPS:
        text = f"{share:.0%} of the images are close-ups (limit {CLOSE_UPS:.0%})"
        yield Finding("framing", "", text, round(share, 2), CLOSE_UPS)


def _too_alike(kind: str, figure: str, records: Sequence[Record]) -> Iterator[Finding]:
    """Whether most images have the colours of one of them, in one place or in several."""
    import numpy as np

    colours = [colour for record in records if (colour := record["measured"][figure]) is not None]
    if len(colours) < FEWEST_FOR_SHARES:
        return
    places = np.array(colours).reshape(len(colours), -1, 3)
    share = max(float((np.linalg.norm(places - one, axis=-1).mean(axis=-1) < ALIKE).mean()) for one in places)
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
        alike = ((name, n) for other, name in kept if (n := (bits ^ other).bit_count()) <= SAME_PHOTO)
        if better := next(alike, None):
            text = f"almost the same as {better[0]}, {better[1]} of 64 bits differ (limit {SAME_PHOTO})"
            yield Finding("duplicates", file, text, better[1], SAME_PHOTO)
        else:
            kept.append((bits, file))
