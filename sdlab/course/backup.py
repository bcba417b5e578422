"""Finished work is copied to a folder that outlives the machine, and comes back from there."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from sdlab.experiment import Experiment, find
from sdlab.files import write_file, write_json

DRIVE = Path("/content/drive")  # where Colab mounts Google Drive
RECORD = "experiment.json"
DATA = ("data/raw_images", "data/instance_images", "data/class_images", "data/control_images")
COMMON = Path("data/.synced.json")  # what this machine has had in common with each place
DELETED = "deleted.json"  # in the place: what was deleted on a machine and is not to come back


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
        ValueError: The place is on Google Drive, and this isn't Colab.
        DiskFull: A disk has no room; every file on it is whole.

    Taught in: notebooks/00
    """
    if not place:
        return
    place, root = Path(place).expanduser(), Path(root)
    _mount(place)
    folders = {folder: Path(folder) for folder in DATA} | {"results": Path(results)}
    held = _held(place, folders, root)
    deleted = _deleted(place, held)
    missing = {key: here for key, here in held.items() if key not in deleted and not _is_there(here)}
    back = sum(_copy(place / key, here) for key, here in missing.items())
    there = sum(_copy_new(here, place / folder) for folder, here in folders.items())
    there += sum(_copy_finished(one, place / "experiments") for one in find(root))
    common = [key for key, here in _held(place, folders, root).items() if _is_there(here)]
    write_json(COMMON, _read(COMMON) | {str(place.resolve()): common})
    print(f"{place}: {back} files brought back, {there} copied there")
    if deleted:
        some = ", ".join(sorted(deleted)[:3]) + (" …" if len(deleted) > 3 else "")
        print(f"deleted on a machine, so not brought back: {some} ({len(deleted)} in all). Delete them in")
        print(f"{place} too, or remove them from {place / DELETED} to have them back.")


def _mount(place: Path) -> None:
    if place.is_relative_to(DRIVE) and not DRIVE.is_mount():
        try:
            drive = importlib.import_module("google.colab.drive")  # only there
        except ImportError as error:
            raise ValueError(
                f"{place} is on Google Drive, which only Colab has. Name another folder."
            ) from error
        drive.mount(str(DRIVE))


def _held(place: Path, folders: dict[str, Path], root: Path) -> dict[str, Path]:
    """What a place holds, and where that is or would be on this machine; an experiment counts as one."""
    files = {
        path.relative_to(place).as_posix(): here / path.relative_to(place / folder)
        for folder, here in folders.items()
        for path in _files(place / folder)
    }
    experiments = sorted(record.parent.name for record in place.glob(f"experiments/*/{RECORD}"))
    return files | {f"experiments/{name}": root / name for name in experiments}


def _is_there(path: Path) -> bool:
    """Whether there is a file, or a whole experiment: its record is copied last."""
    return path.is_file() or (path / RECORD).is_file()


def _deleted(place: Path, held: dict[str, Path]) -> set[str]:
    """What the place has and a machine had, until it was deleted there; written down in the place."""
    before = _read(COMMON).get(str(place.resolve()), []) + _read(place / DELETED).get("files", [])
    gone = {key for key in before if key in held and not _is_there(held[key])}
    if gone or (place / DELETED).exists():
        write_json(place / DELETED, {"files": sorted(gone)})
    return gone


def _read(path: Path) -> dict[str, list[str]]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _copy_finished(experiment: Experiment, root: Path) -> int:
    """Copies a finished experiment, unless its copy is the same or newer."""
    here, there = experiment.path / RECORD, root / experiment.name / RECORD
    if experiment.status != "finished":
        return 0
    if there.is_file():
        if here.read_bytes() == there.read_bytes():
            return 0
        if here.stat().st_mtime < there.stat().st_mtime:
            print(f"{experiment.name}: the copy in {root} is newer. Delete {experiment.path} to take it.")
            return 0
        print(f"{experiment.name}: trained again here, replaces the copy in {root}")
        there.unlink()  # without its record the copy counts as broken off until it is whole
    return _copy(experiment.path, there.parent)


def _copy_new(source: Path, target: Path) -> int:
    """Copies files that aren't there, and those that have changed since."""
    new = []
    for path in _files(source):
        copy = target / path.relative_to(source)
        if not copy.exists() or path.stat().st_mtime > copy.stat().st_mtime + 2:  # FAT's seconds
            new.append(_copy(path, copy))
    return sum(new)


def _copy(source: Path, target: Path) -> int:
    """Copies a file, or all of an experiment but its checkpoints; returns how many files it copied."""
    if source.is_dir():
        parts = [path.relative_to(source) for path in _files(source)]
        wanted = [part for part in parts if part.parts[0] != "checkpoints"]
        return sum(
            _copy(source / part, target / part)
            for part in sorted(wanted, key=lambda part: part.name == RECORD)
        )
    with write_file(target, needed=source.stat().st_size) as beside:
        shutil.copy2(source, beside)
    return 1


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
