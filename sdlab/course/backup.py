"""Finished work is copied to a folder that outlives the machine, and comes back from there."""

from __future__ import annotations

import importlib
import json
import math
import shutil
from pathlib import Path

from sdlab.experiment import find
from sdlab.files import write_file, write_json

DRIVE = Path("/content/drive")  # where Colab mounts Google Drive
RECORD = "experiment.json"
DATA = ("data/raw_images", "data/instance_images", "data/class_images", "data/control_images")
COMMON = Path("data/.synced.json")  # what this machine has had in common with each place
DELETED = "deleted.json"  # in the place: what was deleted on a machine and is not to come back, on none


def sync(
    place: str | Path | None, *, root: str | Path = "experiments", results: str | Path = "results"
) -> None:
    """Brings back what a folder holds and this machine doesn't, then copies there what is new here.

    Colab deletes a machine's disk when it takes the machine back. A folder on Google Drive stays: call this
    at the beginning of a session and after each training. An experiment is copied when it is finished,
    without its checkpoints; one that was trained again takes the place of its copy. What was deleted here
    since the last time never comes back, on no machine: someone may want their photos withdrawn.

    Args:
        place: The folder, such as /content/drive/MyDrive/sdlab (Drive is mounted then); None does nothing.
        root: Folder of the experiments.
        results: Folder of the images.

    Raises:
        ValueError: The place is on Google Drive, and this isn't Colab; or it is where the work itself is.
        DiskFull: A disk has no room; every file on it is whole.

    Taught in: notebooks/00
    """
    if not place:
        return
    place = Path(place).expanduser()
    _mount(place)
    folders = {folder: Path(folder) for folder in DATA} | {
        "results": Path(results),
        "experiments": Path(root),
    }
    whole = [here.resolve() for here in folders.values()]
    if any(place.resolve().is_relative_to(here) for here in whole) or (place / "results").resolve() in whole:
        raise ValueError(
            f"{place} is where the work itself is. Name a folder elsewhere, such as ~/sdlab_copy."
        )
    pairs = _pairs(place, folders)
    finished = {one.name for one in find(root) if one.status == "finished"}
    had = _read(COMMON).get(str(place.resolve()), [])
    elsewhere = _read(place / DELETED).get("files", [])
    old = {key for key in {*had} & {*elsewhere} & {*pairs} if not _changed_since(COMMON, pairs[key][0])}
    new = [key for key, both in pairs.items() if key not in old and _is_new(*both, finished)]
    deleted = {key for key in had if key not in pairs or not pairs[key][0].is_file()}
    deleted |= {key for key in elsewhere if key not in new}
    if deleted or (place / DELETED).exists():
        write_json(place / DELETED, {"files": sorted(deleted)})
    missing = [key for key, (here, _) in pairs.items() if key not in deleted and not here.is_file()]
    back = sum(_copy(pairs[key][1], pairs[key][0]) for key in missing)
    there = sum(_copy(*pairs[key]) for key in new)
    common = [key for key, both in pairs.items() if all(path.is_file() for path in both)]
    write_json(COMMON, _read(COMMON) | {str(place.resolve()): common})
    print(f"{place}: {back} files brought back, {there} copied there")
    for number, where in enumerate(("on this machine", f"in {place}")):
        if left := sorted(key for key in deleted & {*pairs} if pairs[key][number].is_file()):
            some = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
            print(f"deleted on a machine, and still {where}: {some} ({len(left)} in all). Delete them there")
            print(f"too, or remove them from {place / DELETED} to have them everywhere again.")


def _mount(place: Path) -> None:
    if place.is_relative_to(DRIVE) and not DRIVE.is_mount():
        try:
            drive = importlib.import_module("google.colab.drive")  # only there
        except ImportError as error:
            raise ValueError(
                f"{place} is on Google Drive, which only Colab has. Name another folder."
            ) from error
        drive.mount(str(DRIVE))


def _pairs(place: Path, folders: dict[str, Path]) -> dict[str, tuple[Path, Path]]:
    """Key to where it is or would be on this machine and in the place; an experiment counts as its record."""
    return {
        f"{folder}/{part.as_posix()}".removesuffix(f"/{RECORD}"): (here / part, place / folder / part)
        for folder, here in folders.items()
        for top in (here, place / folder)
        for path in sorted(top.glob(f"*/{RECORD}" if folder == "experiments" else "**/*"))
        if (part := path.relative_to(top)) and path.is_file() and not path.name.startswith(".")
    }


def _read(path: Path) -> dict[str, list[str]]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _changed_since(synced: Path, here: Path) -> bool:
    """Whether a file was written after the last time that this machine was synced."""
    return here.is_file() and here.stat().st_mtime > synced.stat().st_mtime


def _is_new(here: Path, there: Path, finished: set[str]) -> bool:
    """Whether a file or a finished experiment isn't in the place, or has changed since."""
    if not here.is_file():
        return False
    newer = here.stat().st_mtime - there.stat().st_mtime if there.is_file() else math.inf
    if here.name != RECORD:
        return newer > 2  # FAT's seconds
    name = here.parent.name
    if name not in finished or (there.is_file() and here.read_bytes() == there.read_bytes()):
        return False
    copy = there.parent.parent
    if newer < 0:
        print(f"{name}: the copy in {copy} is newer. Delete {here.parent} to take it.")
    elif there.is_file():
        print(f"{name}: trained again here, replaces the copy in {copy}")
    return newer >= 0


def _copy(source: Path, target: Path) -> int:
    """Copies a file, or a record and all of its experiment but checkpoints; returns how many files."""
    folder = source.parent
    files = [source]
    if source.name == RECORD:
        target.unlink(missing_ok=True)  # without its record the copy counts as broken off until it is whole
        others = (path for path in sorted(folder.rglob("[!.]*")) if path.is_file() and path != source)
        files = [path for path in others if path.relative_to(folder).parts[0] != "checkpoints"] + files
    for file in files:
        with write_file(target.parent / file.relative_to(folder), needed=file.stat().st_size) as beside:
            shutil.copy2(file, beside)
    return len(files)
