"""What a training did, said in the report's language from the figures that it recorded."""

from __future__ import annotations

from sdlab.config import LoRA, number
from sdlab.experiment import Experiment
from sdlab.words import Words


def said_of(experiment: Experiment, say: Words) -> str:
    """Says what a training did.

    Args:
        experiment: a finished one.
        say: the language. English is the sentence that the training itself left.

    Returns:
        A sentence; empty where the training recorded no figures.
    """
    record = experiment.record
    moved, change = record.get("weight_change"), record.get("prediction_change")
    if say.language == "en" or not moved or change is None:
        return str(record.get("diagnosis", "")) if say.language == "en" else ""
    from sdlab.training.diagnosis import LEARNED_NOTHING, OVER_TRAINED, ROSE, percent

    chosen = experiment.hyperparameters
    rate = chosen.learning_rate
    what = say("moved_rate", rate=number(rate))
    if isinstance(chosen, LoRA):
        what = say("moved_rank", rank=chosen.rank, rate=number(rate))
    found = say("moved", what=what, weights=percent(max(moved.values())), prediction=percent(change))
    if change < LEARNED_NOTHING:
        return say("moved_nothing", found=found, rate=number(rate * 10))
    if change > OVER_TRAINED:
        return say("moved_too_far", found=found, rate=number(rate / 10))
    held_out = {row["step"]: row["validation_loss"] for row in experiment.log() if "validation_loss" in row}
    if held_out and (last := list(held_out.values())[-1]) > held_out[0] * ROSE:
        return say(
            "learned_by_heart",
            found=found,
            first=f"{held_out[0]:.3g}",
            last=f"{last:.3g}",
            step=min(held_out, key=lambda step: held_out[step]),
            other=say("other_rate" if chosen.with_prior_preservation else "other_prior"),
        )
    return say("moved_usual", found=found)
