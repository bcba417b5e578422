"""The draft of the conclusion: a paragraph for each question of the homework, from measured figures only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab.config import number
from sdlab.experiment import Experiment
from sdlab.scores import apart, measure_name
from sdlab.tables.figures import BASE, METHOD_NAMES, RECORDED, differing, measurement_text, written
from sdlab.templates import render
from sdlab.words import Words

Measurements = Mapping[str, Mapping[str, Any]]


def conclusion(
    experiments: Sequence[Experiment],
    rates: Sequence[Experiment],
    ranks: Sequence[Experiment],
    measurements: Measurements,
    *,
    pair: Mapping[str, str] | None = None,
    controlled: Mapping[str, tuple[str, str]] | None = None,
    kinds: Sequence[str] = (),
    drift: Mapping[str, Any] | None = None,
    images: str = "",
    words: Words | None = None,
) -> list[str]:
    """Writes paragraphs that say what was measured, and at their end what these images can't tell.

    Args:
        measurements: experiment to name and value of each; the first is likeness.
        pair: "dreambooth" and "lora" to the experiments that are compared.
        controlled: folder of controlled images to its experiment and what controlled it.
        kinds: the kinds of control that were used.
        drift: experiment to what became of the class, and the base model's.
        images: how many images of each experiment were measured, such as `20` or `5 to 20`.
    """
    words = words or Words()
    named = [name for one in (BASE, *(e.name for e in experiments)) for name in measurements.get(one, {})]
    first, second, *_ = [*dict.fromkeys(named), "", ""]
    likeness = Measure.of(first, measurements, words)
    through: dict[str, dict[str, str]] = {}
    for folder, (name, control) in (controlled or {}).items():
        if name != BASE and {name, folder} <= set(likeness.values):
            through.setdefault(control, {})[name] = folder
    changed = Measure("PRES", drift or {}, words.language)
    known = [name for name in changed.values if BASE in changed.values and name != BASE]
    methods = [method for method in METHOD_NAMES if method != "lora" or not (rates or ranks)]
    given = {one.name: one.hyperparameters.as_dict() for one in experiments}
    draft = render(
        "conclusion.txt",
        BASE=BASE,
        words=words,
        listed=words.listed,
        unlike=lambda one, other: _unlike(given[one], given[other], words),
        measured=bool(named),
        likeness=likeness,
        fidelity=Measure.of("CLIP-T" if "CLIP-T" in named else second, measurements, words),
        methods=[_method(method, experiments, words) for method in methods],
        drift=changed,
        drifted=[name for name in known if changed.below(BASE, name)],
        kept=[name for name in known if not changed.below(BASE, name)],
        rates=_values(rates, "learning_rate", likeness),
        ranks=_values(ranks, "rank", likeness),
        rank_sizes=_costs(ranks, words).get("sizes") if _grow(ranks) else "",
        **_pair(pair or {}, experiments, words),
        kinds=kinds,
        through=through,
        images=images,
        undecided=[],
    )
    paragraphs = [" ".join(paragraph.split("\n")).strip() for paragraph in draft.split("\n\n")]
    return [paragraph for paragraph in paragraphs if paragraph]


def mean(value: Any) -> float | None:
    """The number of a measurement, whether it comes with an interval or not."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0]
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


@dataclass(frozen=True)
class Measure:
    """One measure, and its value in each experiment that has one."""

    title: str
    values: Mapping[str, Any]
    language: str

    @classmethod
    def of(cls, name: str, measurements: Measurements, words: Words) -> Measure:
        """Takes one measure out of all measurements."""
        values = {
            one: found[name] for one, found in measurements.items() if mean(found.get(name)) is not None
        }
        return cls(measure_name(name, words), values, words.language)

    def text(self, one: str) -> str:
        """Its number; the interval stands in the table of scores."""
        return measurement_text(mean(self.values.get(one)), self.language)

    def below(self, one: str, other: str) -> bool:
        """Whether it is shown to be lower in one experiment than in another."""
        if one not in self.values or other not in self.values:
            return False
        first, second = self.values[one], self.values[other]
        lower = (mean(first) or 0.0) < (mean(second) or 0.0)
        plain = isinstance(first, int | float) or isinstance(second, int | float)
        return lower and (plain or apart(first, second))

    def lower(self, names: Iterable[str], than: str) -> list[str]:
        """Those that are shown to be below another."""
        return [name for name in names if self.below(name, than)]

    def alike(self, best: str, names: Iterable[str]) -> list[str]:
        """Those that aren't shown to be below the best."""
        return [name for name in names if name != best and not self.below(name, best)]

    def ranked(self, names: Iterable[str]) -> list[str]:
        """Those that were measured, the highest first."""
        known = [name for name in names if name in self.values]
        return sorted(known, key=lambda name: -(mean(self.values[name]) or 0.0))


def _values(experiments: Iterable[Experiment], name: str, likeness: Measure) -> dict[str, str]:
    """Measured experiment to its value of a hyperparameter."""
    known = [one for one in experiments if one.name in likeness.values]
    return {one.name: number(getattr(one.hyperparameters, name)) for one in known}


def _of(experiments: Iterable[Experiment], method: str) -> list[Experiment]:
    return [one for one in experiments if one.hyperparameters.method == method]


def _method(method: str, experiments: Iterable[Experiment], words: Words) -> dict[str, Any]:
    """A method's experiments, and what they took."""
    mine = _of(experiments, method)
    names = [one.name for one in mine]
    return {"title": METHOD_NAMES[method], "names": names, "costs": _costs(mine, words)}


def _pair(pair: Mapping[str, str], experiments: Iterable[Experiment], words: Words) -> dict[str, Any]:
    """The compared DreamBooth and LoRA, and what they took."""
    mine, (dreambooth, lora) = {one.name: one for one in experiments}, (pair.get(m, "") for m in METHOD_NAMES)
    below = Path(mine[lora].hyperparameters.pretrained_model_name_or_path).name if lora in mine else ""
    return {
        "dreambooth": dreambooth,
        "lora": lora,
        "lora_base": below if below in mine else "",
        "took": {name: costs for name, one in mine.items() if (costs := _costs([one], words))},
    }


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any], words: Words) -> str:
    """Its hyperparameters that aren't another's."""
    return ", ".join(written(name, one[name], words.language) for name in differing([one, other]))


def _grow(experiments: Iterable[Experiment]) -> bool:
    """Whether their files differ in size."""
    return len({one.record.get("size_mb") for one in experiments}) > 1


def _costs(experiments: Sequence[Experiment], words: Words) -> dict[str, Any]:
    """How long they were trained, how many together, and how large they are on disk, from least to most."""
    spans = {}
    for name, column in {"times": "time", "sizes": "size"}.items():
        key, write = RECORDED[column]
        if not (values := [v for one in experiments if isinstance(v := one.record.get(key), int | float)]):
            return {}
        low, high = write(min(values), words), write(max(values), words)
        spans[name] = low if low == high else words("span", low=low, high=high)
    return spans | {"together": max(one.record.get("in_one_pass", 1) for one in experiments)}
