"""Grids of experiments: names made from what varies, finished ones skipped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sdlab.config import DreamBooth, LoRA, number, unknown
from sdlab.experiment import Experiment, Locked
from sdlab.files import DiskFull
from sdlab.prompts import check_file_name
from sdlab.training import train_together
from sdlab.workers import JOBS, Executor, Place, Processes, Task, executor_for, run_on, share

SHORT = {
    "learning_rate": "lr",
    "rank": "rank",
    "prior_loss_weight": "prior",
    "max_train_steps": "steps",
    "lora_alpha": "alpha",
}
# What a name always says, so that a sweep of the rate and a sweep of the rank share their common experiment.
ALWAYS = {"lora": ("rank", "learning_rate"), "dreambooth": ("learning_rate",)}
# What changes nothing without something else: a sweep of it would train the same again and again.
NEEDS = {
    "prior_loss_weight": ("with_prior_preservation", True),
    "num_class_images": ("with_prior_preservation", True),
    "lr_num_cycles": ("lr_scheduler", "cosine_with_restarts"),
    "lr_power": ("lr_scheduler", "polynomial"),
    "ema_decay": ("use_ema", True),
}


def sweep(
    hyperparameters: DreamBooth | LoRA,
    *,
    prefix: str | None = None,
    root: str | Path = "experiments",
    one_pass: bool = True,
    on: Place = "here",
    part: str | None = None,
    executor: Executor | None = None,
    partition: str | None = None,
    gpus: int = 1,
    minutes: int = 60,
    progress: bool = True,
    **grid: Sequence[Any],
) -> list[Experiment]:
    """Trains one experiment for every combination of some hyperparameters; LoRAs together, in one pass.

    Finished experiments are not trained again, and one that fails doesn't stop the others. LoRAs that share
    base, images, batch and steps are computed together, as many at once as fit into memory: each has its own
    random numbers, optimizer and checkpoints, and ends with the same weights as alone, up to rounding.

    Args:
        hyperparameters: What all of them have in common.
        prefix: Beginning of the names; None takes the method: `lora_rank4_lr2e-4`.
        root: The folder of all experiments.
        one_pass: Train LoRAs together where they can be.
        on: `here`, `gpus` (a process for each GPU of this machine), or `slurm` (a job for each experiment).
        part: Train only a share, such as `3/1000`: for any other scheduler, which gives each job its number.
        executor: Takes the place of `on`: anything with `submit`, such as submitit's.
        partition: Of SLURM; None takes the cluster's.
        gpus: For each job of SLURM.
        minutes: A job's time limit in SLURM; at its end the job saves, and goes on in the queue.
        progress: Show progress bars and say what is done.
        **grid: Hyperparameters with the values to try, such as `learning_rate=[2e-5, 2e-4]`.

    Returns:
        The experiments that are there afterwards, in the order of the grid, failed ones too.

    Raises:
        ValueError: An unknown hyperparameter, a bad value, or every experiment failed.
        DiskFull: There is no room left.
        KeyboardInterrupt: It was interrupted; the same call goes on.

    Source:
        Ye et al. 2023, "mLoRA", arXiv:2312.02515 (many LoRAs of one base at once). Taught in: notebooks/03.
    """
    planned = plan(hyperparameters, prefix=prefix, **grid)
    if part is not None:
        planned = share(planned, part)
    if executor is None:
        executor = executor_for(on, Path(root).expanduser(), minutes=minutes, gpus=gpus, partition=partition)
    return train_planned(planned, root=root, one_pass=one_pass, executor=executor, progress=progress)


def train_planned(
    planned: Mapping[str, DreamBooth | LoRA],
    *,
    root: str | Path = "experiments",
    one_pass: bool = True,
    executor: Executor | None = None,
    progress: bool = True,
) -> list[Experiment]:
    """Trains named experiments as `sweep` does, such as those of several grids together."""
    root = Path(root).expanduser()
    groups = [{name: chosen} for name, chosen in planned.items()]
    if one_pass and (executor is None or isinstance(executor, Processes)):
        from sdlab.training.lora import in_one_pass

        groups = in_one_pass(planned)
    experiments = [Experiment(name, root) for name in planned]
    if executor is None:
        errors = _train_here(groups, root, progress)
    else:
        parts = (
            executor.count if isinstance(executor, Processes) else 1
        )  # each device takes a share of a group
        shares = [share(group, f"{part}/{parts}") for group in groups for part in range(1, parts + 1)]
        run_on(executor, [Task(some, root) for some in shares if some], progress)
        where = f"no reason is recorded; see the files in {root / JOBS}"
        lacking = [one for one in experiments if one.status != "finished"]
        errors = {one.name: str(one.record.get("message") or where) for one in lacking}
    if planned and len(errors) == len(planned):
        listed = [f"{name}: {reason}" for name, reason in errors.items()]
        raise ValueError("every experiment of the sweep failed:\n  " + "\n  ".join(listed))
    # what is there under the name of one that couldn't begin is something else
    return [one for one in experiments if one.name not in errors or one.status == "failed"]


def _train_here(
    groups: Sequence[Mapping[str, DreamBooth | LoRA]], root: Path, progress: bool
) -> dict[str, str]:
    """Trains one group after the other; gives what went wrong, by name."""
    errors: dict[str, str] = {}
    said: set[str] = set()
    for group in groups:
        if progress:
            print(f"  {', '.join(group)}", flush=True)
        try:
            found = train_together(group, root=root, progress=progress, said=said)
        except DiskFull:
            raise
        except Exception as error:  # whatever these died of, the others are worth training
            found = {name: error for name in group if Experiment(name, root).status != "finished"}
        for name, reason in found.items():
            print(f"{name} {'is left out' if isinstance(reason, Locked) else 'failed'}: {reason}", flush=True)
            errors[name] = str(reason)
        for name in group:
            if name not in found and Experiment(name, root).status == "stopped":
                raise KeyboardInterrupt(f"{name} was interrupted. The same command goes on from there.")
    return errors


def plan(
    hyperparameters: DreamBooth | LoRA, *, prefix: str | None = None, **grid: Sequence[Any]
) -> dict[str, DreamBooth | LoRA]:
    """Gives names and hyperparameters of a sweep's experiments, in the order of the grid, without training.

    Raises:
        ValueError: An unknown hyperparameter, no values, a bad value, or values that change nothing.
    """
    known = [field.name for field in fields(hyperparameters)]
    listed: dict[str, list[Any]] = {}
    for name, values in grid.items():
        if name not in known:
            raise ValueError(unknown(f"hyperparameter of {hyperparameters.method}", name, known))
        if isinstance(values, str) or not isinstance(values, Iterable) or not (values := list(values)):
            raise ValueError(f"{name} needs a list of values, got {values!r}. Write {name}=[{values!r}].")
        listed[name] = values
        other, needed = NEEDS.get(name, ("", None))
        if needed is not None and needed not in (getattr(hyperparameters, other), *grid.get(other, ())):
            raise ValueError(
                f"{name} changes nothing without {other}, so a sweep of it would train the same again and "
                f"again. Add {other}={needed!r}, or sweep something else."
            )
    planned: dict[str, DreamBooth | LoRA] = {}
    for values in itertools.product(*listed.values()):
        chosen = replace(hyperparameters, **dict(zip(listed, values, strict=True)))
        name = experiment_name(chosen, list(listed), prefix)
        if planned.setdefault(name, chosen) != chosen:
            raise ValueError(f"two experiments would be called {name}. Take values that differ more.")
    return planned


def experiment_name(
    hyperparameters: DreamBooth | LoRA, varied: Iterable[str] = (), prefix: str | None = None
) -> str:
    """Makes a name from rank, learning rate and what else varies: `lora_rank4_lr2e-4`.

    Raises:
        ValueError: The prefix or a value can't be part of a file name.
    """
    parts = [prefix or hyperparameters.method]
    shown = [*ALWAYS[hyperparameters.method], *varied]
    for name in dict.fromkeys(shown):
        value = getattr(hyperparameters, name)
        short = SHORT.get(name, name.removeprefix("with_"))
        if isinstance(value, bool):
            parts.append(short if value else f"no_{short}")
        else:
            parts.append(short + number(value).replace("/", "-"))
    return check_file_name("_".join(parts), "experiment")
