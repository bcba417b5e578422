"""Killed at any instant and started again, a run ends with the same weights, bit for bit."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdlab.experiment import DreamBooth, Experiment, LoRA

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

_TRAIN = """
import json, sys
from sdlab.methods import from_dict
from sdlab.training import train
train(sys.argv[1], from_dict(json.loads(sys.argv[2])), progress=False)
"""
STEPS = 8


def start(name: str, chosen: DreamBooth | LoRA) -> subprocess.Popen[bytes]:
    import json

    return subprocess.Popen([sys.executable, "-c", _TRAIN, name, json.dumps(chosen.as_dict())])


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    while process.poll() is None and not reached():
        time.sleep(0.001)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_killed_runs_end_with_the_same_weights(
    short: Callable[..., DreamBooth | LoRA], workplace: Path
) -> None:
    chosen = short("dreambooth", max_train_steps=STEPS, checkpointing_steps=3, class_data_dir="class_images")
    assert start("whole", chosen).wait() == 0
    folder = Experiment("killed").path
    instants: list[Callable[[], bool]] = [
        lambda: folder.exists(),  # before the first step
        lambda: (folder / "checkpoints/.step_000003.partial/weights.safetensors").exists(),  # in a save
        lambda: len(Experiment("killed").log()) >= 2,  # between two saves
        lambda: (folder / ".model.partial/unet").exists(),  # in the export
    ]
    for reached in instants:
        kill_when(start("killed", chosen), reached)
        assert Experiment("killed").status in ("new", "stopped")
    assert start("killed", chosen).wait() == 0

    whole, killed = Experiment("whole"), Experiment("killed")
    assert killed.status == "finished"
    for file in whole.model_folder.rglob("*.safetensors"):
        expected, found = (
            load_file(file),
            load_file(killed.model_folder / file.relative_to(whole.model_folder)),
        )
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert [row["step"] for row in killed.log()] == [row["step"] for row in whole.log()]
    assert not list(folder.rglob("*.partial"))
