"""The stage `sdlab prepare`: a folder of photos becomes a folder of instance images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab.files import acquire_lock, file_sha256, write_bytes, write_json
from sdlab.photos.captions import add_missing
from sdlab.photos.crop import FRAMINGS, Crop, crop_by_hand
from sdlab.photos.dataset import HIDDEN, Dataset, Record, read_record, write_record
from sdlab.photos.decode import UnusablePhoto
from sdlab.photos.doctor import ENOUGH, check_kinds, examine
from sdlab.photos.faces import choose_detector
from sdlab.photos.making import Made, Settings, crop_check, make, own_record
from sdlab.photos.sources import TRAINED, Found, Source, find_photos, is_picture
from sdlab.subject import Kind

if TYPE_CHECKING:
    from sdlab.profiles import Profile

MIN_RESOLUTION = 64
LOCK_FILE = ".dataset.lock"
MAX_WORKERS = 2  # each holds a decoded photo of up to 50 megapixels, and copies of it


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
        settings = Settings(side, framing, background, choose_detector(subject_kind))
        if progress:
            print(f"faces: {settings.detector.why}")
        with _locked(out):
            work = _Work(out, found, settings, read_record(out))
            records = [*_from_photos(work, progress), *_from_the_user(work)]
            if not records:
                raise ValueError(_nothing_usable(raw, found))
            dataset = _dataset(work, records, subject_kind, drop)
            _publish(work, dataset)
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
        message = f"the images can't be written to {out}: {error.strerror}. Choose another folder with --out."
        raise type(error)(message) from error
    try:
        yield
    finally:
        lock.lock.release()


@dataclass
class _Work:
    """What one run works with: `content` is the dataset.json that it found, which the user may have edited.

    Finished images lie in a hidden folder, by the key of all that decides them, the record written last. So a
    killed run leaves whole images and no half ones, and a photo that was dropped comes back at once.
    """

    out: Path
    found: Found
    settings: Settings
    content: Record

    def __post_init__(self) -> None:
        listed = [*self.content.get("images", []), *self.content.get("dropped", [])]
        self.known: dict[str, Record] = {record["file"]: record for record in listed}
        self.finished = {record["key"]: record for record in _finished_records(self.out / HIDDEN)}
        made = (record for record in (*listed, *self.finished.values()) if record.get("key"))
        self._ours = {(record["file"], record["sha256"]) for record in made}

    def is_ours(self, path: Path) -> bool:
        """Whether a file was made by `prepare` and not edited since."""
        return (path.name, file_sha256(path)) in self._ours

    def hidden(self, key: str, ending: str) -> Path:
        """Where a finished image, its record or the small whole photo lies."""
        return self.out / HIDDEN / f"{key}{ending}"

    def kept(self, source: Source, by_hand: Crop | None) -> Record | None:
        """The record of a photo that is finished; what a better detector did once stays good."""
        now = self.settings.detector.name
        detectors = ("yunet", "none") if now == "none" else (now,)
        keys = (self.settings.key(source.sha256, by_hand, name) for name in detectors)
        names = {"file": source.target, "source": source.name}
        return next((self.finished[key] | names for key in keys if key in self.finished), None)

    def keep(self, made: Made) -> Record:
        """Puts a finished image into the hidden folder."""
        key = made.record["key"]
        write_bytes(self.hidden(key, ".webp"), made.before)
        write_bytes(self.hidden(key, ".png"), made.image)
        write_json(self.hidden(key, ".json"), made.record)
        return made.record

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
            return [before | {"source": source}]
        try:
            return [own_record(path, sha256, source, self.settings)]
        except UnusablePhoto as reason:
            self.found.refuse(path.name, reason)
            return []


def _finished_records(hidden: Path) -> Iterator[Record]:
    for path in hidden.glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if file_sha256(path.with_suffix(".png")) == record["sha256"]:
                yield record
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the photo is done again


def _from_photos(work: _Work, progress: bool) -> Iterator[Record]:
    """Records of the photos, each image finished; one that the user edited stays theirs."""
    todo: list[tuple[Source, Crop | None]] = []
    for source in work.found.sources:
        path = work.out / source.target
        by_hand = _hand_box(work.known.get(source.target), source)
        if path.is_file() and not work.is_ours(path):
            yield from work.own(path, source.name)
        elif record := work.kept(source, by_hand):
            yield record
        else:
            todo.append((source, by_hand))
    yield from _in_threads(work, todo, progress)


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
    from tqdm.contrib.concurrent import thread_map

    def one(task: tuple[Source, Crop | None]) -> Record | UnusablePhoto:
        try:
            return work.keep(make(task[0], work.settings, task[1]))
        except UnusablePhoto as reason:
            return reason

    bar = {"desc": "photos", "unit": "photo", "disable": not (progress and todo)}
    for (source, _), outcome in zip(todo, thread_map(one, todo, max_workers=MAX_WORKERS, **bar), strict=True):
        if isinstance(outcome, UnusablePhoto):
            work.found.refuse(source.name, outcome)
        else:
            yield outcome


def _from_the_user(work: _Work) -> Iterator[Record]:
    """Pictures in the folder that no photo stands for: put there by hand, unless we made them once."""
    targets = {source.target for source in work.found.sources}
    for path in sorted(work.out.iterdir()):
        if is_picture(path) and path.name not in targets and not work.is_ours(path):
            yield from work.own(path, None)


def _dataset(work: _Work, records: list[Record], subject_kind: str, drop: Sequence[str]) -> Dataset:
    """The dataset without the photos to drop; what is the user's own is never dropped."""
    reasons: dict[str, str] = {}
    for finding in examine(records, subject_kind):
        if finding.kind in drop and finding.file:
            reasons.setdefault(finding.file, f"{finding.kind}: {finding.text}")
    beside = {source.target: source.caption or None for source in work.found.sources}
    kept, dropped = [], []
    for record in sorted(records, key=lambda record: str(record["file"])):
        file = record["file"]
        caption = work.known.get(file, {}).get("caption") or beside.get(file)
        record = {name: value for name, value in record.items() if name != "findings"} | {"caption": caption}
        if file in reasons and record["key"]:
            dropped.append(record | {"dropped": reasons[file]})
        else:
            kept.append(record)
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
        subject_kind=subject_kind,
    )


def _publish(work: _Work, dataset: Dataset) -> None:
    """Puts the images into place, deletes ours of photos that are gone or dropped, and forgets their work."""
    write_record(dataset)
    kept = {record["file"] for record in dataset.records}
    for name in {name for name, _ in work._ours} - kept:
        path = work.out / name
        if path.is_file() and work.is_ours(path):
            path.unlink()
    for record in dataset.records:
        path = work.out / record["file"]
        if record["key"] and not (path.is_file() and file_sha256(path) == record["sha256"]):
            write_bytes(path, work.hidden(record["key"], ".png").read_bytes())
    keys = {record["key"] for record in (*dataset.records, *dataset.dropped)}
    for path in (work.out / HIDDEN).glob("*.*"):
        if path.stem not in keys and path.is_file():
            path.unlink()


def _nothing_usable(raw: Path, found: Found) -> str:
    if not found.refused:
        others = f" It holds other things: {', '.join(found.ignored[:5])}." if found.ignored else ""
        return f"{raw} holds no photos.{others} Put photos of your subject there (jpg, png, heic …)."
    reasons = "".join(f"\n  {entry['source']}: {entry['reason']}" for entry in found.refused)
    return (
        f"none of the {len(found.refused)} photos in {raw} can be used:{reasons}\nPut readable photos there."
    )
