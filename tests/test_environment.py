"""check_env.py and what sdlab says about the machine it runs on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from sdlab import machine as environment

ROOT = Path(__file__).parent.parent


def check_env(*python: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(python or (sys.executable,)), str(ROOT / "check_env.py")],
        capture_output=True,
        text=True,
        env=os.environ | variables,
    )


def test_check_env_opens_with_the_five_lines_of_the_homework() -> None:
    done = check_env()
    assert done.returncode == 0, done.stderr
    # shared with the course: "These five lines, in this order, with the machine's own values"
    assert done.stdout.splitlines()[:5] == [
        f"PyTorch version: {torch.__version__}",
        f"CUDA available: {torch.cuda.is_available()}",
        f"CUDA version: {torch.version.cuda}",
        f"cuDNN version: {torch.backends.cudnn.version()}",
        "Accelerator initialized successfully!",
    ]


def test_check_env_says_what_was_chosen_and_what_can_run() -> None:
    done = check_env(ACCELERATE_USE_CPU="1")
    assert "using cpu because ACCELERATE_USE_CPU is set" in done.stdout
    assert "using float32 because" in done.stdout
    assert "mini: the whole course" in done.stdout


def test_check_env_says_whether_half_precision_and_8_bit_adam_work() -> None:
    machine = environment.this_machine()
    found = environment.capabilities(machine)
    assert list(found) == ["float16", "bfloat16", "8-bit Adam"]
    if machine.device == "cpu":
        assert not found["float16"][0] and "mixed_precision" in found["float16"][1]
    assert found["8-bit Adam"][0] == ("bitsandbytes" in sys.modules)


def test_what_is_wrong_comes_with_the_fix() -> None:
    machine = replace(environment.this_machine(), memory_free=10**9, disk_free=10**8)
    found = environment.findings(machine)
    assert any("1.0 GB of memory are free, mini needs 3: close programs." in one for one in found)
    assert any("0.1 GB of disk are free" in one for one in found)


def test_check_env_without_torch_says_what_to_do() -> None:
    # -S -E -s leaves the standard library alone: as on a computer where nothing has been installed yet
    done = check_env(getattr(sys, "_base_executable", sys.executable), "-S", "-E", "-s")
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr
    assert "make setup" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_device_is_the_one_that_accelerate_trains_on() -> None:
    assert environment.device().type == PartialState().device.type


def test_cpu_computes_in_float32() -> None:
    assert environment.choose_dtype("cpu")[0] == "float32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_without_native_bfloat16_computes_in_float16() -> None:
    # Native bfloat16 came with compute capability 8.0 (Ampere); a T4 has 7.5.
    native = torch.cuda.get_device_capability() >= (8, 0)
    assert environment.choose_dtype("cuda")[0] == ("bfloat16" if native else "float16")


@pytest.mark.parametrize(
    ("gpu_gb", "works"),
    [
        (0, ["mini: the whole course"]),
        # A T4 reports 15.8 GB (15,836 million bytes).
        (
            15.8,
            [
                "mini: the whole course",
                "sd15-8gb: images, ControlNet",
                "sd15-8gb: LoRA",
                "sd15-16gb: DreamBooth with text encoder",
            ],
        ),
    ],
)
def test_what_can_run_follows_the_gpu_memory(gpu_gb: float, works: list[str]) -> None:
    machine = replace(environment.this_machine(), gpu_memory=int(gpu_gb * 1e9), disk_free=10**12)
    assert [work for work, (fits, _) in environment.can_run(machine).items() if fits] == works


def test_a_full_disk_fits_nothing() -> None:
    machine = replace(environment.this_machine(), gpu_memory=10**12, disk_free=0)
    assert not any(fits for fits, _ in environment.can_run(machine).values())


def test_describe_names_the_free_disk() -> None:
    free = shutil.disk_usage(".").free / 1e9
    line = environment.describe().splitlines()[2]
    assert abs(float(line.rsplit("disk: ")[1].split()[0]) - free) < 2


def waiting(**variables: str) -> list[str]:
    """How threads wait in a fresh Python that imports sdlab."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    code = f"import sdlab, os; print(*[os.environ.get(name) for name in {names}])"
    kept = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, env=kept | variables, cwd=ROOT, check=True
    ).stdout.split()


def test_threads_wait_passively_unless_the_user_says_otherwise() -> None:
    assert waiting() == ["PASSIVE", "800"]
    assert waiting(OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="7") == ["ACTIVE", "7"]
    assert "OMP_WAIT_POLICY" in environment.threads()


def test_the_common_memory_of_a_mac_counts() -> None:
    mac = replace(environment.this_machine(), device="mps", gpu_memory=int(11.4e9), disk_free=10**12)
    fits = [work for work, (so, _) in environment.can_run(mac).items() if so]
    assert "sd15-8gb: LoRA" in fits and "sd15: the same in float32" not in fits
