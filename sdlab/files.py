"""Writing so that a kill or a full disk at any instant leaves the old file whole, or the new one."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and torch wrap the operating system's error in their own and leave only its text.
_DISK_WORDS = ("no space left", "file too large", "quota exceeded", "writer failed", "unexpected pos")


class DiskFull(OSError):
    """The disk has no room for what is to be written; the message names path, needed and free."""


def read_text(path: str | Path) -> str:
    """Reads a file that people edit: UTF-8, or UTF-16 as Windows marks it, with any line ends.

    Raises:
        ValueError: It is in another encoding, or no text.
    """
    data = Path(path).read_bytes()
    marked = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(f"{path} isn't text in UTF-8. Save it as UTF-8 in your editor, and run this again.")
    return text.replace("\r\n", "\n")


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Writes a file beside its place, syncs it, and renames it over the old one.

    Args:
        path: Where the file shall be; folders are made.
        data: The whole content.

    Returns:
        The path.

    Raises:
        DiskFull: The disk is full; the old file is as it was.
    """
    with write_file(path, needed=len(data)) as beside:
        beside.write_bytes(data)
    return Path(path)


def append_line(path: str | Path, line: str) -> None:
    """Appends a line to a file; one that a kill or a full disk tore has no newline at its end.

    Args:
        path: The file, made where there is none.
        line: Without its newline.

    Raises:
        DiskFull: The disk is full; the lines before are whole.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        _explain(error, Path(path), needed=len(line))
        raise


@contextmanager
def write_file(path: str | Path, *, needed: int = 0) -> Iterator[Path]:
    """Gives a path beside `path`; when the block has written it, it is synced and takes `path`'s place.

    Args:
        path: Where the file shall be; folders are made.
        needed: Bytes that the block will write, checked before it starts.

    Yields:
        The path to write to.

    Raises:
        DiskFull: The disk is full; the old file is as it was.
    """
    path = Path(path)
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(path.parent, needed)
        yield beside
        _sync(beside)
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        _explain(error, path, needed=needed)
        raise
    _sync(path.parent)


def must_be_free(*paths: Path) -> None:
    """Makes sure that nothing of the user's is overwritten.

    Args:
        paths: Where files or folders shall be made; an empty folder is free.

    Raises:
        FileExistsError: Something is there.
    """
    for path in paths:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise FileExistsError(
                f"{path} is there already, and nothing is overwritten. Take another name, or delete it."
            )


def write_json(path: str | Path, value: Any) -> Path:
    """Writes a value as indented JSON with `write_bytes`.

    Args:
        path: Where the file shall be.
        value: Anything that JSON can hold.

    Returns:
        The path.

    Raises:
        DiskFull: The disk is full; the old file is as it was.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return write_bytes(path, text.encode())


@contextmanager
def write_folder(path: str | Path, *, needed: int = 0) -> Iterator[Path]:
    """Gives an empty folder beside `path`; when the block ends well, it is synced and takes `path`'s place.

    Args:
        path: Where the folder shall be; what is there is replaced.
        needed: Bytes that the block will write, checked before it starts.

    Yields:
        The folder to write into.

    Raises:
        DiskFull: The disk is full; what was at `path` is as it was.
    """
    path = Path(path)
    beside = _beside(path)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        _check_room(beside, needed)
        yield beside
        for file in sorted(beside.rglob("*")):
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files for the owner alone
            _sync(file)
        _sync(beside)
        if path.exists():
            shutil.rmtree(path)
        os.replace(beside, path)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        _explain(error, path, needed=needed)
        raise
    _sync(path.parent)


def fingerprint(paths: Iterable[str | Path], *, relative_to: str | Path | None = None) -> str:
    """Hashes the names and contents of some files.

    Args:
        paths: The files, in any order.
        relative_to: Folder from which names count; without it only each file's own name counts.

    Returns:
        16 hexadecimal digits, the same wherever the files lie.
    """
    total = hashlib.sha256()
    for path in sorted(map(Path, paths)):
        name = path.relative_to(relative_to).as_posix() if relative_to else path.name
        total.update(f"{name}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """Hashes one file's content; asked again in this process for an unchanged file, it answers from memory.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    real = Path(path).resolve()
    if (
        len(real.name) == 64 and real.parent.name == "blobs"
    ):  # the hub's cache names large files by their sha256
        return real.name
    stat = real.stat()
    return _sha256(str(real), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=10_000)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    """One fixed name, so that what a killed writer left is found and replaced by the next."""
    return path.with_name(f".{path.name}.partial")


def _check_room(folder: Path, needed: int) -> None:
    if needed > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, "too little free")


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows can't open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network drives can't sync a folder
            raise
    finally:
        os.close(descriptor)


def _explain(error: BaseException, path: Path, *, needed: int) -> None:
    """Raises DiskFull where the error says that the disk is full; returns otherwise."""
    words = str(error).lower()
    if getattr(error, "errno", None) not in _DISK_ERRNOS and not any(word in words for word in _DISK_WORDS):
        return
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    wants = f"needs {needed / 1e6:,.1f} MB" if needed else "can't be written"
    message = f"The disk is full: {path} {wants}, {free / 1e6:,.1f} MB are free. Make room and run again."
    raise DiskFull(errno.ENOSPC, message) from error
