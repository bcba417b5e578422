from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdlab.files import DiskFull, fingerprint, write_bytes, write_folder

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
