"""The draft of the conclusion: a paragraph for each question of the homework, from measured figures only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdlab.config import number
from sdlab.experiment import Experiment
from sdlab.scores import apart, measure_name
from sdlab.tables import duration
from sdlab.tables.captions import BASE, METHOD_NAMES
from sdlab.tables.figures import measurement_text
from sdlab.verdict import verdict_of
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
    drift: Mapping[str, Any] | None = None,
    images: int = 0,
    words: Words | None = None,
) -> list[str]:
    """Write a draft that says what was measured, and at its end what these images can't tell.

    Args:
        experiments: all of the report.
        rates: the sweep of the learning rate, by rate.
        ranks: the sweep of the rank, by rank.
        measurements: experiment to name and value of each measurement; the first is likeness.
        pair: "dreambooth" and "lora" to the experiments that are compared.
        controlled: folder of controlled images to its experiment and what controlled it.
        drift: experiment to what became of the class, and the base model's.
        images: how many images of each experiment were measured.
        words: the language, English where none is given.

    Returns:
        Paragraphs. Where nothing was measured they say so and ask the student to look.
    """
    known = {BASE, *(one.name for one in experiments)}
    names = list(dict.fromkeys(name for key in measurements if key in known for name in measurements[key]))
    facts = _Facts(measurements, names, words or Words(), drift or {})
    learned = [] if rates or ranks else ["lora"]
    paragraphs = [
        *(_learned(facts, experiments, method) for method in ("dreambooth", *learned)),
        _rates(facts, rates),
        _ranks(facts, ranks),
        _pair(facts, experiments, pair or {}),
        _control(facts, controlled or {}),
        facts.words("nothing_measured") if not names else _limits(facts, images),
    ]
    return [" ".join(filter(None, sentences)) for sentences in map(_several, paragraphs) if any(sentences)]


def mean(value: Any) -> float | None:
    """The number of a measurement, whether it comes with an interval or not."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0]
    return float(value) if isinstance(value, int | float) else None


def highest(name: str, experiments: Iterable[Experiment], measurements: Measurements) -> Experiment | None:
    """The experiment with the highest value of a measurement."""
    values = {one: mean(measurements.get(one.name, {}).get(name)) for one in experiments}
    known = {one: value for one, value in values.items() if value is not None}
    return max(known, key=lambda one: known[one]) if known else None


@dataclass(frozen=True)
class _Facts:
    """What was measured, and what turned out to be undecided while the draft was written."""

    measurements: Measurements
    names: Sequence[str]
    words: Words
    drift: Mapping[str, Any]
    undecided: list[str] = field(default_factory=list)

    @property
    def likeness(self) -> str:
        """The first measurement."""
        return self.names[0] if self.names else ""

    @property
    def fidelity(self) -> str:
        """CLIP-T, or the second measurement; empty where there is none."""
        return "CLIP-T" if "CLIP-T" in self.names else next(iter(self.names[1:]), "")

    def value(self, experiment: str, name: str = "") -> Any:
        """A measurement of an experiment, or None."""
        return self.measurements.get(experiment, {}).get(name or self.likeness)

    def text(self, experiment: str, name: str = "") -> str:
        """Its number; the interval stands in the table of scores."""
        return measurement_text(mean(self.value(experiment, name)), self.words.language)

    def measure(self, name: str = "") -> str:
        """A measure in words."""
        return measure_name(name or self.likeness, self.words)

    def below(self, one: str, other: str, name: str = "") -> bool:
        """Whether a measurement is shown to be lower in one experiment than in another."""
        first, second = self.value(one, name), self.value(other, name)
        low, high = mean(first), mean(second)
        if low is None or high is None or low >= high:
            return False
        return not (_has_interval(first) and _has_interval(second)) or apart(first, second)

    def known(self, experiments: Iterable[Experiment]) -> list[Experiment]:
        """Those whose likeness was measured."""
        return [one for one in experiments if mean(self.value(one.name)) is not None]


