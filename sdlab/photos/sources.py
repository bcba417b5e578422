"""What lies in the raw folder or zip: the photos, exact copies, and what is ignored."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sdlab.files import file_sha256
from sdlab.photos.captions import caption_beside, is_caption
from sdlab.photos.decode import SUFFIXES, file_head, is_picture

TRAINED = frozenset({".png", ".jpg", ".jpeg", ".webp"})  # what training reads of an instance folder
# Cameras' raw files begin as a TIFF does, whose first picture is a small preview.
RAW = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"})
# What file managers, notebooks and unpackers leave behind; ignored without a word.
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
MAX_NAME = 120  # bytes of UTF-8: with endings and a piece of the hash still below a file system's 255

MAX_MEMBER_BYTES, MAX_TOTAL_BYTES = 300_000_000, 4_000_000_000
MAX_RATIO = 200  # photos hardly shrink in a zip; deflate's own limit is 1032
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, ValueError)
# How pictures begin that came without a suffix, as phones and chats send them; "." is any byte.
_PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|II\*\0|MM\0\*|.{8}WEBP|.{4}ftyp(heic|mif1|avif)", re.DOTALL
)


@dataclass(frozen=True)
class Source:
    """One photo."""

    path: Path
    name: str  # what the user knows it by, without a folder
    sha256: str
    target: str  # file name of its instance image
    caption: str = ""  # from a text file beside it, as kohya's scripts read it


@dataclass
class Found:
    """What is in a raw folder: photos, each content once, what can't be used and why, what is ignored."""

    sources: list[Source] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def refuse(self, name: str, reason: object) -> None:
        """Notes a photo that can't be used."""
        self.refused.append({"source": name, "reason": str(reason)})


@contextmanager
def find_photos(raw: Path) -> Iterator[Found]:
    """Finds the photos in a folder, zips in it, or one zip; what is unpacked lasts as long as the block."""
    if not raw.is_dir() and not _is_archive(raw):
        raise FileNotFoundError(
            f"{raw} is not a folder or a zip. Make the folder and put photos of your subject there."
        )
    found = Found()
    photos: list[tuple[str, Path]] = []
    with tempfile.TemporaryDirectory(prefix="sdlab-") as unpacked:
        if raw.is_file():
            photos = list(_from_archive(raw, Path(unpacked), found))
        for path in sorted(raw.iterdir()) if raw.is_dir() else ():
            if _is_litter(path.name):
                continue
            if path.is_dir():
                number = _photos_in(path)
                hint = f" ({number}: move them up, or give this folder as --raw)" if number else ""
                found.ignored.append(f"{path.name}/{hint}")
            elif path.exists() and not path.is_file():  # a pipe or a device, which would never end
                found.ignored.append(path.name)
            elif _is_archive(path):
                try:
                    photos += _from_archive(path, Path(tempfile.mkdtemp(dir=unpacked)), found)
                except ValueError as reason:
                    found.refuse(path.name, reason)
            elif path.suffix.lower() in RAW:
                found.refuse(path.name, "it is a camera's raw file; export it as JPEG")
            elif path.suffix.lower() in SUFFIXES or _starts_like_a_picture(path):
                photos.append((path.name, path))
            elif not is_caption(path):
                found.ignored.append(path.name)
        found.sources = _each_content_once(photos, found)
        yield found


def instance_images(folder: str | Path, notify: Callable[[str], None]) -> list[Path]:
    """The images that training reads of a folder, by name; pictures there that it ignores are said."""
    paths = sorted(Path(folder).expanduser().glob("[!.]*"))
    images = [path for path in paths if path.suffix.lower() in TRAINED and path.is_file()]
    if others := [path.name for path in paths if is_picture(path) and path not in images]:
        notify(
            f"ignored in {folder}: {', '.join(others)}. Training reads png, jpg and webp; save them as such."
        )
    for path in paths:
        if path.is_dir() and (number := _photos_in(path)):
            notify(f"ignored in {folder}: {number} in {path.name}/. Move them up, or give that folder.")
    return images


def _is_archive(path: Path) -> bool:
    """Whether a file is a zip by its name, or where that says nothing by its content; a .docx is no album."""
    ending = path.suffix.lower()
    return path.is_file() and (ending == ".zip" or (not ending and zipfile.is_zipfile(path)))


def _is_litter(name: str) -> bool:
    return (name.startswith(".") and name not in ("..", ".")) or name.lower() in LITTER


def _photos_in(folder: Path) -> str:
    """How many photos lie in a folder and those in it, in words; empty where there are none."""
    try:
        photos = (path.relative_to(folder) for path in folder.rglob("*") if is_picture(path))
        number = sum(not any(map(_is_litter, photo.parts)) for photo in photos)
    except OSError:
        number = 0
    return f"{number} photo{'s' * (number > 1)}" if number else ""


