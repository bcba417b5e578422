"""Which experiment, checkpoint or LoRA scale to take, by a stated rule, with the figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdlab.experiment import Experiment
from sdlab.scores.intervals import Interval, apart
from sdlab.scores.scoring import score
from sdlab.scores.tally import Scores

BASE = "base"
RULE = (
    "highest likeness among those that follow the prompts as well as the base model: "
    "their interval of CLIP-T reaches the base's interval"
)


@dataclass(frozen=True)
class Recommendation:
    """The best of some experiments, checkpoints or LoRA scales.

    Args:
        name: The best.
        equals: Others whose likeness can't be told apart from its own by these images.
        sentence: It in words, with the figures.
        rule: By what it was chosen.
    """

    name: str
    equals: tuple[str, ...]
    sentence: str
    rule: str = RULE

    def __str__(self) -> str:
        return self.sentence


def recommend(
    experiments: Scores | Iterable[str | Experiment],
    *,
    root: str | Path = "experiments",
    results: str | Path = "results",
) -> Recommendation:
    """Chooses the best by the rule: highest likeness among those that still follow the prompts.

    Checkpoints (`LORA@step100`) and LoRA scales (`LORA@0.7`) that have images are compared likewise. Where no
    experiment follows the prompts as the base does, all take part, and the sentence says so. Images that were
    made with control don't: their control image differs, not their experiment.

    Args:
        experiments: Scores, or names that `score` takes; with `base` among them, since the rule needs it.
        root: The folder of all experiments.
        results: The folder of the images.

    Returns:
        The recommendation.

    Raises:
        ValueError: There is nothing to choose from.
    """
    scores = (
        experiments if isinstance(experiments, Scores) else score(experiments, root=root, results=results)
    )
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    names = scores.eligible
    if not names:
        raise ValueError(
            "A recommendation needs at least one experiment whose images have the rare word, got none. "
            "Score some: score(['base', 'dreambooth_v1', 'lora_rank4'])."
        )
    faithful = [name for name in names if as_faithful(fidelity, name)]
    compared = faithful or names
    best = max(compared, key=lambda name: likeness[name][0])
    equals = tuple(n for n in compared if n != best and not apart(likeness[n], likeness[best]))
    return Recommendation(best, equals, _sentence(scores, best, equals, faithful, names))


def as_faithful(fidelity: dict[str, Interval], name: str) -> bool:
    """Whether an experiment's images fit their prompts as well as the base's, as far as can be told.

    Args:
        fidelity: Experiment to CLIP-T.
        name: The experiment.

    Returns:
        True also where one of the two wasn't measured.
    """
    if BASE not in fidelity or name not in fidelity:
        return True
    return not apart(fidelity[name], fidelity[BASE]) or fidelity[name][0] > fidelity[BASE][0]


def _sentence(
    scores: Scores, best: str, equals: tuple[str, ...], faithful: list[str], names: list[str]
) -> str:
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    text = f"Take {best}: {scores.likeness} {_words(likeness[best])}"
    if best in fidelity:
        text += f", CLIP-T {_words(fidelity[best])}"
    if BASE in likeness and BASE in fidelity:
        text += f"; the base model has {_words(likeness[BASE])} and {_words(fidelity[BASE])}"
        if not apart(likeness[best], likeness[BASE]):
            text += ", so its likeness can't be told apart from the base model's"
    text += "."
    class_likeness = scores.of("PRES")
    if BASE in class_likeness and best in class_likeness:
        ours, before = class_likeness[best], class_likeness[BASE]
        if ours[1] > before[2]:
            text += f" Its class has become like the subject: PRES {_words(ours)}, base {_words(before)}."
    if not faithful:
        text += " None follows the prompts as well as the base model, so all were compared."
    elif dropped := [n for n in names if n not in faithful and likeness[n][0] > likeness[best][0]]:
        text += (
            f" More like the photos, but less faithful to the prompts than the base: {', '.join(dropped)}."
        )
    if equals:
        text += f" These images can't tell it apart from {', '.join(equals)}; more images per prompt may."
    return text


def _words(figure: Interval) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*figure)
