"""Captions: texts for single images, which the training reads in place of the instance prompt."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from sdlab.files import read_text, write_bytes
from sdlab.photos.decode import is_picture

CAPTIONS_FILE = "captions.txt"
BESIDE = (".txt", ".caption")  # kohya's scripts and most taggers write such a file for each image


def read_captions(folder: str | Path) -> dict[str, str]:
    """Image file names to captions; empty where there are none.

    They stand in captions.txt, whose lines are `image.png: a photo of sks woman face, smiling`, in text files
    beside the images (`image.txt`), or in dataset.json; the first counts."""
    folder = Path(folder)
    images = [path for path in sorted(folder.iterdir()) if is_picture(path)] if folder.is_dir() else []
    recorded = {
        str(record["file"]): str(record.get("caption") or "") for record in _records(folder, "images")
    }
    beside = {image.name: caption for image in images if (caption := caption_beside(image))}
    captions = recorded | beside | _in_text(folder / CAPTIONS_FILE, [image.name for image in images])
    return {name: caption for name, caption in captions.items() if caption}


def add_missing(folder: Path, files: Sequence[str], caption: str) -> Path:
    """Gives images without a caption this one, in captions.txt; captions that are there stay."""
    path = folder / CAPTIONS_FILE
    there = read_text(path) if path.is_file() else ""
    captions, caption = read_captions(folder), " ".join(caption.split())
    if lines := [f"{name}: {caption}\n" for name in files if name not in captions]:
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
    paths = (image.with_suffix(ending) for ending in BESIDE)
    found = (path for path in paths if path.is_file() and path.name != CAPTIONS_FILE)
    return next((" ".join(read_text(path).split()) for path in found), "")


def is_caption(path: Path) -> bool:
    """Whether a file is the caption of an image beside it."""
    return path.suffix in BESIDE and any(map(is_picture, path.parent.glob(f"{glob.escape(path.stem)}.*")))


def _in_text(path: Path, images: Sequence[str]) -> dict[str, str]:
    """What captions.txt says of these images, and of those that are gone, whose captions wait for them."""
    captions: dict[str, str] = {}
    gone = [one for name in ("images", "dropped", "removed") for one in _records(path.parent, name)]
    known = {*images, *(str(record["file"]) for record in gone)}
    lines = read_text(path).splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, colon, caption = (part.strip() for part in line.partition(":"))
        where = f"line {number} of {path}"
        if not colon or not name:
            raise ValueError(f"{where} must be `image.png: caption`, got {line!r}. Correct or delete it.")
        if name not in known:
            hint = "".join(f" Did you mean {near}?" for near in get_close_matches(name, images, 1))
            raise ValueError(
                f"{where} names {name}, which isn't in {path.parent}.{hint} Correct or delete it."
            )
        if captions.get(name, caption) != caption:
            raise ValueError(f"{where} gives {name} another caption than a line before. Delete one of them.")
        captions |= {name: caption} if caption else {}
    return captions


def _records(folder: Path, name: str) -> list[dict[str, object]]:
    try:
        records = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))[name]
        return [record for record in records if "file" in record]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # another tool's dataset.json