def _starts_like_a_picture(path: Path) -> bool:
    try:
        return _PICTURE.match(file_head(path, 12)) is not None
    except OSError:
        return False


def _from_archive(path: Path, into: Path, found: Found) -> Iterator[tuple[str, Path]]:
    """Unpacks the photos of a zip under names of our own, so that none leads elsewhere."""
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise ValueError(
            f"{path.name} can't be read as a zip ({error}). Download it again, or unpack it into a folder."
        ) from error
    with archive:
        inside = {info: _parts(info) for info in archive.infolist() if not info.is_dir() and _parts(info)}
        total = sum(info.file_size for info in inside)
        if total > MAX_TOTAL_BYTES:
            limit = f"the limit is {MAX_TOTAL_BYTES / 1e9:.0f} GB. Put the photos into a folder."
            raise ValueError(f"{path.name} holds {total / 1e9:.1f} GB unpacked, {limit}")
        wanted = {info: parts for info, parts in inside.items() if not any(map(_is_litter, parts))}
        photos = [info for info, parts in wanted.items() if Path(parts[-1]).suffix.lower() in SUFFIXES]
        found.ignored += [parts[-1] for info, parts in wanted.items() if info not in photos]
        times = Counter(wanted[info][-1] for info in photos)
        for number, info in enumerate(photos):
            *folders, name = wanted[info]
            if times[name] > 1:
                name = "_".join([*(part for part in folders if part not in "/.."), name])
            target = into / f"{number:05d}{Path(name).suffix.lower()}"
            if fault := _member_fault(info) or _unpacked(archive, info, target):
                found.refuse(name, fault)
            else:
                yield name, target


def _parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    """Folders and file name of a file in a zip, whichever slashes it has."""
    return PurePosixPath(info.filename.replace("\\", "/")).parts


def _member_fault(info: zipfile.ZipInfo) -> str:
    """Why a file in a zip isn't unpacked, or nothing."""
    size, kind = info.file_size, stat.S_IFMT(info.external_attr >> 16)
    ratio = size / max(1, info.compress_size)
    large = f"it would unpack to {size / 1e6:,.0f} MB, the limit is {MAX_MEMBER_BYTES / 1e6:.0f} MB"
    dense = f"it unpacks to {ratio:.0f} times its size in the zip, the limit is {MAX_RATIO}: no photo does"
    faults = (
        (re.match(r"[/\\]|[A-Za-z]:", info.filename), "its name in the zip is an absolute path"),
        (".." in _parts(info), "its name in the zip leads out of the folder (../)"),
        (kind not in (0, stat.S_IFREG), "it is a link in the zip, not a file"),
        (info.flag_bits & 1, "it is locked by a password; unpack the zip yourself"),
        (size > MAX_MEMBER_BYTES, large),
        (size > 1_000_000 and ratio > MAX_RATIO, dense),
    )
    return next((said for holds, said in faults if holds), "")


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> str:
    """Unpacks one file; returns why it can't be, or nothing."""
    try:
        with archive.open(info) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)  # reads no more than the size that was checked
    except _DAMAGE as error:
        return f"it is damaged in the zip ({error}); export it again"
    return ""


def _each_content_once(photos: list[tuple[str, Path]], found: Found) -> list[Source]:
    """Photos with the names of their images; exact copies of another photo are refused."""
    first: dict[str, tuple[str, Path]] = {}
    for name, path in sorted(photos, key=lambda photo: (len(photo[0]), photo[0])):  # a.jpg before "a (1).jpg"
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            found.refuse(name, f"it can't be opened: {error.strerror or error}")
            continue
        if first.setdefault(sha256, (name, path))[1] != path:
            found.refuse(name, f"it is the same file as {first[sha256][0]}")
    stems = {sha256: _plain_name(Path(name).stem) for sha256, (name, _) in first.items()}
    times = Counter(stem.casefold() for stem in stems.values())
    sources = []
    for sha256, (name, path) in first.items():
        # a.jpg beside a.png: both get a piece of the hash
        piece = f"_{sha256[:8]}" if times[stems[sha256].casefold()] > 1 else ""
        sources.append(Source(path, name, sha256, f"{stems[sha256]}{piece}.png", caption_beside(path)))
    return sources


def _plain_name(stem: str) -> str:
    """A name that every file system and every Markdown link takes."""
    plain = re.sub(r"[^\w.-]+", "_", stem).lstrip(".")[:60]
    return plain.encode()[:MAX_NAME].decode(errors="ignore") or "photo"
