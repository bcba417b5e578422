"""The two persons that the course teaches: combinations of features that no training picture has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .drawing import draw
from .picture import EXPRESSIONS, KEPT, POSES, Face, Picture, varied


@dataclass(frozen=True)
class Subject:
    """A fixed character.

    Args:
        name: what she or he is called in the course.
        person: the picture whose person is the character; the rest of it changes from photo to photo.
        count: how many photos there are.
    """

    name: str
    person: Picture
    count: int

    def photos(self) -> list[Picture]:
        """The character in varied places, clothes, expressions and light, mostly close-up."""
        return [self.photo(index) for index in range(self.count)]

    def photo(self, index: int) -> Picture:
        """The photo of that index; indices from `count` on are photos that are kept out of the dataset.

        Args:
            index: 0 or more.
        """
        rng = np.random.default_rng([index, 7])
        clothes = (
            ("dress", "shirt", "sweater", "coat")
            if self.person.gender == "woman"
            else ("shirt", "sweater", "coat", "suit")
        )
        framing = ("close-up", "portrait", "portrait", "half body", "close-up", "portrait", "full height")[
            index % 7
        ]
        return varied(
            self.person,
            framing=framing,
            scene=("studio", "kitchen", "forest", "beach", "street", "studio", "castle", "desert")[index % 8],
            clothes=str(rng.choice(clothes)),
            clothes_colour=str(rng.choice(("red", "yellow", "blue", "white", "black", "purple"))),
            expression=str(rng.choice(EXPRESSIONS[:3], p=[0.5, 0.35, 0.15])),
            pose=str(rng.choice(POSES[:4], p=[0.55, 0.15, 0.15, 0.15])),
            head_tilt=float(rng.normal(0, 0.08)),
            light=float(rng.uniform(-1, 1)),
            warmth=float(rng.uniform(-1, 1)),
            x=float(rng.uniform(-0.06, 0.06)),
            seed=10_000_000 + index,
        )


SUBJECTS: dict[str, Subject] = {
    "woman": Subject(
        "Vera",
        Picture(
            gender="woman",
            skin="tan",
            face=Face(0.96, 1.12, 1.06, 1.2, 1.1, 0.92),
            eyes="blue",
            glasses="glasses",
            glasses_colour="red",
            freckles=True,
            earrings=True,
            **KEPT["woman"],  # type: ignore[arg-type]
        ),
        21,
    ),
    "man": Subject(
        "Otto",
        Picture(
            gender="man",
            skin="fair",
            face=Face(1.06, 0.95, 0.98, 1.3, 1.3, 1.1),
            eyes="green",
            glasses="none",
            beard="mustache",
            **KEPT["man"],  # type: ignore[arg-type]
        ),
        18,
    ),
}


def subject(name: str) -> Subject:
    """The subject of that name.

    Args:
        name: a key of `SUBJECTS`.

    Raises:
        ValueError: there is no such subject.
    """
    if name not in SUBJECTS:
        raise ValueError(f"the subject must be one of {', '.join(SUBJECTS)}, got {name!r}.")
    return SUBJECTS[name]


def traits(subject: Subject) -> dict[str, str]:
    """The subject's name, and the attributes that are the same in each photo."""
    kept = ("gender", "skin", "hair_colour", "hair_style", "glasses", "beard")
    return {"name": subject.name, **{name: getattr(subject.person, name) for name in kept}}


def photograph(name: str, folder: Path, size: int = 640) -> list[Path]:
    """Write the photos of a subject as JPEG files, as from a camera; files that are there are kept.

    Args:
        name: a key of `SUBJECTS`.
        folder: where to write `<subject>_01.jpg` …; made if missing.
        size: side in pixels.

    Returns:
        The paths of all its photos.

    Raises:
        ValueError: there is no such subject.
    """
    wanted = subject(name)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{wanted.name.lower()}_{index + 1:02d}.jpg" for index in range(wanted.count)]
    for path, picture in zip(paths, wanted.photos(), strict=True):
        if not path.exists():
            draw(picture, size).save(path, quality=92)
    return paths
