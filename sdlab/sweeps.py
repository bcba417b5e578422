"""Grids of experiments: names made from what varies, finished ones skipped."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, TextIO

from sdlab.config import DreamBooth, LoRA, number, unknown
from sdlab.experiment import Experiment
from sdlab.files import DiskFull
from sdlab.prompts import check_file_name
from sdlab.training import train

SHORT = {
    "learning_rate": "lr",
    "rank": "rank",
    "prior_loss_weight": "prior",
    "max_train_steps": "steps",
    "lora_alpha": "alpha",
}
# What a name always says, so that a sweep of the rate and a sweep of the rank share their common experiment.
ALWAYS = {"lora": ("rank", "learning_rate"), "dreambooth": ("learning_rate",)}


def sweep(
    hyperparameters: DreamBooth | LoRA,
    *,
    prefix: str | None = None,
    root: str | Path = "experiments",
    progress: bool = True,
    **grid: Sequence[Any],
) -> list[Experiment]:
    """Train one experiment for every combination of some hyperparameters.

    Finished experiments are not trained again, and one that fails doesn't stop the others.

    Args:
        hyperparameters: what all of them have in common.
        prefix: beginning of the names; None takes the method: `lora_rank4_lr2e-4`.
        root: folder of the experiments.
        progress: show progress bars and say what is done.
        **grid: hyperparameters with the values to try, such as `learning_rate=[2e-5, 2e-4]`.

    Returns:
        The experiments that are there afterwards, in the order of the grid, failed ones too.

    Raises:
        ValueError: an unknown hyperparameter, a bad value, or every experiment failed.
        DiskFull: there is no room left.
        KeyboardInterrupt: it was interrupted; the same call goes on.

    Taught in: notebooks/03
    """
    planned = plan(hyperparameters, prefix=prefix, **grid)
    done: list[Experiment] = []
    failures: list[str] = []
    for index, (name, chosen) in enumerate(planned.items(), 1):
        if progress:
            print(f"  {index} of {len(planned)}: {name}", flush=True)
        try:
            with saying_once():
                experiment = train(name, chosen, root=root, progress=progress)
        except DiskFull:
            raise
        except Exception as error:  # whatever one of them died of, the others are worth training
            failures.append(f"{name}: {error}")
            print(f"{name} failed: {error}", flush=True)
            if Experiment(name, Path(root)).status != "failed":
                continue  # what is there under this name is something else
            experiment = Experiment(name, Path(root))
        if experiment.status == "stopped":
            raise KeyboardInterrupt(f"{name} was interrupted. The same command goes on from there.")
        done.append(experiment)
    if len(failures) == len(planned):
        raise ValueError("every experiment of the sweep failed:\n  " + "\n  ".join(failures))
    return done


@contextmanager
def saying_once() -> Iterator[None]:
    """Leaves out what an experiment prints and another has printed before: the device, the optimizer …"""
    with redirect_stdout(_Once(sys.stdout)):
        yield


class _Once(io.TextIOBase):
    said: ClassVar[set[str]] = set()

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def write(self, text: str) -> int:
        # a line is "name: what it says", and print writes its line break by itself
        words = text.partition(": ")[2]
        if words and words in self.said:
            self.skipping = True
        elif not (text == "\n" and self.skipping):
            self.said.update([words] if words else [])
            self.skipping = False
            self.out.write(text)
        else:
            self.skipping = False
        return len(text)

    skipping = False

    def flush(self) -> None:
        self.out.flush()


def plan(
    hyperparameters: DreamBooth | LoRA, *, prefix: str | None = None, **grid: Sequence[Any]
) -> dict[str, DreamBooth | LoRA]:
    """Names and hyperparameters of a sweep's experiments, without training them.

    Args:
        hyperparameters: what all of them have in common.
        prefix: beginning of the names; None takes the method.
        **grid: hyperparameters with the values to try.

    Returns:
        Name to hyperparameters, in the order of the grid.

    Raises:
        ValueError: an unknown hyperparameter, no values, or a bad value.
    """
    known = [field.name for field in fields(hyperparameters)]
    for name, values in grid.items():
        if name not in known:
            raise ValueError(unknown(f"hyperparameter of {hyperparameters.method}", name, known))
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name} needs a list of values, got {values!r}. Write {name}=[{values!r}].")
    planned: dict[str, DreamBooth | LoRA] = {}
    for values in itertools.product(*grid.values()):
        chosen = replace(hyperparameters, **dict(zip(grid, values, strict=True)))
        planned[experiment_name(chosen, list(grid), prefix)] = chosen
    return planned


def experiment_name(
    hyperparameters: DreamBooth | LoRA, varied: Iterable[str] = (), prefix: str | None = None
) -> str:
    """A name made from what varies: `lora_rank4_lr2e-4`.

    Args:
        hyperparameters: of the experiment.
        varied: hyperparameters that the name shall give, besides rank and learning rate.
        prefix: beginning of the name; None takes the method.

    Returns:
        A name that can be a folder's.

    Raises:
        ValueError: the prefix or a value can't be part of a file name.
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
