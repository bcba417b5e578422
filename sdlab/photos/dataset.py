"""The prepared dataset: a folder of square images and dataset.json, which says where each came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

RECORD_FILE = "dataset.json"


@dataclass(frozen=True, repr=False)
class Dataset:
    """Instance images on disk, with the record of how each was made.

    Args:
        folder: the folder with the images and dataset.json.
        records: one per image: file, source, size, crop, notes, sha256.
        refused: one per photo that couldn't be used: source, reason.
        passed_over: names of files in the raw folder that are no photos.
        resolution: side of the images in pixels.

    Taught in: notebooks/02
    """

    folder: Path
    records: tuple[dict[str, Any], ...]
    refused: tuple[dict[str, str], ...] = ()
    passed_over: tuple[str, ...] = ()
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
            records=tuple(content["images"]),
            refused=tuple(content["refused"]),
            passed_over=tuple(content["passed_over"]),
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

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Dataset({len(self)} images of {self.resolution}×{self.resolution} in {self.folder})"

    def summary(self) -> str:
        """What was done, in lines for a terminal."""
        lines = [f"{len(self)} images of {self.resolution}×{self.resolution} in {self.folder}"]
        lines += [f"  {r['file']}: {'; '.join(r['notes'])}" for r in self.records if r["notes"]]
        lines += [f"  refused {r['source']}: {r['reason']}" for r in self.refused]
        if self.passed_over:
            lines.append(f"  passed over, no photos: {', '.join(self.passed_over)}")
        if len(self) < 15:
            lines.append(f"  only {len(self)} photos: likeness gets better with 15 or more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The contact sheet that a notebook shows."""
        from sdlab import thumbnails
        from sdlab.templates import render

        side = 112
        pictures = [
            {
                "record": record,
                "uri": thumbnails.data_uri(thumbnails.fitted(thumbnails.opened(path), side)),
            }
            for record, path in zip(self.records, self.images, strict=True)
            if path.is_file()
        ]
        return render("dataset.html", dataset=self, pictures=pictures, side=side)


def read_record(folder: Path) -> dict[str, Any]:
    """dataset.json of a folder, or an empty dict where there is none."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["images"], list):
            raise TypeError("'images' is not a list")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} can't be read ({error}). Correct it, or move it away and run `sdlab prepare` again."
        ) from error
    return content
