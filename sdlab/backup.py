"""Finished work is copied to a folder that outlives the machine, and comes back from there."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Collection, Iterator
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
    place, root, results = Path(place).expanduser(), Path(root), Path(results)
    _mount(place)
    folders = {folder: Path(folder) for folder in DATA} | {"results": results, "experiments": root}
    deleted = _deleted(place, folders)
    back = there = 0
    for folder, here in folders.items():
        if folder != "experiments":
            back += _copy_new(place / folder, here, newer=False, but={place / key for key in deleted})
            there += _copy_new(here, place / folder)
    for one in find(place / "experiments"):
        if f"experiments/{one.name}" not in deleted and not (root / one.name / RECORD).is_file():
            back += _copy_experiment(one, root)
    for one in find(root):
        there += _copy_newer_experiment(one, place / "experiments")
    _remember(place, folders)
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


def _deleted(place: Path, folders: dict[str, Path]) -> set[str]:
    """What the place has and a machine had, until it was deleted there; written down in the place."""
    before = _read(COMMON).get(str(place.resolve()), []) + _read(place / DELETED).get("files", [])
    gone = {key for key in before if (place / key).exists() and not _here(key, folders).exists()}
    if gone or (place / DELETED).exists():
        write_json(place / DELETED, {"files": sorted(gone)})
    return gone


def _remember(place: Path, folders: dict[str, Path]) -> None:
    common = [
        key.as_posix()
        for folder in folders
        for path in ((place / folder).glob("*") if folder == "experiments" else _files(place / folder))
        if _here((key := path.relative_to(place)).as_posix(), folders).exists()
    ]
    write_json(COMMON, _read(COMMON) | {str(place.resolve()): common})


def _here(key: str, folders: dict[str, Path]) -> Path:
    folder = next(folder for folder in folders if key.startswith(f"{folder}/"))
    return folders[folder] / key.removeprefix(f"{folder}/")


def _read(path: Path) -> dict[str, list[str]]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _copy_newer_experiment(experiment: Experiment, root: Path) -> int:
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
    return _copy_experiment(experiment, root)


def _copy_experiment(experiment: Experiment, root: Path) -> int:
    """Copies all but checkpoints, the record last: a copy that broke off is taken up again."""
    files = [
        path for path in _files(experiment.path) if not path.is_relative_to(experiment.checkpoints_folder)
    ]
    for path in sorted(files, key=lambda path: path.name == RECORD):
        _copy(path, root / experiment.name / path.relative_to(experiment.path))
    return len(files)


def _copy_new(source: Path, target: Path, *, newer: bool = True, but: Collection[Path] = ()) -> int:
    """Copies files that aren't there, and with `newer` those that have changed since."""
    count = 0
    for path in _files(source):
        other = target / path.relative_to(source)
        changed = other.is_file() and path.stat().st_mtime > other.stat().st_mtime + 2  # FAT's seconds
        if path not in but and (not other.exists() or (newer and changed)):
            _copy(path, other)
            count += 1
    return count


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))


def _copy(path: Path, target: Path) -> None:
    with write_file(target, needed=path.stat().st_size) as beside:
        shutil.copy2(path, beside)
