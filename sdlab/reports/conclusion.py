"""The draft of the conclusion: sentences that follow from measured figures, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sdlab.config import number
from sdlab.experiment import Experiment
from sdlab.scores import LIKENESS
from sdlab.tables import duration
from sdlab.tables.captions import BASE
from sdlab.tables.figures import measurement_text
from sdlab.words import Words

Measured = Mapping[str, Mapping[str, Any]]


def conclusion(
    experiments: Sequence[Experiment],
    rates: Sequence[Experiment],
    ranks: Sequence[Experiment],
    measurements: Measured,
    *,
    pair: Mapping[str, str] | None = None,
    controlled: Mapping[str, tuple[str, str]] | None = None,
    drift: Mapping[str, Any] | None = None,
    say: Words | None = None,
) -> list[str]:
    """Write a draft that says what was measured.

    Args:
        experiments: all of the report.
        rates: the sweep of the learning rate, by rate.
        ranks: the sweep of the rank, by rank.
        measurements: experiment to name and value of each measurement; the first is likeness.
        pair: "dreambooth" and "lora" to the experiments that are compared.
        controlled: folder of controlled images to its experiment and what controlled it.
        drift: experiment to what became of the class, and the base model's.
        say: the language, English where none is given.

    Returns:
        Sentences. Where nothing was measured they say so and ask the student to look.
    """
    say = say or Words()
    known = {BASE, *(one.name for one in experiments)}
    names = dict.fromkeys(name for key, values in measurements.items() if key in known for name in values)
    shown = {key: values for key, values in measurements.items() if key in known}
    sentences = [_ranking(name, shown, say) for name in names]
    for name in names:
        by_rate = [(number(one.hyperparameters.learning_rate), one) for one in rates]
        by_rank = [(str(getattr(one.hyperparameters, "rank", "")), one) for one in ranks]
        sentences.append(_along("what_learning_rate", by_rate, name, measurements, say))
        sentences.append(_along("what_rank", by_rank, name, measurements, say))
    first = next(iter(names), None)
    if first is None:
        sentences.append(say("nothing_measured"))
    else:
        sentences.append(_pair(first, pair or {}, measurements, say))
        sentences += _drift(drift or {}, [one.name for one in experiments], say)
        sentences += _control_cost(first, controlled or {}, measurements, say)
    sentences += _cost(experiments, say)
    return [sentence for sentence in sentences if sentence]


def mean(value: Any) -> float | None:
    """The number of a measurement, whether it comes with an interval or not."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0]
    return float(value) if isinstance(value, int | float) else None


def highest(name: str, experiments: Sequence[Experiment], measurements: Measured) -> Experiment | None:
    """The experiment with the highest value of a measurement."""
    known = [
        (value, one)
        for one in experiments
        if (value := mean(measurements.get(one.name, {}).get(name))) is not None
    ]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def measure_name(name: str, say: Words) -> str:
    """A measure in words: `likeness (CLIP-I)`."""
    if name in LIKENESS:
        return say("axis_likeness", name=say.name(name))
    return say("axis_fidelity") if name == "CLIP-T" else say.name(name)


def _ranking(name: str, measurements: Measured, say: Words) -> str:
    """Which is highest and lowest, and which the intervals don't tell apart from the highest."""
    known = {key: values[name] for key, values in measurements.items() if mean(values.get(name)) is not None}
    order = sorted((key for key in known if key != BASE), key=lambda key: -(mean(known[key]) or 0))
    if not order:
        return ""
    best = order[0]
    text = say("highest", name=_capital(measure_name(name, say)), best=best, value=_text(known[best], say))
    if len(order) > 1:
        text += say("lowest", worst=order[-1], value=_text(known[order[-1]], say))
    if BASE in known:
        text += say("base_has", value=_text(known[BASE], say))
    text += "."
    if BASE in known and _overlap(known[best], known[BASE]):
        text += " " + say("overlap_base", best=best)
    if alike := [key for key in order[1:] if _overlap(known[best], known[key])]:
        text += " " + say("overlap_others", best=best, names=", ".join(alike))
    return text


