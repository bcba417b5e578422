"""Captions: texts for single images, which the training reads in place of the instance prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sdlab.files import write_bytes

CAPTIONS_FILE = "captions.txt"


def read_captions(folder: str | Path) -> dict[str, str]:
    """Read the captions of a folder of images.

    Args:
        folder: with captions.txt, whose lines are `image.png: a photo of sks woman face, smiling`, or with
            captions in dataset.json; where both have one, captions.txt counts.

    Returns:
        Image file names to captions; empty where there are none.

    Raises:
        ValueError: a line of captions.txt has no file name.
    """
    folder = Path(folder)
    return _in_dataset(folder / "dataset.json") | _in_text(folder / CAPTIONS_FILE)


def add_missing(folder: Path, files: Sequence[str], caption: str) -> Path:
    """Give images that have no caption this one; captions that are there stay as they are.

    Args:
        folder: of the images.
        files: their names.
        caption: for those without.

    Returns:
        The path of captions.txt.
    """
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


def _in_text(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    captions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        name, colon, caption = line.partition(":")
        if not line.strip():
            continue
        if not colon or not name.strip():
            raise ValueError(
                f"line {number} of {path} must be `image.png: caption`, got {line!r}. Correct or delete it."
            )
        if caption.strip():
            captions[name.strip()] = caption.strip()
    return captions


def _in_dataset(path: Path) -> dict[str, str]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["images"]
        return {record["file"]: str(record["caption"]) for record in records if record.get("caption")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # another tool's dataset.json
