"""Which experiment, checkpoint or LoRA scale to take, by a stated rule, with the figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdlab.experiment import Experiment
from sdlab.scores.measures import Interval, apart
from sdlab.scores.scoring import score
from sdlab.scores.tallies import Scores
from sdlab.tables.figures import measurement_text
from sdlab.words import Words

BASE = "base"


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
    rule: str

    def __str__(self) -> str:
        return self.sentence


def recommend(
    experiments: Scores | Iterable[str | Experiment],
    *,
    language: str = "en",
    root: str | Path = "experiments",
    results: str | Path = "results",
) -> Recommendation:
    """Chooses the best by the rule: highest likeness among those that still follow the prompts.

    Checkpoints (`LORA@step100`) and LoRA scales (`LORA@0.7`) that have images are compared likewise. Where no
    experiment follows the prompts as the base does, all take part, and the sentence says so. Images that were
    made with control don't: their control image differs, not their experiment.

    Args:
        experiments: Scores, or names that `score` takes; with `base` among them, since the rule needs it.
        language: Of the sentence and the rule, "en" or "ru".
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
    names = scores.eligible
    if not names:
        raise ValueError(
            "A recommendation needs at least one experiment whose images have the rare word, got none. "
            "Score some: score(['base', 'dreambooth_v1', 'lora_rank4'])."
        )
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    faithful = [name for name in names if as_faithful(fidelity, name)]
    best = max(faithful or names, key=lambda name: likeness[name][0])
    equals = tuple(n for n in faithful or names if n != best and not apart(likeness[n], likeness[best]))
    more_alike = [n for n in names if n not in faithful and likeness[n][0] > likeness[best][0]]
    words = Words(language)
    sentences = [
        _choice(scores, best, words),
        _class(scores.of("PRES"), best, words),
        "" if faithful else words("take_stray"),
        words("take_unfaithful", names=", ".join(more_alike)) if faithful and more_alike else "",
        words("take_equals", names=", ".join(equals)) if equals else "",
    ]
    return Recommendation(best, equals, " ".join(filter(None, sentences)), words("take_rule"))


def as_faithful(fidelity: dict[str, Interval], name: str) -> bool:
    """Whether its images fit their prompts (CLIP-T) as well as the base's, or that can't be told."""
    if BASE not in fidelity or name not in fidelity:
        return True
    return not apart(fidelity[name], fidelity[BASE]) or fidelity[name][0] > fidelity[BASE][0]


def _choice(scores: Scores, best: str, words: Words) -> str:
    """`Take lora: CLIP-I …, CLIP-T …; the base model has … and ….`"""
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    text = words("take", name=best) + f" {words.name(scores.likeness)} {_text(likeness[best], words)}"
    if best in fidelity:
        text += f", CLIP-T {_text(fidelity[best], words)}"
    if BASE in likeness and BASE in fidelity:
        before = (_text(figures[BASE], words) for figures in (likeness, fidelity))
        text += words("take_base", values=words("and", some=next(before), last=next(before)))
        if not apart(likeness[best], likeness[BASE]):
            text += words("take_like_base")
    return text + "."


def _class(drift: dict[str, Interval], best: str, words: Words) -> str:
    """A warning where the class has become like the subject."""
    if BASE not in drift or best not in drift or drift[best][1] <= drift[BASE][2]:
        return ""
    figures = {key: _text(drift[name], words) for key, name in (("ours", best), ("base", BASE))}
    return words("take_drifted", **figures)


def _text(figure: Interval, words: Words) -> str:
    return measurement_text(figure, words.language, decimals=3)