def _overlap(one: Any, other: Any) -> bool:
    """Whether two measurements have intervals, and these share a value."""
    if not (_has_interval(one) and _has_interval(other)):
        return False
    return bool(one[1] <= other[2] and other[1] <= one[2])


def _has_interval(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _along(
    what: str, points: Sequence[tuple[str, Experiment]], name: str, measurements: Measured, say: Words
) -> str:
    known = [(x, mean(measurements.get(one.name, {}).get(name))) for x, one in points]
    values = [(x, y) for x, y in known if y is not None]
    if len(values) < 2:
        return ""
    best = _text(max(y for _, y in values), say)
    highest_at = [x for x, y in values if _text(y, say) == best]
    words = {"what": say(what), "name": measure_name(name, say)}
    if len(highest_at) == len(values):
        return say("along_same", value=best, **words)
    steps = ", ".join(say("at", value=_text(y, say), x=x) for x, y in values)
    return say("along_steps", values=steps, best=_and(highest_at, say), **words)


def _pair(name: str, pair: Mapping[str, str], measurements: Measured, say: Words) -> str:
    """The best DreamBooth beside the best LoRA."""
    first, second = (measurements.get(pair.get(key, ""), {}).get(name) for key in ("dreambooth", "lora"))
    if mean(first) is None or mean(second) is None:
        return ""
    texts = {"first": _text(first, say), "second": _text(second, say)}
    text = say(
        "pair", name=measure_name(name, say), dreambooth=pair["dreambooth"], lora=pair["lora"], **texts
    )
    if not (_has_interval(first) and _has_interval(second)):
        return f"{text}."
    return text + say("pair_overlap" if _overlap(first, second) else "pair_apart")


def _drift(drift: Mapping[str, Any], names: Sequence[str], say: Words) -> Iterable[str]:
    """What became of the class, where images without the rare word were scored."""
    known = [name for name in names if name in drift]
    if BASE not in drift or not known:
        return
    values = "; ".join(say("has", name=name, value=_text(drift[name], say)) for name in known)
    yield say("class_same", values=values, base=_text(drift[BASE], say))
    if drifted := [name for name in known if drift[name][1] > drift[BASE][2]]:
        yield say("class_drifted", names=", ".join(drifted))


def _control_cost(
    name: str, controlled: Mapping[str, tuple[str, str]], measurements: Measured, say: Words
) -> Iterable[str]:
    """Likeness with and without control, of experiments that were scored both ways."""
    for folder, (experiment, control) in controlled.items():
        before, after = (measurements.get(key, {}).get(name) for key in (experiment, folder))
        if experiment == BASE or mean(before) is None or mean(after) is None:
            continue
        texts = {"before": _text(before, say), "after": _text(after, say)}
        words = {"control": control, "experiment": experiment, "measure": measure_name(name, say)}
        text = say("control_cost", **words, **texts)
        if not (_has_interval(before) and _has_interval(after)):
            yield f"{text}."
        else:
            yield text + say("pair_overlap" if _overlap(before, after) else "pair_apart")


def _cost(experiments: Sequence[Experiment], say: Words) -> Iterable[str]:
    for method, title in (("dreambooth", "DreamBooth"), ("lora", "LoRA")):
        records = [e.record for e in experiments if e.hyperparameters.method == method]
        done = [record for record in records if {"seconds", "size_mb", "trainable_parameters"} <= set(record)]
        if not done:
            continue
        spans = {
            "weights": _span([r["trainable_parameters"] for r in done], say.count, say),
            "times": _span([r["seconds"] for r in done], lambda v: duration(v, say.language), say),
            "sizes": _span([r["size_mb"] for r in done], lambda v: say("megabytes", value=f"{v:.3g}"), say),
        }
        yield say("cost", method=title, **spans) + "."


def _span(values: Sequence[float], text: Callable[[float], str], say: Words) -> str:
    low, high = text(min(values)), text(max(values))
    return low if low == high else say("span", low=low, high=high)


def _text(value: Any, say: Words) -> str:
    return measurement_text(value, say.language)


def _and(texts: Sequence[str], say: Words) -> str:
    return texts[0] if len(texts) == 1 else say("and", some=", ".join(texts[:-1]), last=texts[-1])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
