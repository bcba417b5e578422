"""Finished work is copied to a folder that outlives the machine, and comes back from there."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from sdlab.experiment import Experiment, find
from sdlab.files import write_file

DRIVE = Path("/content/drive")  # where Colab mounts Google Drive
RECORD = "experiment.json"
DATA = ("data/raw_images", "data/instance_images", "data/class_images", "data/control_images")


def keep(
    place: str | Path | None, *, root: str | Path = "experiments", results: str | Path = "results"
) -> None:
    """Bring back what a folder holds and this machine doesn't, then copy there what is new here.

    Colab deletes a machine's disk when it takes the machine back. A folder on Google Drive stays: call this
    at the beginning of a session and after each training. An experiment is copied when it is finished,
    without its checkpoints, its record last, so a copy that broke off is taken up again.

    Args:
        place: the folder, such as /content/drive/MyDrive/sdlab (Drive is mounted then); None does nothing.
        root: folder of the experiments.
        results: folder of the images.

    Raises:
        DiskFull: a disk has no room; every file on it is whole.

    Taught in: notebooks/00
    """
    if not place:
        return
    place, root, results = Path(place), Path(root), Path(results)
    _mount(place)
    back = sum(_copy_experiment(one, root) for one in find(place / "experiments"))
    back += sum(_copy_new(place / folder, Path(folder), newer=False) for folder in DATA)
    back += _copy_new(place / "results", results, newer=False)
    there = sum(_copy_experiment(one, place / "experiments") for one in find(root))
    there += sum(_copy_new(Path(folder), place / folder) for folder in DATA)
    there += _copy_new(results, place / "results")
    print(f"{place}: {back} files brought back, {there} copied there")


def _mount(place: Path) -> None:
    if place.is_relative_to(DRIVE) and not DRIVE.is_mount():
        try:
            drive = importlib.import_module("google.colab.drive")  # only there
        except ImportError as error:
            raise ValueError(
                f"{place} is on Google Drive, which only Colab has. Name another folder."
            ) from error
        drive.mount(str(DRIVE))


def _copy_experiment(experiment: Experiment, root: Path) -> int:
    """Copies a finished experiment; one of that name that is there, begun or finished, stays as it is."""
    target = root / experiment.name
    if experiment.status != "finished" or (target / RECORD).is_file():
        return 0
    checkpoints = experiment.checkpoints_folder
    files = [path for path in _files(experiment.path) if not path.is_relative_to(checkpoints)]
    files.sort(key=lambda path: path.name == RECORD)  # last: the copy is whole
    for path in files:
        _copy(path, target / path.relative_to(experiment.path))
    return len(files)


def _copy_new(source: Path, target: Path, *, newer: bool = True) -> int:
    """Copies files that aren't there, and with `newer` those that have changed since."""
    count = 0
    for path in _files(source):
        other = target / path.relative_to(source)
        changed = other.is_file() and path.stat().st_mtime > other.stat().st_mtime + 2  # FAT's seconds
        if not other.exists() or (newer and changed):
            _copy(path, other)
            count += 1
    return count


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))


def _copy(path: Path, target: Path) -> None:
    with write_file(target, needed=path.stat().st_size) as beside:
        shutil.copy2(path, beside)
