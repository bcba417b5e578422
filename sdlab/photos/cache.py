"""Finished images and their records, kept beside the dataset so that no photo is done twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab.files import file_sha256, write_bytes, write_json
from sdlab.photos.crop import Crop
from sdlab.photos.making import Made

FOLDER = ".sdlab"


@dataclass(frozen=True)
class Cache:
    """A hidden folder in the dataset: for each image the PNG, the small whole photo, and last the record.

    Because the record is written last, a run that was killed leaves finished photos and no half ones.

    Args:
        out: the dataset's folder.
    """

    out: Path

    def record(self, target: str, key: str, by_hand: Crop | None) -> dict[str, Any] | None:
        """The record of a finished image; None where it isn't there as it would be made now.

        Args:
            target: the image's file name.
            key: from `Settings.key`.
            by_hand: the crop that the user chose.
        """
        try:
            record = json.loads(self._path(target, ".json").read_text(encoding="utf-8"))
            whole = file_sha256(self._path(target)) == record["sha256"]
            crop = record["crop"] if record["crop_by"] == "hand" else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        wanted = list(by_hand.box) if by_hand else None
        return record if whole and record["key"] == key and crop == wanted else None

    def put(self, made: Made) -> None:
        """Keep a finished image."""
        target = made.record["file"]
        write_bytes(self._path(target), made.image)
        write_bytes(self._path(target, ".webp"), made.before)
        write_json(self._path(target, ".json"), made.record)

    def image(self, target: str) -> bytes:
        """The PNG's bytes."""
        return self._path(target).read_bytes()

    def before(self, target: str) -> Path:
        """Where the small whole photo is, if it is there."""
        return self._path(target, ".webp")

    def keep_only(self, targets: set[str]) -> None:
        """Forget photos that are no longer among the raw ones."""
        folder = self.out / FOLDER
        if not folder.is_dir():
            return
        wanted = {target + ending for target in targets for ending in ("", ".webp", ".json")}
        for path in folder.iterdir():
            if path.name not in wanted:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _path(self, target: str, ending: str = "") -> Path:
        return self.out / FOLDER / f"{target}{ending}"
