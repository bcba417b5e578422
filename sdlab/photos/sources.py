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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sdlab.files import file_sha256
from sdlab.photos.captions import caption_beside, is_caption
from sdlab.photos.decode import SUFFIXES

TRAINED = frozenset({".png", ".jpg", ".jpeg", ".webp"})  # what training reads of an instance folder

# What file managers, notebooks and unpackers leave behind; ignored without a word.
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
MAX_NAME = 120  # bytes of UTF-8: with endings and a piece of the hash still below a file system's 255

MAX_MEMBERS = 5_000
MAX_MEMBER_BYTES = 300_000_000
MAX_TOTAL_BYTES = 4_000_000_000
MAX_RATIO = 200  # photos hardly shrink in a zip; deflate's own limit is 1032
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(NotImplementedError, RuntimeError, EOFError, ValueError),
)


@dataclass(frozen=True)
class Source:
    """One photo.

    Args:
        path: The file.
        name: What the user knows it by, without a folder.
        target: File name of its instance image.
        caption: From a text file beside it, as kohya's scripts read it; empty where there is none.
    """

    path: Path
    name: str
    sha256: str
    target: str
    caption: str = ""


@dataclass
class Found:
    """What is in a raw folder.

    Args:
        sources: The photos, each content once.
        refused: Source and reason of what can't be used.
        ignored: Names of what is no photo, and folders with the number of photos in them.
    """

    sources: list[Source] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def refuse(self, name: str, reason: object) -> None:
        """Notes a photo that can't be used."""
        self.refused.append({"source": name, "reason": str(reason)})


@contextmanager
def find_photos(raw: Path) -> Iterator[Found]:
    """Finds the photos in a folder or zip; zips in the folder are looked into as well.

    Yields:
        The photos; those from a zip exist as files until the block ends.

    Raises:
        FileNotFoundError: There is no such folder or zip.
        ValueError: The zip can't be read.
    """
    if not raw.exists() or not (raw.is_dir() or is_archive(raw)):
        raise FileNotFoundError(
            f"{raw} is not a folder or a zip. Make the folder and put photos of your subject there."
        )
    found = Found()
    with ExitStack() as unpacked:
        photos: list[tuple[str, Path]] = []
        for path in [raw] if raw.is_file() else sorted(raw.iterdir(), key=lambda path: path.name):
            if _is_litter(path.name) and path != raw:
                continue
            if path.is_dir():
                found.ignored.append(_folder_said(path))
            elif path.exists() and not path.is_file():  # a pipe or a device, which would never end
                found.ignored.append(path.name)
            elif is_archive(path):
                folder = unpacked.enter_context(tempfile.TemporaryDirectory(prefix="sdlab-"))
                photos += _from_archive(path, Path(folder), found, alone=raw.is_file())
            elif path.suffix.lower() in SUFFIXES or _starts_like_a_picture(path):
                photos.append((path.name, path))
            elif not is_caption(path):
                found.ignored.append(path.name)
        found.sources = _each_content_once(photos, found)
        yield found


def is_archive(path: Path) -> bool:
    """Whether a file is a zip by its name, or where that says nothing by its content; a .docx is no album."""
    ending = path.suffix.lower()
    return path.is_file() and (ending == ".zip" or (not ending and zipfile.is_zipfile(path)))


def instance_images(folder: str | Path) -> tuple[list[Path], list[str]]:
    """The images that training reads of a folder, and names of pictures there that it ignores."""
    paths = sorted(Path(folder).expanduser().glob("[!.]*"))
    images = [path for path in paths if path.suffix.lower() in TRAINED and path.is_file()]
    ignored = [path.name for path in paths if is_picture(path) and path not in images]
    folders = (_folder_said(path) for path in paths if path.is_dir())
    return images, [*ignored, *(said for said in folders if "(" in said)]


def is_picture(path: Path) -> bool:
    """Whether a name is that of a picture that `decode` reads, and no hidden file's."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _folder_said(folder: Path) -> str:
    """A folder's name; where photos lie in it, how many, since they may have been meant to be read."""
    try:
        number = sum(is_picture(path) for path in folder.rglob("*"))
    except OSError:
        number = 0
    many = f"{number} photo{'s' * (number > 1)} in a folder of their own: move them up, or give it as --raw"
    return f"{folder.name}/" + (f" ({many})" if number else "")


