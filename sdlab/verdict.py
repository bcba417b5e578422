"""What the log and the changes that a training recorded mean, in a sentence of either language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from sdlab.config import Hyperparameters, LoRA, number
from sdlab.experiment import Experiment
from sdlab.words import Words

# Change of the prediction. On the mini model, LoRAs that learn nothing are at 0.01, good ones at 0.05 to 0.1,
# broken ones at 0.6 (docs/training.md).
LEARNED_NOTHING, OVER_TRAINED = 0.015, 0.3
ROSE = 1.005  # of the held-out photos' loss, beyond what rounding does
BROKE = 1.5  # who memorises photos is worse at others, but not by half


def verdict(change: float, held_out: Mapping[int, float]) -> str:
    """The key of words.toml: `moved_nothing`, `moved_too_far`, `memorised` or `moved_usual`.

    Args:
        change: relative change of the UNet's prediction.
        held_out: step to validation loss, from before the first step to the end; may be empty. One value
            before and one after are no course: three at least show that it rose.
    """
    if change < LEARNED_NOTHING:
        return "moved_nothing"
    losses = list(held_out.values())
    if change > OVER_TRAINED or (losses and losses[-1] > losses[0] * BROKE):
        return "moved_too_far"
    return "memorised" if len(losses) > 2 and losses[-1] > losses[0] * ROSE else "moved_usual"


def sentence(
    chosen: Hyperparameters,
    moved: Mapping[str, float],
    change: float,
    held_out: Mapping[int, float],
    language: str = "en",
) -> str:
    """Says what the changes mean, and what to try next where something is wrong.

    Args:
        moved: module group to the relative change of its weights.
        change, held_out: as `verdict` takes them.
    """
    words, rate = Words(language), number(chosen.learning_rate)
    what = words("moved_rate", rate=rate)
    if isinstance(chosen, LoRA):
        what = words("moved_rank", rank=chosen.rank, rate=rate)
    largest = percent(max(moved.values(), default=0.0))
    found = words("moved", what=what, weights=largest, prediction=percent(change))
    match key := verdict(change, held_out):
        case "moved_nothing":
            return words(key, found=found, rate=number(chosen.learning_rate * 10))
        case "moved_too_far":
            return words(key, found=found, rate=number(chosen.learning_rate / 10))
        case "memorised":
            first, *_, last = (f"{loss:.3g}" for loss in held_out.values())
            lowest = min(held_out, key=lambda step: held_out[step])
            other = words("other_rate" if chosen.with_prior_preservation else "other_prior")
            return words(key, found=found, first=first, last=last, step=lowest, other=other)
    return words(key, found=found)


def verdict_of(experiment: Experiment) -> str:
    """The verdict on a finished training; empty where it recorded no figures."""
    change = experiment.record.get("prediction_change")
    return "" if change is None else verdict(change, held_out_losses(experiment))


def held_out_losses(experiment: Experiment) -> dict[int, float]:
    """Step to the loss of the held-out photos, as far as it was logged."""
    return {row["step"]: row["validation_loss"] for row in experiment.log() if "validation_loss" in row}


def smoothed(losses: Iterable[float]) -> list[float]:
    """The exponential mean of losses, 0.15 of the newest, without the pull towards zero at the start.

    Source: Kingma and Ba 2014, arXiv:1412.6980, section 3 (bias correction).
    """
    return list(pd.Series(list(losses), dtype=float).ewm(alpha=0.15).mean())


def percent(share: float) -> str:
    """A share with two significant digits, such as `0.013 %`."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"
