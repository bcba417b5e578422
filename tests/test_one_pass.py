"""Many LoRAs in one pass: each ends as it would alone, and remains an experiment of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.models import resolve
from sdlab.sampling import image_files
from sdlab.sweeps import sweep
from sdlab.training import train, train_together
from sdlab.training.lora import in_one_pass
from sdlab.training.memory import at_once
from sdlab.training.setup import load_model

Short = Callable[..., DreamBooth | LoRA]


def planned(short: Short, **overrides: object) -> dict[str, DreamBooth | LoRA]:
    """Three LoRAs that differ in all that may differ."""
    common = short("lora", train_batch_size=2, train_text_encoder=True, **overrides)
    return {
        "small": replace(common, rank=2, learning_rate=1e-3, seed=1),
        "large": replace(common, rank=8, lora_alpha=4.0, learning_rate=5e-4, text_encoder_lr=1e-4, seed=2),
        "other": replace(
            common, seed=3, snr_gamma=5.0, noise_offset=0.1, optimizer="adafactor", use_ema=True
        ),
    }


def weights(experiment: Experiment) -> dict[str, torch.Tensor]:
    return load_file(experiment.lora_file)


def assert_close(one: Experiment, other: Experiment, relative: float) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    whole = torch.cat([value.flatten() for value in first.values()])
    difference = torch.cat([(first[name] - second[name]).flatten() for name in first])
    assert difference.norm() <= relative * whole.norm()


def test_in_one_pass_each_ends_as_alone(short: Short, workplace: Path) -> None:
    chosen = planned(short)
    assert train_together(chosen, progress=False) == {}
    for name, one in chosen.items():
        alone = train(f"{name}_alone", one, progress=False)
        together = Experiment(name)
        assert together.status == "finished" and together.record["in_one_pass"] == 3
        # Adafactor has no epsilon that keeps apart gradients which are rounding alone
        assert_close(alone, together, 1e-2 if one.optimizer_name == "adafactor" else 1e-4)
        assert (
            weights(together)[next(iter(weights(together)))].shape
            == weights(alone)[next(iter(weights(alone)))].shape
        )
        losses = [
            [row["loss"] for row in experiment.log() if "loss" in row] for experiment in (alone, together)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        found = [experiment.record["prediction_change"] for experiment in (alone, together)]
        assert found[0] == pytest.approx(found[1], rel=1e-2)


def test_stopped_together_they_go_on_together_or_alone(short: Short, workplace: Path) -> None:
    chosen = planned(short, max_train_steps=12, checkpointing_steps=4, validation_steps=100)
    train_together(chosen, progress=False)
    whole = {name: weights(Experiment(name)) for name in chosen}
    Path("experiments").rename("whole")

    def interrupt() -> None:
        while not any(row["step"] >= 4 for row in Experiment("large").log()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert train_together(chosen, progress=False) == {}
    assert {Experiment(name).status for name in chosen} == {"stopped"}
    assert 4 <= Experiment("small").record["steps"] < 12
    assert train("other", chosen["other"], progress=False).status == "finished"
    assert_close(Experiment("other", Path("whole")), Experiment("other"), 1e-4)
    Path("experiments/other").rename("other")
    Path("whole/other").rename("experiments/other")  # finished: the other two go on without it
    assert train_together(chosen, progress=False) == {}
    for name in ("small", "large"):
        assert_close(Experiment(name, Path("whole")), Experiment(name), 1e-4)
        assert whole[name].keys() == weights(Experiment(name)).keys()


def test_a_break_of_all_changes_no_bit(short: Short, workplace: Path) -> None:
    chosen = planned(short, max_train_steps=6, checkpointing_steps=2, num_held_out_images=0)
    train_together(chosen, root="whole", progress=False)

    def interrupt() -> None:
        while not any(row["step"] >= 2 for row in Experiment("large").log()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    train_together(chosen, progress=False)
    assert train_together(chosen, progress=False) == {}
    for name in chosen:
        before, after = weights(Experiment(name, Path("whole"))), weights(Experiment(name))
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_one_that_diverges_drops_out(
    short: Short, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = short("lora", max_train_steps=12)
    done = sweep(common, learning_rate=[1e-3, 1e30], progress=False)
    assert [one.status for one in done] == ["finished", "failed"]
    assert "lora_rank4_lr1e30 failed: The loss is" in capsys.readouterr().out
    alone = train("alone", replace(common, learning_rate=1e-3), progress=False)
    assert_close(alone, done[0], 1e-4)


def test_a_sweep_can_be_trained_one_by_one(short: Short, workplace: Path) -> None:
    done = sweep(short("lora"), rank=[2, 4], one_pass=False, progress=False)
    assert [one.record["in_one_pass"] for one in done] == [1, 1]


def test_what_differs_in_more_than_its_own_settings_is_trained_apart() -> None:
    one = LoRA()
    groups = in_one_pass(
        {
            "rank": replace(one, rank=8),
            "seed": replace(one, seed=5),
            "steps": replace(one, max_train_steps=10),
            "dora": replace(one, use_dora=True),
            "dora2": replace(one, use_dora=True, rank=2),
            "full": DreamBooth(),
        }
    )
    assert [list(group) for group in groups] == [["rank", "seed"], ["steps"], ["dora"], ["dora2"], ["full"]]


def test_as_many_at_once_as_fit_into_memory(short: Short, workplace: Path) -> None:
    chosen = short("lora")
    model = load_model(resolve("mini"), chosen, [image_files(chosen.instance_data_dir)], lambda text: None)
    assert at_once(model, [chosen] * 3) == 3
    assert at_once(model, [replace(chosen, train_batch_size=10_000_000)] * 3) == 1


_RUNS_OUT = """
import json, resource, sys
import psutil, torch
torch.backends.mkldnn.set_flags(False)  # oneDNN doesn't recover from a lack of address space
from sdlab.config import from_dict
from sdlab.training import loop, train_together
chosen = {name: from_dict(values) for name, values in json.loads(sys.argv[1]).items()}
steps, unlimited = loop.train_steps, resource.RLIM_INFINITY
def with_memory_for_one(trainings, needs, progress):
    if len(trainings) == 2:
        limit = psutil.Process().memory_info().vms + int(0.6e9 * needs.memory_gb)
        resource.setrlimit(resource.RLIMIT_AS, (limit, unlimited))
    try:
        steps(trainings, needs, progress)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))
loop.train_steps = with_memory_for_one
print(train_together(chosen))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_where_memory_runs_out_fewer_go_on(short: Short, workplace: Path) -> None:
    common = short("lora", train_batch_size=24, train_text_encoder=False, max_train_steps=1)
    chosen = {"one": common.as_dict(), "two": replace(common, seed=2).as_dict()}
    run = subprocess.run(
        [sys.executable, "-c", _RUNS_OUT, json.dumps(chosen)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert "memory ran out, so at most 1 go on in one pass" in run.stdout, run.stdout + run.stderr
    assert [Experiment(name).status for name in chosen] == ["finished", "finished"], run.stdout + run.stderr
    assert Experiment("one").record["in_one_pass"] == 1
