"""Benchmarks that only a GPU can answer run on the CPU, so that they run when there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_gpu_benchmark_writes_a_row_for_everything(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu.py"),
        "--smoke",
        "--output",
        str(tmp_path / "gpu"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert all(row["seconds"] > 0 and row["peak_gb"] > 0 for row in rows)
    assert {row["what"] for row in rows} == {
        "DreamBooth, text encoder, prior",
        "LoRA rank 4",
        "an image",
        "4 LoRAs in one pass",
    }
    assert sum(row["ratio"] is not None for row in rows) >= 6
    table = (tmp_path / "gpu.md").read_text()
    assert table.count("\n| ") == len(rows) + 2 and "no time was left" not in table


@pytest.mark.slow
def test_rows_without_time_are_named(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--smoke", "--minutes", "0"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "gpu")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1 and "no time was left" in done.stderr
    assert (tmp_path / "gpu.md").read_text().count("no time was left") >= 10
