"""The prepared dataset: a folder of square images and dataset.json, which says where each came from."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from sdlab.files import file_sha256, read_text, write_bytes, write_json
from sdlab.photos.doctor import DROPPABLE, KINDS, Finding, examine

RECORD_FILE = "dataset.json"
HIDDEN = ".sdlab"  # in the dataset: finished images, their records and the small whole photos
MADE_BY = "<!-- contact sheet by sdlab -->"
RED, YELLOW = "#e0356b", "#f5b400"
Record = dict[str, Any]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Instance images on disk, with the record of how each was made.

    Taught in: notebooks/01
    """

    folder: Path
    records: tuple[Record, ...]  # of each image: file, source, size, crop, detector, faces, notes, measured …
    refused: tuple[dict[str, str], ...] = ()  # of each photo that couldn't be used: source, reason
    ignored: tuple[str, ...] = ()  # files and folders in the raw folder that weren't read
    dropped: tuple[Record, ...] = ()  # of photos that were left out as the user asked
    resolution: int = 512  # side of the images in pixels
    subject_kind: str = "person"
    subject: str = ""  # such as "sks dog", if it was said
    removed: tuple[Record, ...] = ()  # `file` of each image whose photo is gone; its caption waits for it

    @classmethod
    def load(cls, folder: str | Path = "data/instance_images") -> Dataset:
        """Reads a dataset that `prepare` made; images that are gone are left out with a warning."""
        folder = Path(folder)
        content = read_record(folder)
        if not content:
            raise FileNotFoundError(f"{folder / RECORD_FILE} is missing. Run `sdlab prepare` to make it.")
        names = ("refused", "ignored", "dropped", "removed")
        refused, ignored, dropped, removed = (tuple(content.get(name, ())) for name in names)
        kind, subject = content.get("subject_kind", "person"), content.get("subject", "")
        records = []
        for record in content["images"]:
            with suppress(OSError):
                records.append(record | {"sha256": file_sha256(folder / record["file"])})
        if changed := len(content["images"]) - sum(one in content["images"] for one in records):
            warnings.warn(
                f"{changed} of {len(content['images'])} images in {folder} are gone or were changed since "
                "`sdlab prepare`, which says what they are. Run it again.",
                stacklevel=2,
            )
        found = (tuple(records), refused, ignored, dropped)
        return cls(folder, *found, content["resolution"], kind, subject, removed)

    @property
    def images(self) -> list[Path]:
        """Paths of the images, in the order of the records."""
        return [self.folder / record["file"] for record in self.records]

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any image changes."""
        lines = sorted(f"{record['file']}\0{record['sha256']}" for record in self.records)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @cached_property
    def findings(self) -> list[Finding]:
        """What the doctor says: what will spoil the training, about the whole dataset and single images."""
        return examine(self.records, self.subject_kind)

    def findings_of(self, file: str) -> list[Finding]:
        """What the doctor says about one image."""
        return [finding for finding in self.findings if finding.file == file]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        images = "1 image" if len(self) == 1 else f"{len(self)} images"
        return f"{images} of {self.resolution}×{self.resolution} in {self.folder}"

    def summary(self) -> str:
        """What was done to each photo, and what the doctor says, in lines for a terminal."""
        width = max((len(record["file"]) for record in self.records), default=0)
        return self._rendered("dataset.txt", width=width)

    def diagnosis(self) -> list[str]:
        """The findings by kind: what each kind does to the training, then the images that have it."""
        return self._rendered("diagnosis.txt").splitlines()

    def _repr_html_(self, side: int = 112) -> str:
        """The contact sheet: each photo with its crop beside the image that came of it, with the findings."""
        from sdlab.thumbnails import data_uri, fitted, opened

        pictures = {}
        for record, path in zip(self.records, self.images, strict=True):
            if path.is_file():
                both = (self._before(record), opened(path))
                pictures[record["file"]] = [data_uri(fitted(one, side)) for one in both if one]
        return self._rendered("dataset.html", pictures=pictures, side=side)

    def _rendered(self, template: str, **values: Any) -> str:
        from sdlab.templates import render

        return render(template, dataset=self, kinds=KINDS, droppable=DROPPABLE, **values).rstrip()

    def _before(self, record: Record) -> Image.Image | None:
        """The small whole photo with crop and face drawn; None for an image that the user put there."""
        from sdlab.thumbnails import opened

        path = self.folder / HIDDEN / f"{record['key']}.webp"
        if not path.is_file():
            return None
        picture = opened(path)
        scale = max(picture.size) / max(record["size"])
        drawing = ImageDraw.Draw(picture)
        if record["face"]:
            left, top, width, height = (value * scale for value in record["face"])
            drawing.rectangle((left, top, left + width, top + height), outline=YELLOW, width=5)
        left, top, right, low = (round(value * scale) for value in record["crop"])
        drawing.rectangle((left, top, right - 1, low - 1), outline=RED, width=7)
        return picture


def save_sheet(dataset: Dataset, path: str | Path | None = None) -> Path:
    """Writes the contact sheet as one page with its pictures, `<folder>_sheet.html` unless told where."""
    path = Path(path) if path else dataset.folder.with_name(f"{dataset.folder.name}_sheet.html")
    if path.exists() and MADE_BY.encode() not in path.read_bytes():
        raise ValueError(f"{path} is no contact sheet of sdlab's. Move it away, or choose another name.")
    head = f"<!doctype html>{MADE_BY}<meta charset='utf-8'><body style='font-family:sans-serif;margin:24px'>"
    return write_bytes(path, f"{head}{dataset._repr_html_(168)}".encode())


def read_record(folder: Path) -> Record:
    """dataset.json of a folder, or an empty dict where there is none."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
        if not isinstance(content["images"], list) or content["resolution"] < 1:
            raise TypeError("'images' or 'resolution' isn't what it was")
        for record in content["images"]:
            record["file"], record["sha256"]
            record.pop("findings", None)  # they are made anew
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} can't be read ({error}). Correct it, or move it away and run `sdlab prepare` again."
        ) from error
    return dict(content)


def write_record(dataset: Dataset) -> Path:
    """Writes dataset.json, with the findings beside what they are about."""
    findings: dict[str, list[Record]] = defaultdict(list)
    for finding in dataset.findings:
        findings[finding.file].append(finding.as_dict())
    names = ("resolution", "subject_kind", "subject", "fingerprint")
    content = {name: getattr(dataset, name) for name in names}
    content["findings"] = findings[""]
    content["images"] = [record | {"findings": findings[record["file"]]} for record in dataset.records]
    content |= {name: getattr(dataset, name) for name in ("dropped", "removed", "refused", "ignored")}
    return write_json(dataset.folder / RECORD_FILE, content)
