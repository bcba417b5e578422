from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import Timeout

from sdlab.files import DiskFull, acquire_lock, fingerprint, write_bytes, write_folder

_FULL = """
import resource, signal, sys
from sdlab.files import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_bytes(sys.argv[1], b"new" * 1000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_full_disk_leaves_the_old_file_and_says_what_is_free(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old")
    run = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / "file")], capture_output=True, text=True
    )
    assert "needs 0.0 MB" in run.stderr and "are free. Make room" in run.stderr and "DiskFull" in run.stderr
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_fails_halfway_leaves_the_old_one(tmp_path: Path) -> None:
    with write_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("old")
    with pytest.raises(DiskFull, match="model can't be written"), write_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    full = pytest.raises(DiskFull, match=r"needs 4,000\.0 MB, 1\.0 MB are free")
    with full, write_folder(tmp_path / "model", needed=4 * 10**9):
        pytest.fail("the block must not start")


def test_a_fingerprint_tells_content_and_name_but_not_place(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_bytes(tmp_path / place / "x.png", b"1")
    same = fingerprint([tmp_path / "a/x.png"])
    assert fingerprint([tmp_path / "b/x.png"]) == same
    write_bytes(tmp_path / "b/x.png", b"2")
    write_bytes(tmp_path / "a/y.png", b"1")
    assert len({same, fingerprint([tmp_path / "b/x.png"]), fingerprint([tmp_path / "a/y.png"])}) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_full_disk_keeps_the_log_and_says_so(tmp_path: Path) -> None:
    program = _FULL.replace("write_bytes(", "append_line(").replace('b"new" * 1000', '"new" * 1000')
    program = program.replace("import write_bytes", "import append_line")
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log.jsonl")], capture_output=True, text=True
    )
    assert "DiskFull" in run.stderr and "log.jsonl" in run.stderr
    assert (tmp_path / "log.jsonl").read_text().startswith('{"step": 1}\n')


_WRITE = """
import sys
from sdlab.files import write_bytes
for number in range(300):
    write_bytes(sys.argv[1], sys.argv[2].encode() * 10_000)
"""


def test_two_processes_that_write_one_file_never_tear_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITE, str(file), letter], stderr=subprocess.PIPE, text=True)
        for letter in "ab"
    ]
    said = [writer.communicate()[1] for writer in writers]
    assert said == ["", ""]
    assert file.read_bytes() in (b"a" * 10_000, b"b" * 10_000)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_deleted_by_the_next(tmp_path: Path) -> None:
    program = "import os, sys; from sdlab.files import write_file\nwith write_file(sys.argv[1]) as beside:\n"
    program += "    beside.write_bytes(b'half'); os._exit(9)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")])
    assert len(list(tmp_path.iterdir())) == 1
    write_bytes(tmp_path / "file", b"whole")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("n" * 300, "the name is too long"), ("file/below", "a part of the path is a file and not a folder")],
)
def test_what_cannot_be_written_says_why_and_what_to_do(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"can't be written: {message}.*\. Give a"):
        write_bytes(tmp_path / name, b"")


def test_a_file_system_without_locks_is_locked_by_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with acquire_lock(tmp_path / ".lock"), pytest.raises(Timeout):
        acquire_lock(tmp_path / ".lock", timeout=0)
    with acquire_lock(tmp_path / ".lock", timeout=0):
        pass
