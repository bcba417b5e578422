"""The stage `sdlab prepare`: a folder of photos becomes a folder of instance images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from sdlab.files import file_sha256, write_bytes
from sdlab.photos.cache import Cache
from sdlab.photos.captions import add_missing
from sdlab.photos.crop import FRAMINGS, Crop, crop_by_hand
from sdlab.photos.dataset import Dataset, Record, read_record, write_record
from sdlab.photos.decode import SUFFIXES, UnusablePhoto, turn
from sdlab.photos.doctor import check_kinds, examine
from sdlab.photos.faces import choose_detector
from sdlab.photos.making import Settings, crop_check, make, own_record
from sdlab.photos.sources import Found, Source, find_photos
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
    framing: str = "mixed",
    background: str = "white",
    drop: Sequence[str] = (),
    captions: str | None = None,
    progress: bool = True,
) -> Dataset:
    """Make square training images of the photos in a folder, and say what will spoil the training.

    Each photo is decoded completely, turned upright by its EXIF orientation, brought to RGB, cropped around
    the largest face, resized by Lanczos and saved as PNG without metadata. What is done is kept: a second or
    a killed run goes on from there. Images in `out` that were put there or edited by hand, and crops edited
    in dataset.json, are kept; no file that this function didn't make is ever changed or deleted.

    Args:
        raw: folder or zip with the photos as they came.
        out: folder for the images and dataset.json.
        resolution: side of the images in pixels, divisible by 8; or the base model's profile, which says it.
        framing: "face", "head_and_shoulders", "upper_body", "whole", or "mixed": one of these for each photo.
        background: colour behind transparent parts.
        drop: kinds of findings, see `doctor.DROPPABLE`; photos that have them are left out.
        captions: written into captions.txt for each image that has none; None writes no captions.
        progress: say what is chosen and show a progress bar.

    Returns:
        The dataset, with its findings, the photos left out and the reasons.

    Raises:
        ValueError: no photo could be used, or an argument or the folders are not usable.
        FileNotFoundError: there is no such raw folder.

    Taught in: notebooks/01
    """
    from filelock import FileLock

    raw, out = Path(raw), Path(out)
    side = resolution if isinstance(resolution, int) else resolution.resolution
    _check(raw, out, side, framing, background)
    check_kinds(drop)
    with find_photos(raw) as found:
        if not found.sources and not found.refused and not out.is_dir():
            raise ValueError(_nothing_usable(raw, found))
        settings = Settings(side, framing, background, choose_detector())
        if progress:
            print(f"faces: found by {settings.detector.name}, because {settings.detector.why}")
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK_FILE):
            work = _Work(found, settings, Cache(out), read_record(out))
            records = _from_photos(work, progress)
            records += _from_the_user(work, taken={record["file"] for record in records})
            if not records:
                raise ValueError(_nothing_usable(raw, found))
            dataset = _publish(work, _dataset(work, records, drop))
            if captions:
                add_missing(out, [record["file"] for record in dataset.records], captions)
    return dataset


def _check(raw: Path, out: Path, resolution: int, framing: str, background: str) -> None:
    from PIL import ImageColor

    if resolution < MIN_RESOLUTION or resolution % 8:
        raise ValueError(
            f"resolution must be divisible by 8 and at least {MIN_RESOLUTION}, got {resolution}. "
            "Stable Diffusion 1.5 uses 512, mini 128."
        )
    if framing not in FRAMINGS:
        raise ValueError(f"framing must be one of {', '.join(FRAMINGS)}, got {framing!r}.")
    try:
        ImageColor.getrgb(background)
    except ValueError as error:
        raise ValueError(
            f"background must be a colour such as white or #808080, got {background!r}."
        ) from error
    if raw.resolve() == out.resolve():
        raise ValueError(f"raw and out are the same folder, {raw}. Choose another folder for the images.")


@dataclass
class _Work:
    """What one run works with; `content` is the dataset.json that it found."""

    found: Found
    settings: Settings
    cache: Cache
    content: Record

    def __post_init__(self) -> None:
        records = [*self.content.get("images", []), *self.content.get("dropped", [])]
        self.known: dict[str, Record] = {record["file"]: record for record in records}

    @property
    def out(self) -> Path:
        return self.cache.out

    def is_ours(self, path: Path) -> bool:
        """Whether a file was made by `prepare` and not edited since."""
        record = self.known.get(path.name)
        return bool(
            record and record.get("key") and file_sha256(path) in (record["sha256"], record.get("replaces"))
        )

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


def _from_photos(work: _Work, progress: bool) -> list[Record]:
    """Records of the photos, each image finished and in the cache; one that the user edited stays theirs."""
    records: list[Record] = []
    todo: list[tuple[Source, Crop | None]] = []
    for source in work.found.sources:
        path = work.out / source.target
        by_hand = _hand_box(work.known.get(source.target), source)
        if path.is_file() and not work.is_ours(path):
            records += work.own(path, source.name)
        elif record := work.cache.record(source.target, work.settings.key(source.sha256), by_hand):
            records.append({**record, "source": source.name})
        else:
            todo.append((source, by_hand))
    work.cache.keep_only({source.target for source in work.found.sources})
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
    """Makes images; Pillow and scikit-image let other threads run while they decode and search."""
    import os

    from tqdm.auto import tqdm

    def one(task: tuple[Source, Crop | None]) -> Record | UnusablePhoto:
        try:
            with turn(task[0].path):
                made = make(task[0], work.settings, task[1])
        except UnusablePhoto as reason:
            return reason
        work.cache.put(made)
        return made.record

    workers = min(MAX_WORKERS, os.cpu_count() or 1)
    executor = ThreadPoolExecutor(workers)
    try:
        outcomes = executor.map(one, todo)
        bar = tqdm(outcomes, total=len(todo), desc="photos", unit="photo", disable=not (progress and todo))
        for (source, _), outcome in zip(todo, bar, strict=True):
            if isinstance(outcome, UnusablePhoto):
                work.found.refuse(source.name, outcome)
            else:
                yield outcome
    finally:
        executor.shutdown(cancel_futures=True)  # an interrupt shall not wait for the photos that are left


def _from_the_user(work: _Work, taken: set[str]) -> list[Record]:
    """Pictures in the folder that no photo stands for: put there by hand, unless we made them once."""
    refused = {source.target for source in work.found.sources} - taken
    return [
        record
        for path in sorted(work.out.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        if path.name not in taken | refused and not work.is_ours(path)
        for record in work.own(path, None)
    ]


def _dataset(work: _Work, records: list[Record], drop: Sequence[str]) -> Dataset:
    """The dataset without the photos that shall be dropped; what is the user's own is never dropped."""
    reasons: dict[str, str] = {}
    for finding in examine(records):
        if finding.kind in drop and finding.file:
            reasons.setdefault(finding.file, f"{finding.kind}: {finding.text}")
    ready = [
        {**record, "caption": work.known.get(record["file"], {}).get("caption"), "replaces": None}
        for record in sorted(records, key=lambda record: str(record["file"]))
    ]
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
        passed_over=tuple(work.found.passed_over),
        dropped=tuple(dropped),
        resolution=work.settings.resolution,
    )


