"""Work in other processes: one for each GPU of this machine, or jobs of a SLURM cluster.

What lies on disk is the truth: an executor is only asked whether a job still lives.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.files import write_bytes

JOBS = ".jobs"  # in the experiments' root: what the jobs print, and which job has which experiment
Place = Literal["here", "gpus", "slurm"]
_POLL = 1.0  # seconds
FINISHED, _WAITS = "finished", "waits"
_WORDS = {"new": _WAITS, "stopped": _WAITS}


class Executor(Protocol):
    """Anything that runs a call elsewhere, such as submitit's executors or those of concurrent.futures."""

    def submit(self, task: Any) -> Any:
        """Starts a call without arguments; gives a job with `done()`."""


@dataclass(frozen=True, eq=False)
class Task:
    """What a job does: trains experiments in one pass, and comes back after a time-out or a preemption."""

    planned: dict[str, DreamBooth | LoRA]
    root: Path

    @property
    def experiments(self) -> list[Experiment]:
        """In the order of the plan."""
        return [Experiment(name, self.root) for name in self.planned]

    @property
    def file(self) -> Path:
        """Where the number of its job stands, under which another process finds it again."""
        return self.root / JOBS / next(iter(self.planned))

    @property
    def class_images(self) -> tuple[Any, ...] | None:
        """Which class images it needs, if any: the first task makes them for all."""
        chosen = next(iter(self.planned.values()))
        names = ("pretrained_model_name_or_path", "class_prompt", "class_data_dir", "resolution")
        return tuple(getattr(chosen, name) for name in names) if chosen.with_prior_preservation else None

    @property
    def has_class_images(self) -> bool:
        """Whether it is past making them."""
        return bool(self.experiments[0].record.get("class_images"))

    @property
    def states(self) -> dict[str, str]:
        """How far each experiment is, in words."""
        found = {one: one.status for one in self.experiments}
        return {
            one.name: f"failed: {one.record['message']}" if state == "failed" else _WORDS.get(state, state)
            for one, state in found.items()
        }

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


@dataclass(frozen=True, eq=False)
class Call:
    """What a job of another stage does for one experiment: a call that makes files, none of them twice."""

    call: Callable[[list[str]], object]
    name: str
    file: Path  # as a task's; what became of the call stands beside it
    class_images = None
    has_class_images = False

    @property
    def states(self) -> dict[str, str]:
        """How far it is, in words."""
        return {self.name: self._state.read_text() if self._state.is_file() else _WAITS}

    @property
    def _state(self) -> Path:
        return self.file.with_suffix(f"{self.file.suffix}.state")

    def forget(self) -> None:
        """Forgets what became of it before."""
        self._state.unlink(missing_ok=True)

    def __call__(self) -> None:
        try:
            self.call([self.name])
            state = FINISHED
        except Exception as error:
            state = f"failed: {type(error).__name__}: {error}"
            print(f"{self.name} {state}", flush=True)
        write_bytes(self._state, state.encode())

    def checkpoint(self) -> Any:
        """See `Task.checkpoint`."""
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


def executor_for(
    on: Place, root: Path, *, minutes: int = 60, gpus: int = 1, partition: str | None = None
) -> Executor | None:
    """Makes what runs tasks there, None for here; SLURM's jobs are an array, whose nodes must see `root`.

    Raises:
        ValueError: There is no GPU, or submitit or SLURM's commands are missing.
    """
    if on == "here":
        return None
    if on == "gpus":
        return Processes(_devices(), root / JOBS)
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
        slurm_signal_delay_s=min(90, 15 * minutes),  # the warning before the time is up
        gpus_per_node=gpus,
        stderr_to_stdout=True,
        slurm_partition=partition,
        slurm_setup=["export TQDM_DISABLE=1"],  # bars fill a log file
        slurm_additional_parameters={"requeue": True},
    )
    return executor


