"""Sweeps in other processes: on this machine's devices, as a share, and as jobs of a real SLURM."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdlab.cli import main
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.images import generate
from sdlab.prompts import PromptSet
from sdlab.sweeps import plan, sweep, train_planned
from sdlab.training import train
from sdlab.workers import JOBS, Processes, Task, run_on, share, spread

Short = Callable[..., DreamBooth | LoRA]
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bit for bit holds for equal numbers of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import this package."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def assert_same(one: Experiment, other: Experiment, *, relative: float = 0) -> None:
    first, second = load_file(one.lora_file), load_file(other.lora_file)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.dist(weight, second[name]) <= relative * weight.norm(), name


def test_a_part_is_a_share_of_the_sweep_by_number(short: Short) -> None:
    planned = plan(short("lora"), rank=[1, 2, 3, 4, 5])
    shares = [list(share(planned, f"{number}/3")) for number in (1, 2, 3)]
    assert [len(names) for names in shares] == [2, 2, 1]
    assert sorted(name for names in shares for name in names) == sorted(planned)
    for wrong in ("0/3", "4/3", "3", "a/b"):
        with pytest.raises(ValueError, match="part must be like 3/1000"):
            share(planned, wrong)
    with pytest.raises(ValueError, match=r"4/3"):
        sweep(short("lora"), rank=[1, 2], part="4/3")


@pytest.mark.slow
def test_processes_train_as_this_one_does(
    short: Short, workplace: Path, environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(short("lora"), rank=[2, 4, 8])
    here = train_planned(planned, root="here", progress=False)
    executor = Processes(["", ""], Path("there") / JOBS)
    there = train_planned(planned, root="there", executor=executor)
    said = capsys.readouterr().out
    for one, other in zip(here, there, strict=True):
        assert_same(one, other, relative=1e-3)  # in other groups: equal up to rounding
        assert f"{other.name}: finished" in said
    log = (Path("there") / JOBS / f"{next(iter(planned))}.log").read_text()
    assert "in one pass" in log and "\r" not in log
    before = [one.lora_file.stat().st_mtime_ns for one in there]
    train_planned(planned, root="there", executor=executor)
    assert [one.lora_file.stat().st_mtime_ns for one in there] == before


@pytest.mark.slow
def test_one_that_fails_is_named_and_the_others_go_on(
    short: Short, workplace: Path, environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(short("lora", max_train_steps=12), learning_rate=[1e-3, 1e30])
    done = train_planned(planned, one_pass=False, executor=Processes([""], Path(JOBS)))
    assert [one.status for one in done] == ["finished", "failed"]
    assert "lora_rank4_lr1e30: failed: Diverged: The loss" in capsys.readouterr().out


class Counting:
    """An executor that calls at once, and remembers in what order."""

    def __init__(self) -> None:
        self.calls: list[Task] = []

    def submit(self, task: Task) -> Counting:
        self.calls.append(task)
        task()
        return self

    def done(self) -> bool:
        return True


@pytest.mark.slow
def test_any_executor_will_do(short: Short, workplace: Path) -> None:
    executor = Counting()
    done = sweep(short("lora"), rank=[2, 4], executor=executor, progress=False)
    assert [list(task.planned) for task in executor.calls] == [[one.name] for one in done]
    assert {one.status for one in done} == {"finished"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SLURM of two nodes on this machine; its environment."""
    pytest.importorskip("submitit")
    if not shutil.which("slurmctld"):
        pytest.skip("needs slurmctld, slurmd, slurm-client and munge")
    folder, script = tmp_path_factory.mktemp("slurm"), ROOT / "tests/cluster.sh"
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    environment["PORT"] = str(20_000 + os.getpid() % 20_000)
    try:
        subprocess.run([script, "start", folder], env=environment, check=True)
        yield environment
        subprocess.run(["scancel", "--me"], env=environment)
    finally:
        subprocess.run([script, "stop", folder], env=environment, check=True)


SWEEP = """
import json, sys
from sdlab.config import from_dict
from sdlab.sweeps import sweep
chosen = from_dict(json.loads(sys.argv[1]))
sweep(chosen, on="slurm", partition="gpu", gpus=1, minutes=int(sys.argv[2]), rank=json.loads(sys.argv[3]))
"""


def sweep_there(chosen: DreamBooth | LoRA, ranks: list[int], *, minutes: int) -> list[str]:
    """The command of a sweep on the cluster."""
    return [sys.executable, "-c", SWEEP, json.dumps(chosen.as_dict()), str(minutes), json.dumps(ranks)]


def assert_no_step_is_lost(stopped: Experiment) -> None:
    """What it saved when it was stopped is what so many steps give here."""
    steps = stopped.record["steps"]
    chosen = replace(stopped.hyperparameters, max_train_steps=steps)
    here = train(stopped.name, chosen, root="here", progress=False)
    place = f"step_{steps:06d}/weights.safetensors"
    first, second = (load_file(one.checkpoints_folder / place) for one in (stopped, here))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("cause", ["time limit", "preemption"])
