"""The mini model: a real but small Stable Diffusion in the package, and photos of the persons it is taught.

Nothing here draws or trains: `recipes/mini` of the repository draws the world that it knows and trained it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

PHOTOS = {"woman": ("raw_images", "vera_*"), "man": ("raw_images_man", "otto_*")}
"""Subject -> the folder of `data/` that holds the photos, and their names."""


def path() -> Path:
    """The folder of the mini pipeline in the diffusers layout.

    Returns:
        A folder that `diffusers.StableDiffusionPipeline.from_pretrained` loads.

    Taught in: notebooks/00.
    """
    return Path(__file__).parent / "weights" / "sd"


def controlnet_path(kind: str) -> Path:
    """The folder of the mini model's ControlNet.

    Args:
        kind: `canny`, `depth` or `pose`.

    Returns:
        A folder that `diffusers.ControlNetModel.from_pretrained` loads.
    """
    return Path(__file__).parent / "weights" / "control" / kind


def annotator_path(kind: str) -> Path:
    """The folder of the model that estimates depth or pose in pictures of the mini world.

    Args:
        kind: `depth` or `pose`.

    Returns:
        A folder that transformers loads: a Depth Anything, or a ViTPose.
    """
    return Path(__file__).parent / "weights" / "annotators" / kind


def copy_photos(subject: str, folder: str | Path) -> list[Path]:
    """Copy the photos of the woman or man that `mini` is taught; files that are there are kept.

    Args:
        subject: "woman" (Vera) or "man" (Otto).
        folder: Where to; made if missing.

    Returns:
        The photos in `folder`.

    Raises:
        ValueError: there is no such subject.
        FileNotFoundError: the photos were deleted from the repository.
    """
    if subject not in PHOTOS:
        raise ValueError(f"subject must be one of {', '.join(PHOTOS)}, got {subject!r}.")
    return _copy(*PHOTOS[subject], folder)


def copy_control_images(folder: str | Path) -> list[Path]:
    """Copy the drawn control images, such as `raised_arms.png`; files that are there are kept.

    Args:
        folder: Where to; made if missing.

    Returns:
        The images in `folder`.

    Raises:
        FileNotFoundError: the images were deleted from the repository.
    """
    return _copy("control_images", "*.png", folder)


def control_image(path: Path) -> Path:
    """The course's control image where a path of `data/control_images` isn't there, else the path."""
    ours = _data("control_images") / path.name
    usual = path.parent in (Path("data/control_images"), Path())
    return ours if usual and not path.exists() and ours.is_file() else path


def is_album(digests: Iterable[str]) -> bool:
    """Whether photos, by their SHA-256, are all of the drawn albums, whose faces no face detector knows."""
    files = [file for folder, pattern in PHOTOS.values() for file in _data(folder).glob(pattern)]
    wanted = set(digests)
    return bool(wanted) and wanted <= {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _data(name: str) -> Path:
    """A folder of `data/`, which a wheel carries inside the package and a clone has beside it."""
    inside, beside = Path(__file__).parent / "data", Path(__file__).parents[2] / "data"
    return (inside if inside.is_dir() else beside) / name


def _copy(name: str, pattern: str, folder: str | Path) -> list[Path]:
    """Copy from `data/`."""
    source, folder = _data(name), Path(folder)
    files = sorted(source.glob(pattern))
    if not files:
        raise FileNotFoundError(f"{source} has no {pattern}. Get them back with `git restore data/{name}`.")
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        stem_is_there = any(one.name[0] != "." for one in folder.glob(f"{file.stem}.*"))
        if not stem_is_there:
            beside_it = folder / f".{file.name}.partial"
            shutil.copyfile(file, beside_it)
            beside_it.replace(folder / file.name)
    return sorted(folder.glob(pattern))