def _learned(facts: _Facts, experiments: Sequence[Experiment], method: str) -> list[str]:
    """What a method learned, what it cost the class and the prompts, and what the training took."""
    words, mine = facts.words, [one for one in experiments if one.hyperparameters.method == method]
    best = highest(facts.likeness, mine, facts.measurements)
    if best is None:
        return [_cost(facts, mine, method)]
    title, others = METHOD_NAMES[method], [one.name for one in facts.known(mine) if one != best]
    texts = {"method": title, "measure": facts.measure(), "value": facts.text(best.name), "name": best.name}
    if facts.value(BASE) is None:
        said = [words("c_alone", **texts)]
    else:
        key = "c_learned" if facts.below(BASE, best.name) else "c_not_learned"
        said = [words(key, base=facts.text(BASE), **texts)]
    if others:
        values = [words("c_reaches", name=name, value=facts.text(name)) for name in others]
        said.append(words("c_others", values=", ".join(values)))
        alike = [name for name in others if not facts.below(name, best.name)]
        facts.undecided.extend(words("c_or", one=best.name, other=name) for name in alike)
    if memorised := [one.name for one in mine if verdict_of(one) == "memorised"]:
        said.append(words("c_memorised", names=_and(memorised, words)))
    class_kept = _class(facts, [one.name for one in mine])
    return [*said, _fidelity(facts, best.name), class_kept, _cost(facts, mine, method)]


def _fidelity(facts: _Facts, name: str) -> str:
    values = [mean(facts.value(one, facts.fidelity)) for one in (name, BASE)]
    if not facts.fidelity or None in values:
        return ""
    if not facts.below(name, BASE, facts.fidelity):
        return facts.words("c_faithful", name=name)
    texts = {"value": facts.text(name, facts.fidelity), "base": facts.text(BASE, facts.fidelity)}
    return facts.words("c_unfaithful", measure=facts.measure(facts.fidelity), name=name, **texts)


def _class(facts: _Facts, names: Sequence[str]) -> str:
    """What became of the class, where images without the rare word were scored."""
    known = [name for name in names if name in facts.drift]
    if BASE not in facts.drift or not known:
        return ""
    drifted = [name for name in known if facts.drift[name][1] > facts.drift[BASE][2]]
    key, names = ("c_class_drifted", drifted) if drifted else ("c_class_kept", known)
    return facts.words(key, names=_and(names, facts.words))


def _cost(facts: _Facts, experiments: Sequence[Experiment], method: str) -> str:
    words = facts.words
    records = [one.record for one in experiments]
    done = [record for record in records if {"seconds", "size_mb", "trainable_parameters"} <= set(record)]
    if not done:
        return ""
    return words(
        "c_cost",
        method=METHOD_NAMES[method],
        weights=_span([record["trainable_parameters"] for record in done], words.count, words),
        times=_span([record["seconds"] for record in done], lambda v: duration(v, words.language), words),
        sizes=_span([record["size_mb"] for record in done], lambda v: _megabytes(v, words), words),
    )


def _rates(facts: _Facts, rates: Sequence[Experiment]) -> list[str]:
    """Which learning rate is best, and what the rates below and above it look like."""
    known, words = facts.known(rates), facts.words
    if len(known) < 2:
        return []
    at = {one.name: number(one.hyperparameters.learning_rate) for one in known}
    best = highest(facts.likeness, known, facts.measurements) or known[0]
    place = known.index(best)
    texts = {"measure": facts.measure(), "value": facts.text(best.name), "best": at[best.name]}
    said = [words("c_rate_best", rates=_and(list(at.values()), words), **texts)]
    low, high = known[0].name, known[-1].name
    if facts.below(low, best.name):
        key = "c_rate_low" if facts.below(BASE, low) else "c_rate_nothing"
        said.append(words(key, rate=at[low], value=facts.text(low)))
    if facts.below(high, best.name):
        said.append(words("c_rate_high", rate=at[high], value=facts.text(high)))
        if facts.fidelity and facts.below(high, best.name, facts.fidelity):
            left = facts.text(high, facts.fidelity)
            said.append(words("c_rate_broken", measure=facts.measure(facts.fidelity), value=left))
    if place in (0, len(known) - 1):
        said.append(words("c_rate_edge_high" if place else "c_rate_edge_low", best=at[best.name]))
    facts.undecided.extend(
        words("c_or_rates", one=at[best.name], other=at[one.name])
        for one in known
        if one != best and not facts.below(one.name, best.name)
    )
    return said