def test_a_job_that_the_cluster_stops_saves_its_last_step_and_goes_on(
    cause: str, cluster: dict[str, str], short: Short, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    far = {"max_train_steps": 100_000, "checkpointing_steps": 100_000, "num_held_out_images": 0}
    chosen = short("lora", lr_scheduler="constant", **far)
    one = Experiment(next(iter(plan(chosen, rank=[2]))))
    waiting = subprocess.Popen(sweep_there(chosen, [2], minutes=2 if cause == "time limit" else 10))
    number = number_of(one)
    wait_for(lambda: step(one) >= 10)
    if cause == "preemption":
        subprocess.run(["sbatch", "-p", "urgent", "-N", "2", "--wrap", "sleep 5"], check=True)
    wait_for(lambda: one.status == "stopped" and one.record.get("steps"))
    kept = one.record["steps"]
    assert kept >= 10
    assert_no_step_is_lost(one)
    wait_for(lambda: start_now(number, cluster))
    wait_for(lambda: step(one) > kept)
    subprocess.run(["scancel", number.split("_")[0]], check=True)
    wait_for(lambda: one.status == "stopped")
    waiting.wait(60)


@pytest.mark.slow
@pytest.mark.cluster
def test_a_slurm_array_ends_as_the_local_sweep_does(
    cluster: dict[str, str], short: Short, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    chosen = short("lora", max_train_steps=100, checkpointing_steps=50, num_held_out_images=0)
    names = list(plan(chosen, rank=[1, 2, 3, 4]))
    command = sweep_there(chosen, [1, 2, 3, 4], minutes=10)
    waiting = subprocess.Popen(command, env=cluster)
    requeued, warned = (Experiment(name) for name in names[:2])
    job = {one: number_of(one) for one in (requeued, warned)}
    wait_for(lambda: step(requeued) >= 10 and step(warned) >= 10)
    subprocess.run(["scontrol", "requeue", job[requeued]], env=cluster, check=True)
    # it tries again until the job is gone, and then calls that an error
    subprocess.run(["scancel", "--signal=USR2", job[warned]], env=cluster)
    waiting.send_signal(signal.SIGINT)  # the jobs go on without the command
    waiting.wait()
    wait_for(lambda: warned.status == "stopped" and requeued.status == "stopped")
    kept = warned.record["steps"]
    assert kept >= 10  # saved after its step, not at the last checkpoint
    for number in job.values():
        wait_for(lambda number=number: start_now(number, cluster))
    again = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {(Path("experiments") / JOBS / one.name).read_text() for one in job} == set(job.values())
    here = train_planned(plan(chosen, rank=[1, 2, 3, 4]), root="here", one_pass=False, progress=False)
    for one in here:
        assert_same(one, Experiment(one.name))


def number_of(one: Experiment) -> str:
    file = Path("experiments") / JOBS / one.name
    wait_for(file.is_file)
    time.sleep(0.5)
    return file.read_text()


def step(one: Experiment) -> int:
    return one.log()[-1]["step"] if one.log() else 0


def start_now(number: str, environment: dict[str, str]) -> bool:
    """A job that went back waits for two minutes, unless it is told not to."""
    shown = subprocess.run(["scontrol", "update", f"jobid={number}", "StartTime=now"], env=environment)
    return shown.returncode == 0


def wait_for(what: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)


@pytest.mark.slow
def test_class_images_are_made_once_before_the_others_hold_a_device(short: Short, workplace: Path) -> None:
    planned = plan(short("dreambooth", max_train_steps=1), prior_loss_weight=[1.0, 1.2])
    executor = Counting()
    run_on(executor, [Task({name: one}, Path("experiments")) for name, one in planned.items()], False)
    assert len(executor.calls) == 2 and len(list(Path("data/class_images").iterdir())) == 1


@pytest.mark.slow
def test_images_are_made_and_scored_by_processes_too(
    short: Short,
    workplace: Path,
    environment: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",")  # two devices without a GPU: two processes on the CPU
    command = ["generate", "base", "--images_per_prompt", "1", "--num_inference_steps", "2"]
    command += ["--width", "64", "--height", "64", "--prompts", "homework_a", "--on", "gpus"]
    main(command)
    assert "base: finished" in capsys.readouterr().out
    made = sorted(Path("results/base").glob("*.png"))
    before = [file.stat().st_mtime_ns for file in made]
    main(command)
    assert len(made) == 5 and [file.stat().st_mtime_ns for file in made] == before
    main([*command, "--part", "2/2"])
    assert "0 images" in capsys.readouterr().out
    photos = ["--photos", str(short("lora").instance_data_dir)]
    main(["score", "base", *photos])
    here = Path("results/base/scores.json").read_text()
    Path("results/base/scores.json").unlink()
    main(["score", "base", *photos, "--on", "gpus"])
    said = capsys.readouterr().out
    assert "base: finished" in said and "CLIP-T" in said
    assert (Path("experiments") / JOBS / "base.score.log").is_file()
    assert Path("results/base/scores.json").read_text() == here


@pytest.mark.slow
def test_a_call_that_fails_elsewhere_is_named_with_its_reason(
    workplace: Path, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",")
    with pytest.raises(ValueError, match=r"nobody: failed: ValueError: .*nobody"):
        spread(partial(generate, prompts=PromptSet({"street": "a street"})), ["nobody"], on="gpus")
