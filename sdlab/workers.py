"""Experiments trained in other processes: one for each GPU of this machine, or jobs of a SLURM cluster.

The experiments' records are the truth: an executor is only asked whether a job still lives.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

from sdlab.experiment import DreamBooth, Experiment, LoRA

JOBS = ".jobs"  # in the experiments' root: what the jobs print, and which job has which experiment
Place = Literal["here", "gpus", "slurm"]
_POLL = 1.0  # seconds


class Executor(Protocol):
    """Anything that runs a call elsewhere, such as submitit's executors or those of concurrent.futures."""

    def submit(self, task: Any) -> Any:
        """Starts a call without arguments; gives a job with `done()`."""


@dataclass(frozen=True)
class Task:
    """What a job does: trains experiments in one pass, and comes back after a time-out or a preemption."""

    planned: dict[str, DreamBooth | LoRA]
    root: Path

    @property
    def experiments(self) -> list[Experiment]:
        """In the order of the plan."""
        return [Experiment(name, self.root) for name in self.planned]

    def __call__(self) -> None:
        from sdlab.training import train_together

        for name, error in train_together(self.planned, root=self.root).items():
            print(f"{name} failed: {error}", flush=True)
        if "SLURM_JOB_ID" in os.environ and any(one.status == "stopped" for one in self.experiments):
            come_back()

    def checkpoint(self) -> Any:
        """submitit asks for it when a signal comes outside of the loop, which saves by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def come_back() -> None:
    """Puts this SLURM job into the queue again, unless it was cancelled; doesn't return."""
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
    # the last task of an array has the array's own number: without the index all of them would be meant
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    shown = subprocess.run(["scontrol", "show", "job", "-o", job], capture_output=True, text=True).stdout
    if "JobState=RUNNING" in shown.split():  # cancelled or requeued from outside, it is COMPLETING
        print(f"job {job} goes back into the queue", flush=True)
        subprocess.run(["scontrol", "requeue", job], check=True)
    while True:
        signal.pause()  # SLURM ends it; to return would be to say that the work is done


def slurm(root: Path, *, minutes: int = 60, gpus: int = 1, partition: str | None = None) -> Any:
    """Makes an executor whose jobs are a SLURM array; `root` must be seen by all nodes.

    Raises:
        ValueError: submitit or SLURM's commands are missing.
    """
    try:
        import submitit

        executor = submitit.AutoExecutor(root / JOBS / "%j", cluster="slurm", slurm_max_num_timeout=1000)
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"SLURM can't be reached ({error}). Run this on a login node, with `pip install sdlab[cluster]`; "
            "for another scheduler give each job its share: --part 1/8."
        ) from error
    executor.update_parameters(
        timeout_min=minutes,
        gpus_per_node=gpus,
        stderr_to_stdout=True,
        slurm_partition=partition,
        slurm_setup=["export TQDM_DISABLE=1"],  # bars fill a log file
        slurm_additional_parameters={"requeue": True},
    )
    return executor


def devices() -> list[str]:
    """Names this machine's GPUs, as CUDA_VISIBLE_DEVICES does.

    Raises:
        ValueError: There is none.
    """
    if shown := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return shown.split(",")
    import torch

    if not torch.cuda.device_count():
        raise ValueError("on='gpus' needs an NVIDIA GPU, and torch sees none. Leave it out, or take 'slurm'.")
    return [str(number) for number in range(torch.cuda.device_count())]


