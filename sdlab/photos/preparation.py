"""The stage `sdlab prepare`: a folder of photos becomes a folder of instance images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab.files import acquire_lock, file_sha256, write_bytes, write_json
from sdlab.photos.captions import add_missing
from sdlab.photos.crop import FRAMINGS, Crop, crop_by_hand
from sdlab.photos.dataset import HIDDEN, Dataset, Record, read_record, write_record
from sdlab.photos.decode import UnusablePhoto, one_large_photo
from sdlab.photos.doctor import ENOUGH, check_kinds, examine
from sdlab.photos.faces import choose_detector
from sdlab.photos.making import Made, Settings, crop_check, make, own_record
from sdlab.photos.sources import Found, Source, find_photos, is_picture
from sdlab.subject import Kind

if TYPE_CHECKING:
    from sdlab.profiles import Profile

MIN_RESOLUTION = 64
LOCK_FILE = ".dataset.lock"
TRAINED = frozenset({".png", ".jpg", ".jpeg", ".webp"})
MAX_WORKERS = 4  # each holds one decoded photo


def prepare(
    raw: str | Path = "data/raw_images",
    out: str | Path = "data/instance_images",
    resolution: Profile | int = 512,
    *,
    subject_kind: Kind = "person",
    framing: str = "mixed",
    background: str = "white",
    drop: Sequence[str] = (),
    captions: str | None = None,
    progress: bool = True,
) -> Dataset:
    """Makes square training images of the photos in a folder, and says what will spoil the training.

    Each photo is decoded completely, turned upright by its EXIF orientation, brought to RGB, cropped around
    the largest face, resized by Lanczos and saved as PNG without metadata. What is done is kept: a second or
    a killed run goes on from there. Images in `out` that were put there or edited by hand, and crops edited
    in dataset.json, are kept; no file that this function didn't make is ever changed or deleted.

    Args:
        raw: Folder or zip with the photos as they came.
        out: Folder for the images and dataset.json.
        resolution: Side of the images in pixels, divisible by 8; or the base model's profile, which says it.
        subject_kind: "person", whose face is looked for; "animal", "thing" or "style", which is cropped where
            the photo draws the eye.
        framing: "face", "head_and_shoulders", "upper_body", "whole", or "mixed": one of these for each photo.
        background: Colour behind transparent parts.
        drop: Kinds of findings, see `doctor.DROPPABLE`; photos that have them are left out.
        captions: Written into captions.txt for each image that has none; None writes no captions.
        progress: Say what is chosen and show a progress bar.

    Returns:
        The dataset, with its findings, the photos left out and the reasons.

    Raises:
        ValueError: No photo could be used, or an argument or the folders are not usable.
        FileNotFoundError: There is no such raw folder.
        OSError: A folder can't be read or written.

    Taught in: notebooks/01
    """
    raw, out = Path(raw).expanduser(), Path(out).expanduser()
    side = resolution if isinstance(resolution, int) else resolution.resolution
    _check(raw, out, side, subject_kind, framing, background)
    check_kinds(drop)
    with find_photos(raw) as found:
        if not found.sources and not found.refused and not out.is_dir():
            raise ValueError(_nothing_usable(raw, found))
        settings = Settings(side, framing, background, choose_detector(subject_kind), subject_kind)
        if progress:
            print(f"faces: {settings.detector.why}")
        with _locked(out):
            work = _Work(out, found, settings, read_record(out))
            records = _from_photos(work, progress)
            records += _from_the_user(work, taken={record["file"] for record in records})
            if not records:
                raise ValueError(_nothing_usable(raw, found))
            dataset = _dataset(work, records, drop)
            _tidy(work, dataset)
            write_record(dataset)
            if captions:
                add_missing(out, [record["file"] for record in dataset.records], captions)
    return dataset


def _check(raw: Path, out: Path, resolution: int, kind: str, framing: str, background: str) -> None:
    from PIL import ImageColor

    if resolution < MIN_RESOLUTION or resolution % 8:
        raise ValueError(
            f"resolution must be divisible by 8 and at least {MIN_RESOLUTION}, got {resolution}. "
            "Stable Diffusion 1.5 uses 512, mini 128."
        )
    for name, value, allowed in (("subject_kind", kind, ENOUGH), ("framing", framing, FRAMINGS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    try:
        ImageColor.getrgb(background)
    except ValueError as error:
        raise ValueError(
            f"background must be a colour such as white or #808080, got {background!r}."
        ) from error
    if raw.resolve() == out.resolve():
        raise ValueError(f"raw and out are the same folder, {raw}. Choose another folder for the images.")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = acquire_lock(out / LOCK_FILE)
    except OSError as error:
        raise type(error)(
            f"the images can't be written to {out}: {error.strerror}. Choose another folder with --out."
        ) from error
    try:
        yield
    finally:
        lock.lock.release()


@dataclass
class _Work:
    """What one run works with.

    Args:
        content: The dataset.json that it found, which the user may have edited.
    """

    out: Path
    found: Found
    settings: Settings
    content: Record

    def __post_init__(self) -> None:
        listed = [*self.content.get("images", []), *self.content.get("dropped", [])]
        self.known: dict[str, Record] = {record["file"]: record for record in listed}
        self.made: dict[str, Record] = dict(_records_as_made(self.out / HIDDEN))

    def hidden(self, target: str, ending: str = "") -> Path:
        return self.out / HIDDEN / f"{target}{ending}"

    def is_ours(self, path: Path) -> bool:
        """Whether a file was made by `prepare` and not edited since."""
        ours = [one[path.name] for one in (self.known, self.made) if path.name in one]
        hashes = {record.get(name) for record in ours if record.get("key") for name in ("sha256", "replaces")}
        return bool(hashes) and file_sha256(path) in hashes

    def finished(self, source: Source, by_hand: Crop | None) -> Record | None:
        """The record of an image that is there as it would be made now."""
        record = self.made.get(source.target)
        if record is None or record.get("key") != self.settings.key(source.sha256):
            return None
        if record["detector"] == "none" != self.settings.detector.name:  # the face can be found by now
            return None
        crop = record["crop"] if record["crop_by"] == "hand" else None
        if crop != (list(by_hand.box) if by_hand else None):
            return None
        path, stored = self.out / source.target, self.hidden(source.target)
        if not path.is_file() and stored.is_file():
            os.replace(stored, path)  # it had been dropped
        whole = path.is_file() and file_sha256(path) == record["sha256"]
        return {**record, "source": source.name} if whole else None

    def keep(self, made: Made) -> None:
        """Puts an image into place, its record before it, so that a killed run still knows its own files."""
        target = made.record["file"]
        path = self.out / target
        replaces = file_sha256(path) if path.is_file() else None
        write_bytes(self.hidden(target, ".webp"), made.before)
        write_json(self.hidden(target, ".json"), made.record | {"replaces": replaces})
        write_bytes(path, made.image)

    def own(self, path: Path, source: str | None) -> list[Record]:
        """The record of an image that the user put there or edited, or a refusal."""
        if path.suffix.lower() not in TRAINED:
            self.found.refuse(
                path.name, "training reads .png, .jpg and .webp only; put it among the raw photos"
            )
            return []
        sha256 = file_sha256(path)
        before = self.known.get(path.name, {})
        same = before.get("key") is None and before.get("sha256") == sha256 and "measured" in before
        if same and self.content["resolution"] == self.settings.resolution:
            return [{**before, "source": source}]
        try:
            return [own_record(path, sha256, source, self.settings)]
        except UnusablePhoto as reason:
            self.found.refuse(path.name, reason)
            return []


def _records_as_made(hidden: Path) -> Iterator[tuple[str, Record]]:
    for path in hidden.glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            yield record["file"], record
        except (OSError, ValueError, KeyError, TypeError):
            continue  # torn by something else: the photo is done again


def _from_photos(work: _Work, progress: bool) -> list[Record]:
    """Records of the photos, each image finished and in place; one that the user edited stays theirs."""
    records: list[Record] = []
    todo: list[tuple[Source, Crop | None]] = []
    for source in work.found.sources:
        path = work.out / source.target
        by_hand = _hand_box(work.known.get(source.target), source)
        if path.is_file() and not work.is_ours(path):
            records += work.own(path, source.name)
        elif record := work.finished(source, by_hand):
            records.append(record)
        else:
            todo.append((source, by_hand))
    return [*records, *_in_threads(work, todo, progress)]


def _hand_box(before: Record | None, source: Source) -> Crop | None:
    """The crop in dataset.json where the user edited it; a photo that was replaced is cropped anew."""
    if before is None or before.get("source_sha256") != source.sha256 or "crop_check" not in before:
        return None
    edited = before["crop_check"] != crop_check(before["crop"])
    if before["crop"] is None or not (edited or before["crop_by"] == "hand"):
        return None
    return crop_by_hand(before["crop"], before["size"], before["file"])


def _in_threads(work: _Work, todo: list[tuple[Source, Crop | None]], progress: bool) -> Iterator[Record]:
    """Makes images; Pillow and OpenCV let other threads run while they decode and search."""
    from tqdm.auto import tqdm

    def one(task: tuple[Source, Crop | None]) -> Record | UnusablePhoto:
        try:
            with one_large_photo(task[0].path):
                made = make(task[0], work.settings, task[1])
        except UnusablePhoto as reason:
            return reason
        work.keep(made)
        return made.record

    executor = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1))
    try:
        outcomes = executor.map(one, todo)
        bar = tqdm(outcomes, total=len(todo), desc="photos", unit="photo", disable=not (progress and todo))
        for (source, _), outcome in zip(todo, bar, strict=True):
            if isinstance(outcome, UnusablePhoto):
                work.found.refuse(source.name, outcome)
            else:
                yield outcome
    finally:
        executor.shutdown(cancel_futures=True)  # an interrupt doesn't wait for the photos that are left


def _from_the_user(work: _Work, taken: set[str]) -> list[Record]:
    """Pictures in the folder that no photo stands for: put there by hand, unless we made them once."""
    refused = {source.target for source in work.found.sources} - taken
    return [
        record
        for path in sorted(work.out.iterdir())
        if is_picture(path) and path.name not in taken | refused and not work.is_ours(path)
        for record in work.own(path, None)
    ]


def _dataset(work: _Work, records: list[Record], drop: Sequence[str]) -> Dataset:
    """The dataset without the photos to drop; what is the user's own is never dropped."""
    reasons: dict[str, str] = {}
    for finding in examine(records, work.settings.subject_kind):
        if finding.kind in drop and finding.file:
            reasons.setdefault(finding.file, f"{finding.kind}: {finding.text}")
    captions = {source.target: source.caption for source in work.found.sources}
    ready = []
    for record in sorted(records, key=lambda record: str(record["file"])):
        caption = work.known.get(record["file"], {}).get("caption") or captions.get(record["file"]) or None
        plain = {name: value for name, value in record.items() if name not in ("findings", "replaces")}
        ready.append(plain | {"caption": caption})
    dropped = [r | {"dropped": reasons[r["file"]]} for r in ready if r["file"] in reasons and r["key"]]
    kept = [record for record in ready if record["file"] not in {one["file"] for one in dropped}]
    if not kept:
        raise ValueError(
            f"all {len(dropped)} photos have findings to drop: {', '.join(drop)}. "
            "Drop fewer kinds, or take other photos."
        )
    return Dataset(
        folder=work.out,
        records=tuple(kept),
        refused=tuple(work.found.refused),
        ignored=tuple(work.found.ignored),
        dropped=tuple(dropped),
        resolution=work.settings.resolution,
        subject_kind=work.settings.subject_kind,
    )


def _tidy(work: _Work, dataset: Dataset) -> None:
    """Hides the images that are dropped, and deletes ours of photos that are gone."""
    kept = {record["file"] for record in dataset.records}
    dropped = {record["file"] for record in dataset.dropped}
    for name in (work.known.keys() | work.made.keys() | dropped) - kept:
        path = work.out / name
        if path.is_file() and name in dropped:
            os.replace(path, work.hidden(name))
        elif path.is_file() and work.is_ours(path):
            path.unlink()
    wanted = {name + ending for name in kept for ending in (".webp", ".json")}
    wanted |= {name + ending for name in dropped for ending in ("", ".webp", ".json")}
    for path in work.hidden("").glob("*"):
        if path.name not in wanted and path.is_file():
            path.unlink()


def _nothing_usable(raw: Path, found: Found) -> str:
    if not found.refused:
        others = f" It holds other things: {', '.join(found.ignored[:5])}." if found.ignored else ""
        return f"{raw} holds no photos.{others} Put photos of your subject there (jpg, png, heic …)."
    reasons = "".join(f"\n  {entry['source']}: {entry['reason']}" for entry in found.refused)
    return (
        f"none of the {len(found.refused)} photos in {raw} can be used:{reasons}\nPut readable photos there."
    )