def _from_archive(path: Path, into: Path, found: Found, *, alone: bool) -> list[tuple[str, Path]]:
    """The photos of a zip; a zip among other photos that can't be read is refused like one of them."""
    try:
        listed = _members(path)
    except ValueError as reason:
        if alone:
            raise
        found.refuse(path.name, reason)
        return []
    listed = [info for info in listed if not any(map(_is_litter, _parts(info.filename)))]
    photos = [info for info in listed if Path(info.filename).suffix.lower() in SUFFIXES]
    found.ignored += [_parts(info.filename)[-1] for info in listed if info not in photos]
    times = Counter(_parts(info.filename)[-1] for info in photos)
    ready = []
    with zipfile.ZipFile(path) as archive:
        for number, info in enumerate(photos):
            parts = _parts(info.filename)
            name = parts[-1] if times[parts[-1]] == 1 else "_".join(p for p in parts if p not in "/..")
            # a name of our own, so that no name in the zip can lead elsewhere
            target = into / f"{number:05d}{Path(info.filename).suffix.lower()[:8]}"
            if fault := _member_fault(info) or _unpacked(archive, info, target):
                found.refuse(name, fault)
            else:
                ready.append((name, target))
    return sorted(ready)


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """The files of a zip, without folders.

    Raises:
        ValueError: It is no zip, is damaged, or holds absurdly many files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = [info for info in archive.infolist() if not info.is_dir()]
    except _DAMAGE as error:
        raise ValueError(
            f"{path.name} can't be read as a zip ({error}). Download it again, or unpack it into a folder."
        ) from error
    total = sum(info.file_size for info in listed)
    if len(listed) > MAX_MEMBERS or total > MAX_TOTAL_BYTES:
        raise ValueError(
            f"{path.name} holds {len(listed)} files, {total / 1e9:.1f} GB unpacked; the limits are "
            f"{MAX_MEMBERS} files and {MAX_TOTAL_BYTES / 1e9:.0f} GB. Put the photos into a folder."
        )
    return listed


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> str:
    """Unpacks one file; returns why it can't be, or nothing."""
    try:
        with archive.open(info) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)  # reads no more than the size that was checked
    except _DAMAGE as error:
        return f"it is damaged in the zip ({error}); export it again"
    return ""


def _member_fault(info: zipfile.ZipInfo) -> str:
    """Why a file in a zip isn't unpacked, or nothing."""
    name, size = info.filename, info.file_size
    ratio = size / max(1, info.compress_size)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "its name in the zip is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "its name in the zip leads out of the folder (../)"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "it is a link in the zip, not a file"
    if info.flag_bits & 1:
        return "it is locked by a password; unpack the zip yourself"
    if size > MAX_MEMBER_BYTES:
        return f"it would unpack to {size / 1e6:,.0f} MB, the limit is {MAX_MEMBER_BYTES / 1e6:.0f} MB"
    if size > 1_000_000 and ratio > MAX_RATIO:
        return f"it unpacks to {ratio:.0f} times its size in the zip, the limit is {MAX_RATIO}: no photo does"
    return ""


def _parts(name: str) -> tuple[str, ...]:
    """Folders and file name of a name in a zip, whichever slashes it has."""
    return PurePosixPath(name.replace("\\", "/")).parts


def _is_litter(name: str) -> bool:
    return (name.startswith(".") and name not in ("..", ".")) or name.lower() in LITTER


def _starts_like_a_picture(path: Path) -> bool:
    """Whether a file without a picture's suffix is one all the same, as phones and chats send them."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    magic = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
    return head.startswith(magic) or head[8:12] == b"WEBP" or head[4:12] in (b"ftypheic", b"ftypmif1")


def _each_content_once(photos: list[tuple[str, Path]], found: Found) -> list[Source]:
    """Photos with the names of their images; exact copies of another photo are refused."""
    first: dict[str, tuple[str, Path]] = {}
    for name, path in sorted(photos, key=lambda photo: (len(photo[0]), photo[0])):  # a.jpg before "a (1).jpg"
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            found.refuse(name, f"it can't be opened: {error.strerror or error}")
            continue
        if sha256 in first:
            found.refuse(name, f"it is the same file as {first[sha256][0]}")
        else:
            first[sha256] = (name, path)
    stems = {sha256: _plain_name(Path(name).stem) for sha256, (name, _) in first.items()}
    times = Counter(stem.casefold() for stem in stems.values())
    sources = []
    for sha256, (name, path) in first.items():
        stem = stems[sha256]
        # a.jpg beside a.png: both names get a piece of the hash, whichever came first
        target = f"{stem}.png" if times[stem.casefold()] == 1 else f"{stem}_{sha256[:8]}.png"
        sources.append(Source(path, name, sha256, target, caption_beside(path)))
    return sources


def _plain_name(stem: str) -> str:
    """A name that every file system and every Markdown link takes."""
    plain = re.sub(r"[^\w.-]+", "_", stem).lstrip(".")[:60]
    return plain.encode()[:MAX_NAME].decode(errors="ignore") or "photo"
