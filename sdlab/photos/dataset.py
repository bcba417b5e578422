"""The prepared dataset: a folder of square images and dataset.json, which says where each came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.files import write_bytes, write_json
from sdlab.photos.doctor import DROPPABLE, KINDS, Finding, examine

if TYPE_CHECKING:
    from PIL import Image

RECORD_FILE = "dataset.json"
HIDDEN = ".sdlab"  # in the dataset: finished images, their records and the small whole photos
MADE_BY = "<!-- contact sheet by sdlab -->"
RED, YELLOW = "#e0356b", "#f5b400"
Record = dict[str, Any]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Instance images on disk, with the record of how each was made.

    Args:
        folder: The folder with the images and dataset.json.
        records: One per image: file, source, size, crop, detector, faces, notes, measured, sha256 …
        refused: One per photo that couldn't be used: source, reason.
        ignored: Names of files and folders in the raw folder that weren't read.
        dropped: Records of photos that were left out as the user asked.
        resolution: Side of the images in pixels.
        subject_kind: "person", "animal", "thing" or "style".

    Taught in: notebooks/01
    """

    folder: Path
    records: tuple[Record, ...]
    refused: tuple[dict[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    dropped: tuple[Record, ...] = ()
    resolution: int = 512
    subject_kind: str = "person"

    @classmethod
    def load(cls, folder: str | Path = "data/instance_images") -> Dataset:
        """Reads a dataset that `prepare` made.

        Args:
            folder: The folder with dataset.json.

        Raises:
            FileNotFoundError: There is no dataset.json.
            ValueError: dataset.json can't be read.
        """
        folder = Path(folder)
        content = read_record(folder)
        if not content:
            raise FileNotFoundError(f"{folder / RECORD_FILE} is missing. Run `sdlab prepare` to make it.")
        return cls(
            folder=folder,
            records=tuple(_without_findings(record) for record in content["images"]),
            refused=tuple(content.get("refused", ())),
            ignored=tuple(content.get("ignored", ())),
            dropped=tuple(content.get("dropped", ())),
            resolution=content["resolution"],
            subject_kind=content.get("subject_kind", "person"),
        )

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
        width = max(len(record["file"]) for record in self.records)
        lines = [f"  {r['file']:<{width}}  {'; '.join(r['notes'])}".rstrip() for r in self.records]
        lines += [f"  refused {r['source']}: {r['reason']}" for r in self.refused]
        lines += [f"  dropped {r['source']}: {r['dropped']}" for r in self.dropped]
        lines += [f"  ignored, no photo: {name}" for name in self.ignored]
        return "\n".join([repr(self), *lines, *self.diagnosis()])

    def diagnosis(self) -> list[str]:
        """The findings by kind: what each kind does to the training, then the images that have it."""
        if not self.findings:
            return ["", "the doctor found nothing that would spoil the training"]
        lines = ["", "what the doctor found, and what it does to the training:"]
        for kind, effect in KINDS.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            if found and found[0].level == "note":
                files = ", ".join(finding.file for finding in found[:6]) + (", …" if len(found) > 6 else "")
                lines.append(f"  note, {found[0].text} in {len(found)} of {len(self)}: {effect} ({files})")
            elif found:
                lines.append(f"  {found[0].level}, {kind}: {effect}")
                lines += [f"    {f.file + ': ' if f.file else ''}{f.text}" for f in found]
        kinds = {finding.kind for finding in self.findings if finding.level != "note"}
        if droppable := [kind for kind in DROPPABLE if kind in kinds]:
            lines.append(f"  you decide; to leave photos out: sdlab prepare --drop {','.join(droppable)}")
        return lines

    def _repr_html_(self, side: int = 112) -> str:
        """The contact sheet: each photo with its crop beside the image that came of it, with the findings."""
        from sdlab import thumbnails
        from sdlab.templates import render

        pictures = []
        for record in self.records:
            if not (path := self.folder / record["file"]).is_file():
                continue
            both = [self._before(record), thumbnails.opened(path)]
            found = [f.text for f in self.findings_of(record["file"]) if f.level != "note"]
            pictures.append(
                {
                    "name": record["source"] or record["file"],
                    "uris": [thumbnails.data_uri(thumbnails.fitted(one, side)) for one in both if one],
                    "notes": record["notes"],
                    "findings": found,
                }
            )
        return render(
            "dataset.html", dataset=self, pictures=pictures, side=side, diagnosis=self.diagnosis()[1:]
        )

    def _before(self, record: Record) -> Image.Image | None:
        """The small whole photo with crop and face drawn; None for an image that the user put there."""
        from PIL import Image, ImageDraw

        path = self.folder / HIDDEN / f"{record['key']}.webp"
        if not path.is_file():
            return None
        with Image.open(path) as file:
            picture = file.convert("RGB")
        scale = max(picture.size) / max(record["size"])
        drawing = ImageDraw.Draw(picture)
        if record["face"]:
            left, top, width, height = (value * scale for value in record["face"])
            drawing.rectangle((left, top, left + width, top + height), outline=YELLOW, width=5)
        left, top, right, low = (round(value * scale) for value in record["crop"])
        drawing.rectangle((left, top, right - 1, low - 1), outline=RED, width=7)
        return picture


def save_sheet(dataset: Dataset, path: str | Path | None = None) -> Path:
    """Writes the contact sheet as a page that carries its pictures in itself.

    Args:
        dataset: Prepared.
        path: Where; None takes `<folder>_sheet.html` beside the dataset's folder.

    Raises:
        ValueError: There is another file, which isn't overwritten.
    """
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
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["images"], list) or content["resolution"] < 1:
            raise TypeError("'images' or 'resolution' isn't what it was")
        for record in content["images"]:
            record["file"], record["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} can't be read ({error}). Correct it, or move it away and run `sdlab prepare` again."
        ) from error
    return dict(content)


def write_record(dataset: Dataset) -> Path:
    """Writes dataset.json, unless it says the same already."""
    images = [
        record | {"findings": [finding.as_dict() for finding in dataset.findings_of(record["file"])]}
        for record in dataset.records
    ]
    content = {
        "resolution": dataset.resolution,
        "subject_kind": dataset.subject_kind,
        "fingerprint": dataset.fingerprint,
        "findings": [finding.as_dict() for finding in dataset.findings if not finding.file],
        "images": images,
        "dropped": list(dataset.dropped),
        "refused": list(dataset.refused),
        "ignored": list(dataset.ignored),
    }
    path = dataset.folder / RECORD_FILE
    same = path.is_file() and read_record(dataset.folder) == content
    return path if same else write_json(path, content)


def _without_findings(record: Record) -> Record:
    """They follow from what was measured."""
    return {name: value for name, value in record.items() if name != "findings"}
