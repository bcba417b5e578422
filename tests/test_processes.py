"""One training in several processes: the same result, and one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.training import train

Short = Callable[..., DreamBooth | LoRA]
ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

CODE = """
import json, sys
from sdlab.config import from_dict
from sdlab.training import train
for line in open(sys.argv[1]):
    name, chosen = json.loads(line)
    print(train(name, from_dict(chosen)).status)
"""


def in_two_processes(planned: list[tuple[str, DreamBooth | LoRA]]) -> str:
    """Trains with torchrun; gives what was printed."""
    Path("code.py").write_text(CODE)
    lines = [json.dumps((name, chosen.as_dict())) + "\n" for name, chosen in planned]
    Path("planned.jsonl").write_text("".join(lines))
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "code.py", "planned.jsonl"], env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_processes_train_as_one_and_write_one_folder(short: Short, workplace: Path) -> None:
    options = {"train_batch_size": 2, "with_prior_preservation": True, "checkpointing_steps": 2}
    whole = short("lora", **options)
    one = train("one", whole, progress=False)
    said = in_two_processes(
        [("two", whole), ("two", whole), ("odd", short("lora", max_train_steps=2, train_batch_size=4))]
    )
    two = Experiment("two")
    assert said.count("finished") >= 3 and said.count("two: finished before, kept") == 1
    assert two.record["environment"]["processes"] == 2
    assert [row["step"] for row in two.log()] == [row["step"] for row in one.log()]
    losses = [[row["loss"] for row in experiment.log() if "loss" in row] for experiment in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    first, second = load_file(one.lora_file), load_file(two.lora_file)
    difference = torch.cat([(first[name] - second[name]).flatten() for name in first]).norm()
    assert difference <= 1e-3 * torch.cat([weight.flatten() for weight in first.values()]).norm()
