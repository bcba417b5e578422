"""Files: written whole or not at all, whatever kills the writer; read, locked, and told apart by content."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from glob import escape
from pathlib import Path
from shlex import quote
from typing import Any

import psutil
from filelock import AcquireReturnProxy, FileLock, SoftFileLock, Timeout

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors and torch wrap the operating system's error in their own and leave only its text.
_DISK_WORDS = ("no space left", "file too large", "quota exceeded", "writer failed", "unexpected pos")
_REASONS = {
    errno.EACCES: "you may not write there. Give another folder, or change the permissions",
    errno.EPERM: "you may not write there. Give another folder, or change the permissions",
    errno.EROFS: "that disk is read-only. Give another folder",
    errno.ENAMETOOLONG: "the name is too long for this file system. Give a shorter one",
    errno.ENOTDIR: "a part of the path is a file and not a folder. Give another folder",
    errno.EEXIST: "a part of the path is a file and not a folder. Give another folder",
}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class DiskFull(OSError):
    """The disk has no room for what is to be written; the message names path, needed and free."""


def read_text(path: str | Path) -> str:
    """Reads a file that people edit: UTF-8, or UTF-16 as Windows marks it, with any line ends."""
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
    """Writes a file whole or not at all; see `write_file`."""
    with write_file(path, needed=len(data)) as beside:
        beside.write_bytes(data)
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Writes a value as indented JSON; see `write_file`."""
    return write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def append_line(path: str | Path, line: str) -> None:
    """Appends a line to a file; one that a kill or a full disk tore has no newline at its end."""
    with _explained(Path(path), needed=len(line)), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


@contextmanager
def write_file(path: str | Path, *, needed: int = 0) -> Iterator[Path]:
    """Gives a path beside `path`; what the block has written there is synced and takes `path`'s place.

    `needed` are the bytes that the block will write, checked before it starts. Folders are made.

    Raises:
        DiskFull: The disk is full; the old file is as it was.
        OSError: It can't be written there; the message says why.
    """
    path = Path(path)
    # a name of this process's own, by which the next one knows what a killed one left
    start = f".{path.name}.{socket.gethostname()}-"
    beside = path.with_name(f"{start}{os.getpid()}.partial")
    with _explained(path, needed=needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{escape(start)}*.partial"):
            number = left.name.removeprefix(start).removesuffix(".partial")
            if left == beside or not (number.isdigit() and psutil.pid_exists(int(number))):
                _delete(left)
        if needed > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, "too little free")
        try:
            yield beside
            _put(beside, path)
        finally:
            _delete(beside)


@contextmanager
def write_folder(path: str | Path, *, needed: int = 0) -> Iterator[Path]:
    """Gives an empty folder beside `path`, which takes its place as a file does in `write_file`."""
    with write_file(path, needed=needed) as beside:
        beside.mkdir()
        yield beside


def _put(beside: Path, path: Path) -> None:
    """Syncs a file or folder, and puts it into the place of what is there."""
    for file in sorted(beside.rglob("*")):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files for the owner alone
        _sync(file)
    _sync(beside)
    old = beside.with_suffix(".old.partial")
    if beside.is_dir() and path.is_dir():  # a file never replaces a folder
        os.replace(path, old)
    os.replace(beside, path)
    _delete(old)
    _sync(path.parent)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def must_be_free(*paths: Path) -> None:
    """Raises FileExistsError where something of the user's would be overwritten; an empty folder is free."""
    for path in paths:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise FileExistsError(
                f"{path} is there already, and nothing is overwritten. Take another name, or delete it."
            )


def acquire_lock(path: str | Path, timeout: float = -1) -> AcquireReturnProxy:
    """Takes a lock that other processes respect, also where the file system has none; `with` gives it back.

    Raises filelock.Timeout where another process has it after so many seconds; -1 waits for ever.
    """
    with _explained(Path(path)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(path).acquire(timeout=timeout)
        except NotImplementedError:  # how older versions of filelock say it
            pass
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
                raise
        return SoftFileLock(f"{path}.soft").acquire(timeout=timeout)


_USUAL = {"root": "experiments", "results": "results", "subject": "sks woman"}


def placed(command: str, **given: str | Path) -> str:
    """A command that a user is told, with `root`, `results` and `subject` where they aren't the usual."""
    flags = (f" --{key} {quote(str(value))}" for key, value in given.items() if str(value) != _USUAL[key])
    return command + "".join(flags)


def fingerprint(paths: Iterable[str | Path], *, relative_to: str | Path | None = None) -> str:
    """Hashes the contents of some files, in any order, and their names in a folder, to 16 hex digits."""
    total = hashlib.sha256()
    for path in sorted(map(Path, paths)):
        name = path.relative_to(relative_to).as_posix() if relative_to else path.name
        total.update(f"{name}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()[:16]


def file_sha256(path: str | Path) -> str:
    """Hashes one file's content; of a file that is unchanged, the answer is remembered."""
    real = Path(path).resolve()
    if len(real.name) == 64 and real.parent.name == "blobs":  # so the hub's cache names large files
        return real.name
    stat = real.stat()
    return _sha256(str(real), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=10_000)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


@contextmanager
def _explained(path: Path, *, needed: int = 0) -> Iterator[None]:
    """Turns the operating system's errors while something is written into path, rule and way out."""
    try:
        yield
    except Exception as error:
        said, code = str(error).lower(), getattr(error, "errno", None)
        if code in _DISK_ERRNOS or any(words in said for words in _DISK_WORDS):
            existing = next(folder for folder in path.absolute().parents if folder.exists())
            wants = f"needs {needed / 1e6:,.1f} MB" if needed else "can't be written"
            free = shutil.disk_usage(existing).free / 1e6
            message = f"The disk is full: {path} {wants}, {free:,.1f} MB are free. Make room and run again."
            raise DiskFull(message) from error
        ours = str(path.parent) in str(getattr(error, "filename", None) or path)
        if isinstance(error, OSError) and code in _REASONS and ours:
            raise type(error)(f"{path} can't be written: {_REASONS[code]}.") from error
        raise
