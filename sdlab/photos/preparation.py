"""The stage `sdlab prepare`: a folder of photos becomes a folder of instance images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import AcquireReturnProxy
from PIL import ImageColor

from sdlab import mini
from sdlab.files import acquire_lock, file_sha256, write_bytes, write_json
from sdlab.photos.captions import add_missing
from sdlab.photos.crop import FRAMINGS, Crop, crop_by_hand
from sdlab.photos.dataset import HIDDEN, Dataset, read_record, write_record
from sdlab.photos.decode import UnusablePhoto, is_picture, load_image
from sdlab.photos.doctor import DROPPABLE, ENOUGH, Record, examine
from sdlab.photos.faces import SFACE, choose_detector, face_weights
from sdlab.photos.making import Settings, crop_check, make, own_record
from sdlab.photos.sources import TRAINED, Found, Source, find_photos
from sdlab.profiles import Profile
from sdlab.subject import Kind, Subject

MIN_RESOLUTION = 64
ENOUGH_ALONE = 50  # photos of one person that tell who is meant in a group
LOCK_FILE = ".dataset.lock"
MAX_WORKERS = 2  # each holds a decoded photo of up to 50 megapixels, and copies of it


def prepare(
    raw: str | Path = "data/raw_images",
    out: str | Path = "data/instance_images",
    resolution: Profile | int = 512,
    *,
    subject_kind: Kind | str | Subject | None = None,
    framing: str = "mixed",
    background: str = "white",
    drop: Sequence[str] = (),
    captions: str | None = None,
    progress: bool = True,
) -> Dataset:
    """Makes square training images of the photos in a folder, and says what will spoil the training.

    Each photo is decoded completely, turned upright by its EXIF orientation, brought to RGB, cropped around
    the largest face, resized by Lanczos and saved as PNG without metadata. A killed run goes on. Images put
    into `out` or edited by hand, and crops edited in dataset.json, stay; no file of another's is touched.

    Args:
        raw: Folder or zip with the photos as they came.
        out: Folder for the images and dataset.json.
        resolution: Side of the images in pixels, divisible by 8; or the base model's profile, which says it.
        subject_kind: "person", whose face is looked for, "animal", "thing", "style"; or a subject such as
            "sks dog", which trainings take then. None takes what `out` was made with, else "person".
        framing: "face", "head_and_shoulders", "upper_body", "whole", or "mixed": one of these for each photo.
        background: Colour behind transparent parts.
        drop: Kinds of findings, see `doctor.DROPPABLE`; photos that have them are left out.
        captions: Written into captions.txt for each image that has none; None writes no captions.
        progress: Say what is chosen and show a progress bar.

    Returns:
        The dataset, with its findings, the photos left out and the reasons.

    Raises:
        ValueError: No photo could be used, or an argument is not usable.
        OSError: There is no such raw folder, or a folder can't be read or written.

    Taught in: notebooks/01
    """
    raw, out = Path(raw).expanduser(), Path(out).expanduser()
    side = resolution if isinstance(resolution, int) else resolution.resolution
    kind, subject = _meant(out, subject_kind)
    _check(raw, out, side, kind, framing, background, drop)
    with find_photos(raw) as found:
        if not found.sources and not found.refused and not out.is_dir():
            raise ValueError(_nothing_usable(raw, found))
        drawn = mini.is_album(source.sha256 for source in found.sources)
        settings = Settings(side, framing, background, choose_detector(kind, drawn))
        if progress and settings.detector.why:
            print(f"faces: {settings.detector.why}")
        with _locked(out):
            work = _Work(out, found, settings, read_record(out), progress)
            records = work.records()
            if not records:
                raise ValueError(_nothing_usable(raw, found))
            dataset = replace(_dataset(work, records, kind, drop), subject=subject)
            _publish(work, dataset)
            if captions:
                add_missing(out, [path.name for path in dataset.images], captions)
    return dataset


def _meant(out: Path, said: str | Subject | None) -> tuple[str, str]:
    """The kind and the subject that was said, or those of the dataset that is there; "" without a subject."""
    before: Record = {}
    with suppress(OSError):  # what can't be read can't be written, which is said later
        before = read_record(out)
    said = said or before.get("subject") or before.get("subject_kind") or "person"
    if isinstance(said, str) and " " not in said:
        return said, ""
    subject = Subject.parse(said)
    return subject.kind, subject.phrase


def _check(
    raw: Path, out: Path, resolution: int, kind: str, framing: str, background: str, drop: Sequence[str]
) -> None:
    if resolution < MIN_RESOLUTION or resolution % 8:
        raise ValueError(
            f"resolution must be divisible by 8 and at least {MIN_RESOLUTION}, got {resolution}. "
            "Stable Diffusion 1.5 uses 512, mini 128."
        )
    for name, value, allowed in (("subject_kind", kind, ENOUGH), ("framing", framing, FRAMINGS)):
        if value not in allowed:
            subject = ", or a subject such as 'sks dog'" if name == "subject_kind" else ""
            raise ValueError(f"{name} must be one of {', '.join(allowed)}{subject}, got {value!r}.")
    if wrong := [one for one in drop if one not in DROPPABLE]:
        choice = f"Choose from: {', '.join(DROPPABLE)}."
        raise ValueError(f"photos can't be dropped for being {wrong[0]!r}. {choice}")
    try:
        ImageColor.getrgb(background)
    except ValueError as error:
        message = f"background must be a colour such as white or #808080, got {background!r}."
        raise ValueError(message) from error
    if raw.resolve() == out.resolve():
        raise ValueError(f"raw and out are the same folder, {raw}. Choose another folder for the images.")


def _locked(out: Path) -> AcquireReturnProxy:
    try:
        out.mkdir(parents=True, exist_ok=True)
        return acquire_lock(out / LOCK_FILE)
    except OSError as error:
        way_out = f"{error.strerror}. Choose another folder with --out."
        raise type(error)(f"the images can't be written to {out}: {way_out}") from error


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
    progress: bool

    def __post_init__(self) -> None:
        listed = [*self.content.get("images", []), *self.content.get("dropped", [])]
        self.known: dict[str, Record] = {record["file"]: record for record in listed}
        self.finished: dict[str, Record] = {}
        self.hidden = self.out / HIDDEN  # each finished image, its record and the small whole photo, by key
        for path in self.hidden.glob("*.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):  # the photo is done again
                record = json.loads(path.read_text(encoding="utf-8"))
                if file_sha256(path.with_suffix(".png")) == record["sha256"]:
                    self.finished[record["key"]] = record
        made = (record for record in (*listed, *self.finished.values()) if record.get("key"))
        self.ours = {(record["file"], record["sha256"]) for record in made}

    def records(self) -> list[Record]:
        """Records of the photos, each image finished, and of pictures that the user put there or edited."""
        names = {source.target: source.name for source in self.found.sources}
        theirs = [path for path in sorted(self.out.iterdir()) if is_picture(path) and not self.is_ours(path)]
        own = [record for path in theirs if (record := self.own(path, names.get(path.name)))]
        sources = [source for source in self.found.sources if self.out / source.target not in theirs]
        done = {source.target: record for source in sources if (record := self.kept(source))}
        done |= self.make_all([source for source in sources if source.target not in done])
        done |= self.make_all(self.groups(sources, done))
        return [*own, *done.values()]

    def is_ours(self, path: Path) -> bool:
        """Whether a file was made by `prepare` and not edited since."""
        return (path.name, file_sha256(path)) in self.ours

    def kept(self, source: Source) -> Record | None:
        """The record of a photo that is finished; what a better detector did once stays good."""
        now, by_hand = self.settings.detector.name, self.by_hand(source)
        detectors = (now,) if now == "not needed" else ("sface", "yunet", now)
        keys = (self.settings.key(source.sha256, by_hand, name) for name in detectors)
        names = {"file": source.target, "source": source.name}
        return next((self.finished[key] | names for key in keys if key in self.finished), None)

    def by_hand(self, source: Source) -> Crop | None:
        """The crop in dataset.json where the user edited it; a photo that was replaced is cropped anew."""
        before = self.known.get(source.target, {})
        crop, check = before.get("crop"), before.get("crop_check")
        if before.get("source_sha256") != source.sha256 or crop is None or check is None:
            return None
        by_hand = before["crop_by"] == "hand" or check != crop_check(crop)
        return crop_by_hand(crop, before["size"], before["file"]) if by_hand else None

    def make_all(self, sources: Sequence[Source]) -> dict[str, Record]:
        """Makes images; Pillow and OpenCV let other threads run while they decode and search."""
        from tqdm.contrib.concurrent import thread_map

        bar = {"desc": "photos", "unit": "photo", "disable": not (self.progress and sources)}
        records = thread_map(self.make, sources, max_workers=MAX_WORKERS, **bar)
        return {record["file"]: record for record in records if record}

    def make(self, source: Source) -> Record | None:
        """Makes an image and puts it into the hidden folder, its record last."""
        try:
            record, image, before = make(source, self.settings, self.by_hand(source))
        except UnusablePhoto as reason:
            self.found.refuse(source.name, reason)
            return None
        write_bytes(self.hidden / f"{record['key']}.webp", before)
        write_bytes(self.hidden / f"{record['key']}.png", image)
        write_json(self.hidden / f"{record['key']}.json", record)
        return record

    def groups(self, sources: Sequence[Source], done: dict[str, Record]) -> list[Source]:
        """The photos of several people to crop again, around the one whom most photos share."""
        groups = {file for file, one in done.items() if one["faces"] > 1 and one["crop_by"] == "yunet"}
        alone = [self.hidden / f"{one['key']}.png" for one in done.values() if one["faces"] == 1]
        detector = self.settings.detector
        if not groups or len(alone) < 2 or detector.name != "yunet" or (sface := face_weights(SFACE)) is None:
            return []
        shared = detector.looking_for([load_image(path) for path in alone[:ENOUGH_ALONE]], sface)
        self.settings = replace(self.settings, detector=shared)
        return [source for source in sources if source.target in groups]

    def own(self, path: Path, source: str | None) -> Record | None:
        """The record of an image that the user put there or edited, or a refusal."""
        sha256, before = file_sha256(path), self.known.get(path.name, {})
        same = before.get("key") is None and before.get("sha256") == sha256 and "measured" in before
        if same and self.content["resolution"] == self.settings.resolution:
            return before | {"source": source}
        if path.suffix.lower() not in TRAINED:
            reason = "training reads .png, .jpg and .webp only; put it among the raw photos"
        else:
            try:
                return own_record(path, sha256, source, self.settings)
            except UnusablePhoto as error:
                reason = f"the image made by hand can't be used: {error}"
        self.found.refuse(path.name, reason)
        return None


def _dataset(work: _Work, records: list[Record], subject_kind: str, drop: Sequence[str]) -> Dataset:
    """The dataset without the photos to drop; what is the user's own is never dropped."""
    findings = [finding for finding in examine(records, subject_kind) if finding.kind in drop]
    reasons = {finding.file: f"{finding.kind}: {finding.text}" for finding in reversed(findings)}  # the first
    beside = {source.target: source.caption or None for source in work.found.sources}
    kept, dropped = [], []
    for record in sorted(records, key=lambda record: str(record["file"])):
        file = record["file"]
        known = work.known.get(file, {})
        by_hand = known.get("caption") if known.get("caption") != known.get("caption_beside") else None
        record = record | {"caption": by_hand or beside.get(file), "caption_beside": beside.get(file)}
        if file in reasons and record["key"]:
            dropped.append(record | {"dropped": reasons[file]})
        else:
            kept.append(record)
    if not kept:
        raise ValueError(
            f"all {len(dropped)} photos have findings to drop: {', '.join(drop)}. "
            "Drop fewer kinds, or take other photos."
        )
    refused = tuple(sorted(work.found.refused, key=lambda one: one["source"]))  # threads end in any order
    found = (refused, tuple(work.found.ignored), tuple(dropped))
    there = {record["file"] for record in (*kept, *dropped)}
    before = {name for name, _ in work.ours} | {one["file"] for one in work.content.get("removed", ())}
    removed = tuple({"file": name} for name in sorted(before - there))
    return Dataset(work.out, tuple(kept), *found, work.settings.resolution, subject_kind, removed=removed)


def _publish(work: _Work, dataset: Dataset) -> None:
    """Puts the images into place, deletes ours of photos that are gone or dropped, and forgets their work."""
    write_record(dataset)
    kept = {record["file"] for record in dataset.records}
    for path in {work.out / name for name, _ in work.ours if name not in kept}:
        if path.is_file() and work.is_ours(path):
            path.unlink()
    for record in dataset.records:
        path = work.out / record["file"]
        if record["key"] and not (path.is_file() and file_sha256(path) == record["sha256"]):
            write_bytes(path, (work.hidden / f"{record['key']}.png").read_bytes())
    keys = {record["key"] for record in (*dataset.records, *dataset.dropped)}
    for path in work.hidden.glob("*.*"):
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
