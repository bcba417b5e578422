"""The prepared dataset: a folder of square images and dataset.json, which says where each came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.files import write_json
from sdlab.photos.doctor import DROPPABLE, KINDS, Finding, examine

if TYPE_CHECKING:
    from PIL import Image

RECORD_FILE = "dataset.json"
Record = dict[str, Any]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Instance images on disk, with the record of how each was made.

    Args:
        folder: the folder with the images and dataset.json.
        records: one per image: file, source, size, crop, detector, faces, notes, measured, sha256 …
        refused: one per photo that couldn't be used: source, reason.
        passed_over: names of files in the raw folder that are no photos.
        dropped: records of photos that were left out as the user asked.
        resolution: side of the images in pixels.

    Taught in: notebooks/01
    """

    folder: Path
    records: tuple[Record, ...]
    refused: tuple[dict[str, str], ...] = ()
    passed_over: tuple[str, ...] = ()
    dropped: tuple[Record, ...] = ()
    resolution: int = 512

    @classmethod
    def load(cls, folder: str | Path = "data/instance_images") -> Dataset:
        """Read a dataset that `prepare` made.

        Args:
            folder: the folder with dataset.json.

        Returns:
            The dataset.

        Raises:
            FileNotFoundError: there is no dataset.json.
            ValueError: dataset.json can't be read.
        """
        folder = Path(folder)
        content = read_record(folder)
        if not content:
            raise FileNotFoundError(f"{folder / RECORD_FILE} is missing. Run `sdlab prepare` to make it.")
        return cls(
            folder=folder,
            records=tuple(_without_findings(record) for record in content["images"]),
            refused=tuple(content["refused"]),
            passed_over=tuple(content["passed_over"]),
            dropped=tuple(content.get("dropped", ())),
            resolution=content["resolution"],
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
        return examine(self.records)

    def findings_of(self, file: str) -> list[Finding]:
        """What the doctor says about one image."""
        return [finding for finding in self.findings if finding.file == file]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Dataset({len(self)} images of {self.resolution}×{self.resolution} in {self.folder})"

    def summary(self) -> str:
        """What was done to each photo, and what the doctor says, in lines for a terminal."""
        images = "1 image" if len(self) == 1 else f"{len(self)} images"
        lines = [f"{images} of {self.resolution}×{self.resolution} in {self.folder}"]
        width = max(len(record["file"]) for record in self.records)
        lines += [f"  {r['file']:<{width}}  {'; '.join(r['notes'])}".rstrip() for r in self.records]
        lines += [f"  refused {r['source']}: {r['reason']}" for r in self.refused]
        lines += [f"  dropped {r['source']}: {r['dropped']}" for r in self.dropped]
        if self.passed_over:
            lines.append(f"  passed over, no photos: {', '.join(self.passed_over)}")
        return "\n".join([*lines, *self.diagnosis()])

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
        droppable = [
            kind for kind in DROPPABLE if any(f.kind == kind and f.level != "note" for f in self.findings)
        ]
        if droppable:
            lines.append(f"  you decide; to leave photos out: sdlab prepare --drop {','.join(droppable)}")
        return lines

    def sheet(self) -> Image.Image:
        """The contact sheet: each photo with its crop beside the image that came of it, with the findings.

        Returns:
            An RGB picture.
        """
        from sdlab.photos.sheet import draw_sheet

        return draw_sheet(self)

    def _repr_html_(self) -> str:
        """The contact sheet that a notebook shows."""
        from sdlab.photos.sheet import sheet_html

        return sheet_html(self)


def read_record(folder: Path) -> Record:
    """dataset.json of a folder, or an empty dict where there is none."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["images"], list):
            raise TypeError("'images' is not a list")
        for record in content["images"]:
            record["file"], record["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} can't be read ({error}). Correct it, or move it away and run `sdlab prepare` again."
        ) from error
    return dict(content)


def write_record(dataset: Dataset) -> Path:
    """Write dataset.json.

    Args:
        dataset: what it shall say.

    Returns:
        Its path.
    """
    images = [
        record | {"findings": [finding.as_dict() for finding in dataset.findings_of(record["file"])]}
        for record in dataset.records
    ]
    content = {
        "resolution": dataset.resolution,
        "fingerprint": dataset.fingerprint,
        "findings": [finding.as_dict() for finding in dataset.findings if not finding.file],
        "images": images,
        "dropped": list(dataset.dropped),
        "refused": list(dataset.refused),
        "passed_over": list(dataset.passed_over),
    }
    return write_json(dataset.folder / RECORD_FILE, content)


def _without_findings(record: Record) -> Record:
    """They follow from what was measured."""
    return {name: value for name, value in record.items() if name != "findings"}
