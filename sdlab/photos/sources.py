"""What lies in the raw folder or zip: the photos, exact copies, and what is passed over."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sdlab.files import file_sha256
from sdlab.photos.archive import UnusableMember, is_archive, members, plain_parts, unpack
from sdlab.photos.decode import SUFFIXES

# What file managers, notebooks and unpackers leave behind; passed over without a word.
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class Source:
    """One photo.

    Args:
        path: the file.
        name: what the user knows it by, without a folder.
        sha256: of its content.
        target: file name of its instance image.
    """

    path: Path
    name: str
    sha256: str
    target: str


@dataclass
class Found:
    """What is in a raw folder.

    Args:
        sources: the photos, each content once.
        refused: source and reason of what can't be used.
        passed_over: names of what is no photo.
    """

    sources: list[Source] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    def refuse(self, name: str, reason: object) -> None:
        """Note a photo that can't be used."""
        self.refused.append({"source": name, "reason": str(reason)})


@contextmanager
def find_photos(raw: Path) -> Iterator[Found]:
    """Find the photos in a folder or zip; zips in the folder are looked into as well.

    Args:
        raw: the folder or zip.

    Yields:
        The photos; those from a zip exist as files until the block ends.

    Raises:
        FileNotFoundError: there is no such folder or zip.
        ValueError: the zip can't be read.
    """
    if not raw.exists() or not (raw.is_dir() or is_archive(raw)):
        raise FileNotFoundError(
            f"{raw} is not a folder or a zip. Make the folder and put 15 or more photos of one person there."
        )
    found = Found()
    with ExitStack() as unpacked:
        photos: list[tuple[str, Path]] = []
        for path in [raw] if raw.is_file() else sorted(raw.iterdir(), key=lambda path: path.name):
            if _is_litter(path.name) and path != raw:
                continue
            if path.is_dir():
                found.passed_over.append(f"{path.name}/")
            elif path.exists() and not path.is_file():  # a pipe or a device, which would never end
                found.passed_over.append(path.name)
            elif is_archive(path):
                folder = unpacked.enter_context(tempfile.TemporaryDirectory(prefix="sdlab-"))
                photos += _from_archive(path, Path(folder), found, alone=raw.is_file())
            elif path.suffix.lower() in SUFFIXES or _starts_like_a_picture(path):
                photos.append((path.name, path))
            else:
                found.passed_over.append(path.name)
        found.sources = _each_content_once(photos, found)
        yield found


def _from_archive(path: Path, into: Path, found: Found, *, alone: bool) -> list[tuple[str, Path]]:
    """The photos of a zip; a zip among other photos that can't be read is refused like one of them."""
    try:
        listed = members(path)
    except ValueError as reason:
        if alone:
            raise
        found.refuse(path.name, reason)
        return []
    listed = [info for info in listed if not any(map(_is_litter, plain_parts(info.filename)))]
    photos = [info for info in listed if Path(info.filename).suffix.lower() in SUFFIXES]
    found.passed_over += [plain_parts(info.filename)[-1] for info in listed if info not in photos]
    times = Counter(plain_parts(info.filename)[-1] for info in photos)
    ready = []
    for name, unpacked in unpack(path, photos, into):
        parts = plain_parts(name)
        shown = parts[-1] if times[parts[-1]] == 1 else "_".join(part for part in parts if part not in "/..")
        if isinstance(unpacked, UnusableMember):
            found.refuse(shown, unpacked)
        else:
            ready.append((shown, unpacked))
    return sorted(ready)


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
        sources.append(Source(path, name, sha256, target))
    return sources


def _plain_name(stem: str) -> str:
    """A name that every file system and every Markdown link takes."""
    return re.sub(r"[^\w.-]+", "_", stem).lstrip(".")[:60] or "photo"
