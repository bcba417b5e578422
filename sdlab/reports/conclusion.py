"""The draft of the conclusion: a paragraph for each question of the homework, from measured figures only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdlab.config import number
from sdlab.experiment import Experiment
from sdlab.scores import apart, measure_name
from sdlab.tables import duration
from sdlab.tables.captions import BASE, METHOD_NAMES
from sdlab.tables.figures import RECORDED, measurement_text, size_text
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
    words, mine = words or Words(), {BASE, *(one.name for one in experiments)}
    names = list(dict.fromkeys(name for key in measurements if key in mine for name in measurements[key]))
    likeness, fidelity, *_ = [*names, "", ""]
    fidelity = "CLIP-T" if "CLIP-T" in names else fidelity
    measures = {name: Measure.of(name, measurements, words) for name in (likeness, fidelity)}
    draft = _Draft(words, experiments, measures[likeness], measures[fidelity], drift or {})
    paragraphs = [
        *(draft.learned(method) for method in METHOD_NAMES if method != "lora" or not (rates or ranks)),
        draft.rates(rates),
        draft.ranks(ranks),
        draft.pair(pair or {}),
        draft.control(controlled or {}),
        draft.limits(images) if names else [words("nothing_measured")],
    ]
    return [" ".join(filter(None, sentences)) for sentences in paragraphs if any(sentences)]


def mean(value: Any) -> float | None:
    """The number of a measurement, whether it comes with an interval or not."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0]
    return float(value) if isinstance(value, int | float) else None


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

    def ranked(self, names: Iterable[str]) -> list[str]:
        """Those that were measured, the highest first."""
        known = [name for name in names if name in self.values]
        return sorted(known, key=lambda name: -(mean(self.values[name]) or 0.0))