def _devices() -> list[str]:
    """Names this machine's GPUs, as CUDA_VISIBLE_DEVICES does."""
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
        self._running: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def submit(self, task: Task | Call) -> Future[None]:
        """Waits for a free device and runs the task there."""
        return self._threads.submit(self._run, task)

    def stop(self) -> None:
        """Has the processes save and end."""
        self._stopped = True
        for process in self._running:
            process.send_signal(signal.SIGINT)
        self._threads.shutdown()

    def _run(self, task: Task | Call) -> None:
        device = self._free.get()
        if self._stopped:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        cores = str(max(1, (os.cpu_count() or 1) // self.count))
        own = {"CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": cores, "TQDM_DISABLE": "1"}
        command = [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)()"]
        with open(self._folder / f"{task.file.name}.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | own,
                process_group=0,  # a terminal's Ctrl-C would reach it beside `stop`, and twice means at once
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


def spread(
    call: Callable[[list[str]], object],
    names: Sequence[str],
    *,
    root: str | Path = "experiments",
    on: Place = "here",
    part: str | None = None,
    partition: str | None = None,
    gpus: int = 1,
    minutes: int = 60,
) -> list[str]:
    """Has a call made for each of some experiments in other processes, and waits; gives this share's names.

    Args:
        call: Takes a list of names; what it makes lies on disk afterwards.
        on: `here`, `gpus` (a process for each GPU of this machine), or `slurm` (a job for each experiment).
        part: Only a share of the experiments, such as `3/1000`.
        partition: Of SLURM; None takes the cluster's.
        gpus: For each job of SLURM.
        minutes: A job's time limit in SLURM.

    Raises:
        ValueError: Some failed; the message says why.
    """
    if part is not None:
        names = list(share(dict.fromkeys(names), part))
    executor = executor_for(on, Path(root), minutes=minutes, gpus=gpus, partition=partition)
    if executor is None:
        return list(names)
    kind = getattr(call, "func", call).__name__
    calls = [Call(call, name, Path(root) / JOBS / f"{name}.{kind}") for name in names]
    for one in calls:
        if _job_of(one) is None:
            one.forget()
    run_on(executor, calls, progress=True)
    wrong = [f"{name}: {state}" for one in calls for name, state in one.states.items() if state != FINISHED]
    if wrong:
        raise ValueError("some experiments failed:\n  " + "\n  ".join(wrong))
    return list(names)


def run_on(executor: Executor, tasks: Sequence[Task | Call], progress: bool) -> None:
    """Has tasks run by an executor, and waits; a task that has a job already keeps it.

    Raises:
        KeyboardInterrupt: It was interrupted. Jobs of a cluster go on, and the same call finds them again.
    """
    waiting = [task for task in tasks if set(task.states.values()) != {FINISHED}]
    jobs: dict[Task | Call, Any] = {}
    living: set[Task | Call] = set()
    told: dict[str, str] = {}
    try:
        while waiting or living:
            ready = _ready(waiting, jobs, living)
            with getattr(executor, "batch", nullcontext)() if ready else nullcontext():
                started = {task: _job_of(task) or executor.submit(task) for task in ready}
            for task, job in started.items():
                if number := _number(job):
                    task.file.parent.mkdir(parents=True, exist_ok=True)
                    task.file.write_text(number)
            jobs |= started
            living = _living(jobs)
            waiting = [task for task in waiting if task not in jobs]
            for task, job in jobs.items():
                for name, state in task.states.items():
                    state = "ended without finishing" if state == _WAITS and task not in living else state
                    if told.get(name) != state and progress:
                        number = _number(job)
                        print(f"  {name}: {state}{f' (job {number})' if number else ''}", flush=True)
                    told[name] = state
            time.sleep(_POLL)
    except KeyboardInterrupt:
        if isinstance(executor, Processes):
            executor.stop()
        else:
            numbers = " ".join(_number(job) or "" for job in jobs.values())
            print(f"The jobs go on; the same command finds them again. To stop them: scancel {numbers}")
        raise


def _ready(
    waiting: Sequence[Task | Call], begun: Collection[Task | Call], living: Collection[Task | Call]
) -> list[Task | Call]:
    """Those that needn't wait for class images, or else would hold a GPU meanwhile: the first makes them."""
    made = {task.class_images for task in begun if task.has_class_images}
    making = {task.class_images for task in living} - made
    ready = []
    for task in waiting:
        if task.class_images is None or task.class_images not in making:
            ready.append(task)
            making |= {task.class_images} - made
    return ready


def _number(job: Any) -> str | None:
    """A cluster's number of a job; that of one found again is all that is known of it."""
    return job if isinstance(job, str) else getattr(job, "job_id", None)


def _job_of(task: Task | Call) -> str | None:
    """The number of the job that has the task already."""
    number = task.file.read_text() if task.file.is_file() else ""
    return number if number and _living({task: number}) else None


def _living(jobs: Mapping[Task | Call, Any]) -> set[Task | Call]:
    """The tasks whose jobs wait or run; all of a cluster's while it doesn't answer."""
    listed: set[str] | None = set()
    if any(_number(job) for job in jobs.values()):
        command = ["squeue", "--me", "--noheader", "--array", "--format", "%F_%K %i"]
        shown = subprocess.run(command, capture_output=True, text=True)
        listed = set(shown.stdout.split()) if shown.returncode == 0 else None
    return {
        task
        for task, job in jobs.items()
        if (listed is None or number in listed if (number := _number(job)) else not job.done())
    }