class Processes:
    """An executor whose calls run in processes of this machine, one for each device, the cores divided.

    Args:
        devices: Values of CUDA_VISIBLE_DEVICES.
        folder: For what the processes print.
    """

    def __init__(self, devices: Sequence[str], folder: Path) -> None:
        self._free: SimpleQueue[str] = SimpleQueue()
        for device in devices:
            self._free.put(device)
        self.count = len(devices)
        self._threads = ThreadPoolExecutor(self.count)
        self._folder = folder
        self._cores = str(max(1, (os.cpu_count() or 1) // self.count))
        self._running: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def submit(self, task: Task) -> Future[None]:
        """Waits for a free device and runs the task there."""
        return self._threads.submit(self._run, task)

    def stop(self) -> None:
        """Has the processes save and end."""
        self._stopped = True
        for process in self._running:
            process.send_signal(signal.SIGINT)
        self._threads.shutdown()

    def _run(self, task: Task) -> None:
        device = self._free.get()
        if self._stopped:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        own = {"CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": self._cores, "TQDM_DISABLE": "1"}
        command = [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)()"]
        with open(self._folder / f"{next(iter(task.planned))}.log", "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT
            )
            self._running.append(process)
            process.communicate(pickle.dumps(task))
        self._free.put(device)


def share(planned: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Gives the experiments of `part`, such as `3/1000`: each 1000th from the third on.

    Raises:
        ValueError: It isn't a part.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", part)
    if not found or not 1 <= (number := int(found[1])) <= (count := int(found[2])):
        raise ValueError(f"part must be like 3/1000, from 1/1000 to 1000/1000, got {part!r}.")
    return dict(list(planned.items())[number - 1 :: count])


def train_on(executor: Executor, tasks: Sequence[Task], progress: bool) -> None:
    """Has the tasks' experiments trained by an executor, and waits; a task that has a job already keeps it.

    Raises:
        KeyboardInterrupt: It was interrupted. Jobs of a cluster go on, and the same call finds them again.
    """
    waiting = [task for task in tasks if any(one.status != "finished" for one in task.experiments)]
    jobs: list[tuple[Task, Any]] = []
    told: dict[Experiment, str] = {}
    try:
        while True:
            living = _living([job for _, job in jobs])
            ready = _ready(waiting, jobs, living)
            with getattr(executor, "batch", nullcontext)() if ready else nullcontext():
                started = [(task, _job_of(task) or executor.submit(task)) for task in ready]
            for task, job in started:
                _write_number(task, job)
            jobs += started
            living += [job for _, job in started]
            waiting = [task for task in waiting if task not in ready]
            _tell(jobs, living, told, progress)
            if not waiting and not living:
                return
            time.sleep(_POLL)
    except KeyboardInterrupt:
        if isinstance(executor, Processes):
            executor.stop()
        else:
            numbers = " ".join(str(_number(job) or "") for _, job in jobs)
            print(f"The jobs go on; the same command finds them again. To stop them: scancel {numbers}")
        raise


def _ready(waiting: list[Task], jobs: list[tuple[Task, Any]], living: list[Any]) -> list[Task]:
    """Those that needn't wait for class images, or else would hold a GPU meanwhile: the first makes them."""
    made = {_classes(task) for task, _ in jobs if task.experiments[0].record.get("class_images")}
    making = {_classes(task) for task, job in jobs if job in living} - made
    ready = []
    for task in waiting:
        if (classes := _classes(task)) is None or classes not in making:
            ready.append(task)
            making |= {classes} - made
    return ready


def _classes(task: Task) -> tuple[Any, ...] | None:
    chosen = next(iter(task.planned.values()))
    if not chosen.with_prior_preservation:
        return None
    of = ("pretrained_model_name_or_path", "class_prompt", "class_data_dir", "resolution")
    return tuple(getattr(chosen, name) for name in of)


def _number(job: Any) -> str | None:
    """A cluster's number of the job, under which another process finds it again."""
    return job if isinstance(job, str) else getattr(job, "job_id", None)


def _job_of(task: Task) -> str | None:
    """The number of the job that has the task already."""
    file = task.root / JOBS / task.experiments[0].name
    number = file.read_text() if file.is_file() else ""
    return number if number and _living([number]) else None


def _write_number(task: Task, job: Any) -> None:
    if number := _number(job):
        (task.root / JOBS).mkdir(parents=True, exist_ok=True)
        for experiment in task.experiments:
            (task.root / JOBS / experiment.name).write_text(number)


def _living(jobs: Sequence[Any]) -> list[Any]:
    """The jobs that wait or run; all of a cluster's while it doesn't answer."""
    listed: set[str] | None = set()
    if any(_number(job) for job in jobs):
        command = ["squeue", "--me", "--noheader", "--array", "--format", "%F_%K %i"]
        shown = subprocess.run(command, capture_output=True, text=True)
        listed = set(shown.stdout.split()) if shown.returncode == 0 else None
    return [
        job
        for job in jobs
        if (listed is None or number in listed if (number := _number(job)) else not job.done())
    ]


def _tell(
    jobs: list[tuple[Task, Any]], living: list[Any], told: dict[Experiment, str], progress: bool
) -> None:
    """Prints a line for each experiment whose state has changed."""
    for task, job in jobs:
        for one in task.experiments:
            state = one.status
            if state in ("new", "stopped"):
                state = "waits" if job in living else "ended without finishing"
            elif state == "failed":
                state = f"failed: {one.record['message']}"
            if told.get(one) != state and progress:
                number = _number(job)
                print(f"  {one.name}: {state}{f' (job {number})' if number else ''}", flush=True)
            told[one] = state
