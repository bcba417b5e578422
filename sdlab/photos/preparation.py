"""The stage `sdlab prepare`: a folder of photos becomes a folder of instance images."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab.atomic import file_sha256, write_bytes, write_json
from sdlab.photos.crop import centre_square, cut
from sdlab.photos.dataset import RECORD_FILE, Dataset, read_record
from sdlab.photos.decode import SUFFIXES, UnusablePhoto, decode

MIN_RESOLUTION = 64
LOCK_FILE = ".dataset.lock"
PART_PREFIX = ".sdlab-part-"  # what a killed run may leave, besides its `.….partial`
# Part of every image's key: raise it when the way an image is made changes.
RECIPE = "centre-square lanczos 1"


def prepare(
    raw: str | Path = "data/raw_images",
    out: str | Path = "data/instance_images",
    resolution: int = 512,
) -> Dataset:
    """Make square training images of the photos in a folder.

    Each photo is decoded completely, turned upright by its EXIF orientation, brought to RGB, cropped to
    the largest square in the middle, resized by Lanczos and saved as PNG without metadata. A photo that
    hasn't changed is not done again. Images in `out` that were put there or edited by hand are kept and
    belong to the dataset; no file that this function didn't make is ever changed or deleted.

    Args:
        raw: folder with the photos as they came.
        out: folder for the images and dataset.json.
        resolution: side of the images in pixels, divisible by 8.

    Returns:
        The dataset, with the refused photos and the reasons.

    Raises:
        ValueError: no photo could be used, or the resolution or the folders are not usable.
        FileNotFoundError: the raw folder doesn't exist.

    Taught in: notebooks/02
    """
    from filelock import FileLock

    raw, out = Path(raw), Path(out)
    _check(raw, out, resolution)
    photos, passed_over = _photos_in(raw)
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / LOCK_FILE):
        for leftover in out.glob(f"*{PART_PREFIX}*"):
            leftover.unlink()
        known = read_record(out)
        sources, refused = _sources(photos)
        plan = _Plan(out, resolution, {r["file"]: r for r in known.get("images", [])})
        for source in sources:
            try:
                plan.add(source)
            except UnusablePhoto as reason:
                refused.append({"source": source.path.name, "reason": str(reason)})
        refused += plan.add_the_users_own()
        if not plan.records:
            raise ValueError(_nothing_usable(raw, refused, passed_over))
        dataset = Dataset(
            folder=out,
            records=tuple(sorted(plan.records, key=lambda record: record["file"])),
            refused=tuple(refused),
            passed_over=tuple(passed_over),
            resolution=resolution,
        )
        plan.carry_out(dataset)
    return dataset


@dataclass(frozen=True)
class _Source:
    path: Path
    sha256: str
    target: str


class _Plan:
    """What the dataset will hold; nothing in the folder changes until `carry_out`."""

    def __init__(self, out: Path, resolution: int, known: dict[str, dict[str, Any]]) -> None:
        self.out, self.resolution, self.known = out, resolution, known
        self.records: list[dict[str, Any]] = []
        self.parts: dict[str, Path] = {}

    def add(self, source: _Source) -> None:
        """Keep what is there for this photo, or make its image as a part file."""
        before = self.known.get(source.target)
        there = self.out / source.target
        sha256 = file_sha256(there) if there.is_file() else None
        key = hashlib.sha256(f"{RECIPE} {self.resolution} {source.sha256}".encode()).hexdigest()[:16]
        if sha256 and not _is_ours(before, sha256):
            self.records.append(_own_record(there, sha256, source.path.name))
        elif before and sha256 == before["sha256"] and before.get("key") == key:
            self.records.append({**before, "replaces": None})
        else:
            record, content = self._made(source, key)
            self.parts[source.target] = self.out / f"{PART_PREFIX}{source.target}"
            write_bytes(self.parts[source.target], content)
            self.records.append({**record, "replaces": sha256})

    def add_the_users_own(self) -> list[dict[str, str]]:
        """Pictures in the folder that no photo stands for: put there by hand, unless we made them once."""
        refused = []
        taken = {record["file"] for record in self.records}
        for path in sorted(self.out.iterdir()):
            if path.name in taken or path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            sha256 = file_sha256(path)
            if _is_ours(self.known.get(path.name), sha256):
                continue
            try:
                self.records.append(_own_record(path, sha256, None))
            except UnusablePhoto as reason:
                refused.append({"source": str(path.name), "reason": str(reason)})
        return refused

    def carry_out(self, dataset: Dataset) -> None:
        """Write dataset.json first, so that a run killed in between still knows which files are its own."""
        gone = [
            self.out / name
            for name, record in self.known.items()
            if name not in {r["file"] for r in dataset.records}
            and (self.out / name).is_file()
            and _is_ours(record, file_sha256(self.out / name))
        ]
        for path in gone:
            path.unlink()
        _write_record(dataset)
        for target, part in self.parts.items():
            os.replace(part, self.out / target)

    def _made(self, source: _Source, key: str) -> tuple[dict[str, Any], bytes]:
        photo = decode(source.path, wanted=self.resolution)
        box = centre_square(*photo.size)
        buffer = io.BytesIO()
        cut(photo.image, box, photo.size, self.resolution).save(buffer, "PNG")
        notes = list(photo.notes)
        if photo.size[0] != photo.size[1]:
            notes.append(f"{photo.size[0]}×{photo.size[1]} cropped to the middle {box[2] - box[0]} pixels")
        if box[2] - box[0] < self.resolution:
            notes.append(f"enlarged from {box[2] - box[0]} pixels: it will look soft")
        record = {
            "file": source.target,
            "source": source.path.name,
            "source_sha256": source.sha256,
            "size": list(photo.size),
            "crop": list(box),
            "notes": notes,
            "key": key,
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        }
        return record, buffer.getvalue()


def _check(raw: Path, out: Path, resolution: int) -> None:
    if resolution < MIN_RESOLUTION or resolution % 8:
        raise ValueError(
            f"resolution must be divisible by 8 and at least {MIN_RESOLUTION}, got {resolution}. "
            "Stable Diffusion 1.5 uses 512, mini 128."
        )
    if not raw.is_dir():
        raise FileNotFoundError(
            f"{raw} is not a folder. Make it and put 15 or more photos of one person there."
        )
    if raw.resolve() == out.resolve():
        raise ValueError(f"raw and out are the same folder, {raw}. Choose another folder for the images.")


def _photos_in(raw: Path) -> tuple[list[Path], list[str]]:
    """Files that claim to be pictures, and the names of the others."""
    photos, passed_over = [], []
    for path in sorted(raw.iterdir(), key=lambda path: path.name):
        if path.name.startswith(".") or path.is_dir() or path.name.lower() in ("thumbs.db", "desktop.ini"):
            continue
        if path.suffix.lower() in SUFFIXES or _starts_like_a_picture(path):
            photos.append(path)
        else:
            passed_over.append(path.name)
    return photos, passed_over


def _starts_like_a_picture(path: Path) -> bool:
    """Whether a file without a picture's suffix is one all the same, as phones and chats send them."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    magic = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
    return head.startswith(magic) or head[8:12] == b"WEBP" or head[4:12] == b"ftypheic"


