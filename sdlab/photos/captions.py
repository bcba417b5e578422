"""Captions: texts for single images, which the training reads in place of the instance prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from sdlab.files import write_bytes
from sdlab.photos.decode import SUFFIXES

CAPTIONS_FILE = "captions.txt"
BESIDE = (".txt", ".caption")  # kohya's scripts and most taggers write such a file for each image


def read_captions(folder: str | Path) -> dict[str, str]:
    """Reads the captions of a folder of images.

    Args:
        folder: With captions.txt, whose lines are `image.png: a photo of sks woman face, smiling`, with text
            files beside the images (`image.txt`), or with captions in dataset.json; the first counts.

    Returns:
        Image file names to captions; empty where there are none.

    Raises:
        ValueError: A line of captions.txt has no file name, names no image, or one twice.
    """
    folder = Path(folder)
    return _in_dataset(folder) | _beside_images(folder) | _in_text(folder)


def add_missing(folder: Path, files: Sequence[str], caption: str) -> Path:
    """Gives images without a caption this one, in captions.txt; captions that are there stay."""
    path = folder / CAPTIONS_FILE
    there = path.read_text(encoding="utf-8") if path.is_file() else ""
    captions = read_captions(folder)
    lines = [f"{name}: {caption}\n" for name in files if name not in captions]
    if lines:
        gap = "" if not there or there.endswith("\n") else "\n"
        write_bytes(path, (there + gap + "".join(lines)).encode())
    return path


def captions_fingerprint(folder: str | Path) -> str:
    """Sixteen hex digits that change with any caption; "none" where there are none."""
    captions = read_captions(folder)
    text = json.dumps(captions, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if captions else "none"


def caption_beside(image: Path) -> str:
    """The text of the .txt or .caption file with an image's name; empty where there is none."""
    for path in (image.with_suffix(ending) for ending in BESIDE):
        if path.is_file() and path.name != CAPTIONS_FILE:
            return " ".join(path.read_text(encoding="utf-8-sig").split())
    return ""


def is_caption(path: Path) -> bool:
    """Whether a file is the caption of an image beside it."""
    return path.suffix in BESIDE and any(path.with_suffix(ending).is_file() for ending in SUFFIXES)


def _beside_images(folder: Path) -> dict[str, str]:
    images = (path for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() in SUFFIXES)
    return {image.name: caption for image in images if (caption := caption_beside(image))}


def _in_text(folder: Path) -> dict[str, str]:
    path = folder / CAPTIONS_FILE
    if not path.is_file():
        return {}
    captions: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        name, colon, caption = (part.strip() for part in line.partition(":"))
        where = f"line {number} of {path}"
        if not line.strip():
            continue
        if not colon or not name:
            raise ValueError(f"{where} must be `image.png: caption`, got {line!r}. Correct or delete it.")
        if captions.get(name, caption) != caption:
            raise ValueError(f"{where} gives {name} another caption than a line before. Delete one of them.")
        if not (folder / name).is_file() and name not in _left_out(folder):
            images = [file.name for file in folder.glob("[!.]*") if file.suffix.lower() in SUFFIXES]
            near = get_close_matches(name, images, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where} names {name}, which isn't in {folder}.{hint} Correct or delete it.")
        if caption:
            captions[name] = caption
    return captions


def _left_out(folder: Path) -> set[str]:
    """Images that were dropped, whose captions wait for them."""
    return {str(record["file"]) for record in _records(folder, "dropped")}


def _in_dataset(folder: Path) -> dict[str, str]:
    return {
        str(record["file"]): str(record["caption"])
        for record in _records(folder, "images")
        if record.get("caption")
    }


def _records(folder: Path, name: str) -> list[dict[str, object]]:
    try:
        records = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))[name]
        return [record for record in records if "file" in record]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # another tool's dataset.json
