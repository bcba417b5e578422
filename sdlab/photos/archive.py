"""A zip of photos, as Google Drive and phones export them, unpacked with suspicion."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MAX_MEMBERS = 5_000
MAX_MEMBER_BYTES = 300_000_000
MAX_TOTAL_BYTES = 4_000_000_000
MAX_RATIO = 200  # photos hardly shrink in a zip; deflate's own limit is 1032
_DAMAGE = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)


class UnusableMember(ValueError):
    """A file in a zip that isn't unpacked; the message is the reason, without the file's name."""


def is_archive(path: Path) -> bool:
    """Whether a file is a zip by its name, or where that says nothing by its content; a .docx is no album."""
    ending = path.suffix.lower()
    return path.is_file() and (ending == ".zip" or (not ending and zipfile.is_zipfile(path)))


def members(path: Path) -> list[zipfile.ZipInfo]:
    """List the files of a zip, without folders.

    Args:
        path: the zip.

    Returns:
        What the zip says about each.

    Raises:
        ValueError: it is no zip, is damaged, or holds absurdly many files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = [info for info in archive.infolist() if not info.is_dir()]
    except _DAMAGE as error:
        raise ValueError(
            f"{path.name} can't be read as a zip ({error}). Download it again, or unpack it into a folder."
        ) from error
    if len(listed) > MAX_MEMBERS or sum(info.file_size for info in listed) > MAX_TOTAL_BYTES:
        gigabytes = sum(info.file_size for info in listed) / 1e9
        raise ValueError(
            f"{path.name} holds {len(listed)} files, {gigabytes:.1f} GB unpacked; the limits are "
            f"{MAX_MEMBERS} files and {MAX_TOTAL_BYTES / 1e9:.0f} GB. Put the photos into a folder."
        )
    return listed


def unpack(
    path: Path, wanted: list[zipfile.ZipInfo], into: Path
) -> Iterator[tuple[str, Path | UnusableMember]]:
    """Unpack some files of a zip, each under a name of our own, so that no name in it can lead elsewhere.

    Args:
        path: the zip.
        wanted: which of its `members`.
        into: an empty folder.

    Yields:
        The name in the zip, and the unpacked file or why it was refused.
    """
    with zipfile.ZipFile(path) as archive:
        for number, info in enumerate(wanted):
            target = into / f"{number:05d}{Path(info.filename).suffix.lower()[:8]}"
            try:
                _check(info)
                with archive.open(info) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file)  # reads no more than the size that was checked
            except UnusableMember as reason:
                yield info.filename, reason
            except _DAMAGE as error:
                yield info.filename, UnusableMember(f"it is damaged in the zip ({error}); export it again")
            else:
                yield info.filename, target


def _check(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        raise UnusableMember("its name in the zip is an absolute path")
    if ".." in re.split(r"[/\\]", name):
        raise UnusableMember("its name in the zip leads out of the folder (../)")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise UnusableMember("it is a link in the zip, not a file")
    if info.flag_bits & 1:
        raise UnusableMember("it is locked by a password; unpack the zip yourself")
    if info.file_size > MAX_MEMBER_BYTES:
        raise UnusableMember(
            f"it would unpack to {info.file_size / 1e6:,.0f} MB, the limit is {MAX_MEMBER_BYTES / 1e6:.0f} MB"
        )
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > 1_000_000 and ratio > MAX_RATIO:
        raise UnusableMember(
            f"it unpacks to {ratio:.0f} times its size in the zip, the limit is {MAX_RATIO}: no photo does"
        )


def plain_parts(name: str) -> tuple[str, ...]:
    """Folders and file name of a name in a zip, whichever slashes it has."""
    return PurePosixPath(name.replace("\\", "/")).parts