def _sources(photos: list[Path]) -> tuple[list[_Source], list[dict[str, str]]]:
    """Photos with the names of their images; exact copies of another photo are refused."""
    first: dict[str, Path] = {}
    refused = []
    for path in photos:
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            refused.append({"source": path.name, "reason": f"it can't be opened: {error.strerror or error}"})
            continue
        if sha256 in first:
            refused.append({"source": path.name, "reason": f"it is the same file as {first[sha256].name}"})
        else:
            first[sha256] = path
    stems = {sha256: _plain_name(path.stem) for sha256, path in first.items()}
    times = Counter(stem.casefold() for stem in stems.values())
    sources = []
    for sha256, path in first.items():
        stem = stems[sha256]
        # a.jpg beside a.png: both names get a piece of the hash, whichever came first
        target = f"{stem}.png" if times[stem.casefold()] == 1 else f"{stem}_{sha256[:8]}.png"
        sources.append(_Source(path, sha256, target))
    return sources, refused


def _plain_name(stem: str) -> str:
    """A name that every file system and every Markdown link takes."""
    return re.sub(r"[^\w.-]+", "_", stem).lstrip(".") or "photo"


def _is_ours(record: dict[str, Any] | None, sha256: str) -> bool:
    """Whether a file with this content was made by `prepare` for this record, and not edited since."""
    return bool(record and record.get("key") and sha256 in (record["sha256"], record.get("replaces")))


def _own_record(path: Path, sha256: str, source: str | None) -> dict[str, Any]:
    """Record of an image that the user put there or edited."""
    try:
        size = decode(path).size
    except UnusablePhoto as reason:
        raise UnusablePhoto(f"the image made by hand, {path}, can't be used: {reason}") from reason
    return {
        "file": path.name,
        "source": source,
        "source_sha256": None,
        "size": list(size),
        "crop": None,
        "notes": ["made by hand, kept as it is"],
        "key": None,
        "sha256": sha256,
    }


def _write_record(dataset: Dataset) -> None:
    content = {
        "resolution": dataset.resolution,
        "fingerprint": dataset.fingerprint,
        "images": list(dataset.records),
        "refused": list(dataset.refused),
        "passed_over": list(dataset.passed_over),
    }
    write_json(dataset.folder / RECORD_FILE, content)


def _nothing_usable(raw: Path, refused: list[dict[str, str]], passed_over: list[str]) -> str:
    if not refused:
        others = f" It holds other files: {', '.join(passed_over[:5])}." if passed_over else ""
        return f"{raw} holds no photos.{others} Put 15 or more photos of one person there (jpg, png …)."
    reasons = "".join(f"\n  {entry['source']}: {entry['reason']}" for entry in refused)
    return f"none of the {len(refused)} photos in {raw} can be used:{reasons}\nPut readable photos there."