def _publish(work: _Work, dataset: Dataset) -> Dataset:
    """Puts the images into place, dataset.json first, so that a killed run still knows its own files."""
    ours = {
        name: file_sha256(path)
        for name in work.known
        if (path := work.out / name).is_file() and work.is_ours(path)
    }
    records = []
    for record in dataset.records:
        before = ours.pop(record["file"], None)
        records.append(record | {"replaces": before if before != record["sha256"] else None})
    for name in ours:
        (work.out / name).unlink()
    dataset = replace(dataset, records=tuple(records))
    write_record(dataset)
    for record in dataset.records:
        path = work.out / record["file"]
        if record["key"] and not (path.is_file() and file_sha256(path) == record["sha256"]):
            write_bytes(path, work.cache.image(record["file"]))
    return dataset


def _nothing_usable(raw: Path, found: Found) -> str:
    if not found.refused:
        others = f" It holds other things: {', '.join(found.passed_over[:5])}." if found.passed_over else ""
        return f"{raw} holds no photos.{others} Put 15 or more photos of one person there (jpg, png, heic …)."
    reasons = "".join(f"\n  {entry['source']}: {entry['reason']}" for entry in found.refused)
    return (
        f"none of the {len(found.refused)} photos in {raw} can be used:{reasons}\nPut readable photos there."
    )