def _ranks(facts: _Facts, ranks: Sequence[Experiment]) -> list[str]:
    """Whether the rank matters."""
    known, words = facts.known(ranks), facts.words
    if len(known) < 2:
        return []
    at = {one.name: str(getattr(one.hyperparameters, "rank", "")) for one in known}
    best = highest(facts.likeness, known, facts.measurements) or known[0]
    worst = min(known, key=lambda one: mean(facts.value(one.name)) or 0.0)
    texts = {"measure": facts.measure(), "ranks": _and(list(at.values()), words)}
    ends = {"low": facts.text(worst.name), "high": facts.text(best.name)}
    sizes = [float(one.record["size_mb"]) for one in known if "size_mb" in one.record]
    grows = ""
    if len(sizes) == len(known):
        grows = words("c_rank_size", low=_megabytes(min(sizes), words), high=_megabytes(max(sizes), words))
    if not facts.below(worst.name, best.name):
        return [words("c_rank_same", **texts, **ends), grows]
    return [words("c_rank_best", best=at[best.name], worst=at[worst.name], **texts, **ends), grows]


def _pair(facts: _Facts, experiments: Sequence[Experiment], pair: Mapping[str, str]) -> list[str]:
    """The best DreamBooth beside the best LoRA: likeness, and what each takes."""
    names, words = [pair.get(key, "") for key in ("dreambooth", "lora")], facts.words
    if any(mean(facts.value(name)) is None for name in names):
        return []
    texts = {"measure": facts.measure(), "dreambooth": names[0], "lora": names[1]}
    values = {"first": facts.text(names[0]), "second": facts.text(names[1])}
    key = "c_pair_same"
    if facts.below(names[0], names[1]):
        key = "c_pair_lora"
    elif facts.below(names[1], names[0]):
        key = "c_pair_dreambooth"
    records = [one.record for name in names for one in experiments if one.name == name]
    cost = ""
    if len(records) == 2 and all({"size_mb", "seconds"} <= set(record) for record in records):
        sizes = [_megabytes(record["size_mb"], words) for record in records]
        times = [duration(record["seconds"], words.language) for record in records]
        cost = words("c_pair_cost", size=sizes[1], other_size=sizes[0], time=times[1], other_time=times[0])
    return [words(key, **texts, **values), cost]


def _control(facts: _Facts, controlled: Mapping[str, tuple[str, str]]) -> list[str]:
    """Likeness with and without control, of experiments that were scored both ways."""
    words = facts.words
    changes: list[str] = []
    lower: list[str] = []
    scored = {folder: one for folder, one in controlled.items() if mean(facts.value(folder)) is not None}
    for experiment in dict.fromkeys(name for name, _ in scored.values()):
        if experiment == BASE or mean(facts.value(experiment)) is None:
            continue
        mine = {folder: control for folder, (name, control) in scored.items() if name == experiment}
        values = [words("c_through", what=facts.text(folder), control=mine[folder]) for folder in mine]
        texts = {"name": experiment, "before": facts.text(experiment), "values": _and(values, words)}
        changes.append(words("c_control_change", **texts))
        lower += [
            words("c_through", what=experiment, control=control)
            for folder, control in mine.items()
            if facts.below(folder, experiment)
        ]
    if not changes:
        return []
    shown = words("c_control_lower", names=_and(lower, words)) if lower else words("c_control_free")
    cost = words("c_control_cost", measure=facts.measure(), changes="; ".join(changes))
    return [words("c_control"), cost, shown]


def _limits(facts: _Facts, images: int) -> list[str]:
    """What these figures can't tell, once for all."""
    words = facts.words
    said = [words("c_limits", images=images) if images else words("c_limits_any")]
    if facts.undecided:
        said.append(words("c_undecided", pairs="; ".join(dict.fromkeys(facts.undecided))))
    return said


def _several(paragraph: str | list[str]) -> list[str]:
    return [paragraph] if isinstance(paragraph, str) else paragraph


def _has_interval(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _megabytes(value: float, words: Words) -> str:
    return words("megabytes", value=f"{value:.3g}")


def _span(values: Sequence[float], text: Callable[[float], str], words: Words) -> str:
    low, high = text(min(values)), text(max(values))
    return low if low == high else words("span", low=low, high=high)


def _and(texts: Sequence[str], words: Words) -> str:
    return texts[0] if len(texts) == 1 else words("and", some=", ".join(texts[:-1]), last=texts[-1])