@dataclass(frozen=True)
class _Draft:
    """What was measured, and what turned out to be undecided while the draft was written."""

    words: Words
    experiments: Sequence[Experiment]
    likeness: Measure
    fidelity: Measure
    drift: Mapping[str, Any]
    undecided: list[str] = field(default_factory=list)

    def learned(self, method: str) -> list[str]:
        """What a method learned, what it cost the class and the prompts, and what the training took."""
        words, likeness, fidelity = self.words, self.likeness, self.fidelity
        mine = [one for one in self.experiments if one.hyperparameters.method == method]
        names, cost = [one.name for one in mine], self._cost(method, mine)
        if not (ranked := likeness.ranked(names)):
            return [cost]
        best = ranked[0]
        key = "c_learned" if likeness.below(BASE, best) else "c_not_learned"
        texts = {"method": METHOD_NAMES[method], "measure": likeness.title, "value": likeness.text(best)}
        key = key if BASE in likeness.values else "c_alone"
        said = [words(key, name=best, base=likeness.text(BASE), **texts)]
        if others := [name for name in names if name in ranked[1:]]:
            values = [words("c_reaches", name=name, value=likeness.text(name)) for name in others]
            said.append(words("c_others", values=", ".join(values)))
            alike = [name for name in others if not likeness.below(name, best)]
            self.undecided.extend(words("c_or", one=best, other=name) for name in alike)
        if memorised := [one.name for one in mine if verdict_of(one) == "memorised"]:
            said.append(words("c_memorised", names=_and(memorised, words)))
        if {best, BASE} <= set(fidelity.values):
            texts = {"measure": fidelity.title, "value": fidelity.text(best), "base": fidelity.text(BASE)}
            key = "c_unfaithful" if fidelity.below(best, BASE) else "c_faithful"
            said.append(words(key, name=best, **texts))
        if known := [name for name in names if name in self.drift and BASE in self.drift]:
            drifted = [name for name in known if self.drift[name][1] > self.drift[BASE][2]]
            key = "c_class_drifted" if drifted else "c_class_kept"
            said.append(words(key, names=_and(drifted or known, words)))
        return [*said, cost]

    def _cost(self, method: str, experiments: Iterable[Experiment]) -> str:
        """How many weights a method trains, how long, and how large they are on disk."""
        columns = {"weights": "trained weights", "times": "time", "sizes": "size"}
        spans = {"method": METHOD_NAMES[method]}
        for name, (key, write) in ((name, RECORDED[column]) for name, column in columns.items()):
            if not (values := [one.record[key] for one in experiments if key in one.record]):
                return ""
            low, high = write(min(values), self.words), write(max(values), self.words)
            spans[name] = low if low == high else self.words("span", low=low, high=high)
        return self.words("c_cost", **spans)

    def rates(self, rates: Sequence[Experiment]) -> list[str]:
        """Which learning rate is best, and what the rates below and above it look like."""
        words, likeness, fidelity = self.words, self.likeness, self.fidelity
        at = {o.name: number(o.hyperparameters.learning_rate) for o in rates if o.name in likeness.values}
        if len(at) < 2:
            return []
        (low, *_, high), best = at, likeness.ranked(at)[0]
        texts = {"rates": _and(list(at.values()), words), "best": at[best]}
        said = [words("c_rate_best", measure=likeness.title, value=likeness.text(best), **texts)]
        if likeness.below(low, best):
            key = "c_rate_low" if likeness.below(BASE, low) else "c_rate_nothing"
            said.append(words(key, rate=at[low], value=likeness.text(low)))
        if likeness.below(high, best):
            said.append(words("c_rate_high", rate=at[high], value=likeness.text(high)))
            if fidelity.below(high, best):
                said.append(words("c_rate_broken", measure=fidelity.title, value=fidelity.text(high)))
        if best in (low, high):
            said.append(words("c_rate_edge_low" if best == low else "c_rate_edge_high", best=at[best]))
        alike = [name for name in at if name != best and not likeness.below(name, best)]
        self.undecided.extend(words("c_or_rates", one=at[best], other=at[name]) for name in alike)
        return said

    def ranks(self, ranks: Sequence[Experiment]) -> list[str]:
        """Whether the rank matters."""
        words, likeness = self.words, self.likeness
        known = {one.name: one for one in ranks if one.name in likeness.values}
        if len(known) < 2:
            return []
        at = {name: str(getattr(one.hyperparameters, "rank", "")) for name, one in known.items()}
        best, *_, worst = likeness.ranked(at)
        texts = {"measure": likeness.title, "ranks": _and(list(at.values()), words)}
        texts |= {"best": at[best], "high": likeness.text(best)}
        texts |= {"worst": at[worst], "low": likeness.text(worst)}
        said = [words("c_rank_best" if likeness.below(worst, best) else "c_rank_same", **texts)]
        sizes = [float(one.record["size_mb"]) for one in known.values() if "size_mb" in one.record]
        if len(sizes) == len(known):
            ends = {"low": size_text(min(sizes), words), "high": size_text(max(sizes), words)}
            said.append(words("c_rank_size", **ends))
        return said

    def pair(self, pair: Mapping[str, str]) -> list[str]:
        """The best DreamBooth beside the best LoRA: likeness, and what each takes."""
        words, likeness = self.words, self.likeness
        dreambooth, lora = (pair.get(method, "") for method in METHOD_NAMES)
        if not {dreambooth, lora} <= set(likeness.values):
            return []
        lower = [
            name for name, other in ((dreambooth, lora), (lora, dreambooth)) if likeness.below(name, other)
        ]
        key = {(): "c_pair_same", (dreambooth,): "c_pair_lora"}.get(tuple(lower), "c_pair_dreambooth")
        texts = {"measure": likeness.title, "dreambooth": dreambooth, "lora": lora}
        said = [words(key, first=likeness.text(dreambooth), second=likeness.text(lora), **texts)]
        records = {one.name: one.record for one in self.experiments}
        other, mine = (records.get(name, {}) for name in (dreambooth, lora))
        if all({"size_mb", "seconds"} <= set(record) for record in (other, mine)):
            sizes = {
                "size": size_text(mine["size_mb"], words),
                "other_size": size_text(other["size_mb"], words),
            }
            times = [duration(record["seconds"], words.language) for record in (mine, other)]
            said.append(words("c_pair_cost", time=times[0], other_time=times[1], **sizes))
        return said

    def control(self, controlled: Mapping[str, tuple[str, str]]) -> list[str]:
        """Likeness with and without control, of experiments that were scored both ways."""
        words, likeness = self.words, self.likeness
        folders: dict[str, list[str]] = {}
        for folder, (name, _) in controlled.items():
            if name != BASE and {folder, name} <= set(likeness.values):
                folders.setdefault(name, []).append(folder)
        if not folders:
            return []

        def through(what: str, folder: str) -> str:
            return words("c_through", what=what, control=controlled[folder][1])

        changes, lower = [], []
        for name, mine in folders.items():
            values = _and([through(likeness.text(folder), folder) for folder in mine], words)
            changes.append(words("c_control_change", name=name, before=likeness.text(name), values=values))
            lower += [through(name, folder) for folder in mine if likeness.below(folder, name)]
        cost = words("c_control_cost", measure=likeness.title, changes="; ".join(changes))
        shown = words("c_control_lower", names=_and(lower, words)) if lower else words("c_control_free")
        return [words("c_control"), cost, shown]

    def limits(self, images: int) -> list[str]:
        """What these figures can't tell, once for all."""
        said = [self.words("c_limits", images=images) if images else self.words("c_limits_any")]
        if self.undecided:
            said.append(self.words("c_undecided", pairs="; ".join(dict.fromkeys(self.undecided))))
        return said


def _and(texts: Sequence[str], words: Words) -> str:
    return texts[0] if len(texts) == 1 else words("and", some=", ".join(texts[:-1]), last=texts[-1])
