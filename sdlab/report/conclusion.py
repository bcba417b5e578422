"""The draft of the conclusion: sentences that follow from measured figures, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdlab.experiment import Experiment
from sdlab.methods import number
from sdlab.table import duration
from sdlab.table.captions import BASE
from sdlab.table.figures import measurement_text


def conclusion(
    experiments: Sequence[Experiment],
    rates: Sequence[Experiment],
    ranks: Sequence[Experiment],
    measurements: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Write a draft that says what was measured.

    Args:
        experiments: all of the report.
        rates: the sweep of the learning rate, by rate.
        ranks: the sweep of the rank, by rank.
        measurements: experiment to name and value of each measurement.

    Returns:
        Sentences. Where nothing was measured they say so and ask the student to look.
    """
    names = dict.fromkeys(name for values in measurements.values() for name in values)
    sentences = [_ranking(name, experiments, measurements) for name in names]
    for name in names:
        sentences += [
            _along(
                "learning rate",
                [(number(e.hyperparameters.learning_rate), e) for e in rates],
                name,
                measurements,
            ),
            _along(
                "rank", [(str(getattr(e.hyperparameters, "rank", "")), e) for e in ranks], name, measurements
            ),
        ]
    if not names:
        sentences.append(
            "Likeness and fidelity to the prompts were not measured here. Look at the tables and write "
            "which experiment is most like the photos, and which follows the prompts best."
        )
    sentences.append(_cost(experiments))
    return [sentence for sentence in sentences if sentence]


def mean(value: Any) -> float | None:
    """The number of a measurement, whether it comes with an interval or not."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0]
    return float(value) if isinstance(value, int | float) else None


def highest(
    name: str, experiments: Sequence[Experiment], measurements: Mapping[str, Any]
) -> Experiment | None:
    """The experiment with the highest value of a measurement."""
    known = [
        (value, one)
        for one in experiments
        if (value := mean(measurements.get(one.name, {}).get(name))) is not None
    ]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def _ranking(
    name: str, experiments: Sequence[Experiment], measurements: Mapping[str, Mapping[str, Any]]
) -> str:
    known = {
        key: values[name]
        for key, values in measurements.items()
        if mean(values.get(name)) is not None and key in {BASE, *(one.name for one in experiments)}
    }
    order = sorted((key for key in known if key != BASE), key=lambda key: -(mean(known[key]) or 0))
    if not order:
        return ""
    best = order[0]
    text = f"{_capital(name)} is highest in {best}, with {measurement_text(known[best])}"
    if len(order) > 1:
        text += f", and lowest in {order[-1]}, with {measurement_text(known[order[-1]])}"
    if BASE in known:
        text += f"; the base model has {measurement_text(known[BASE])}"
        if _overlap(known[best], known[BASE]):
            text += f". The intervals of {best} and the base model overlap: no difference is shown"
    return text + "."


def _overlap(one: Any, other: Any) -> bool:
    """Whether two measurements have intervals, and these share a value."""
    if any(not isinstance(value, Sequence) or isinstance(value, str) for value in (one, other)):
        return False
    return bool(one[1] <= other[2] and other[1] <= one[2])


def _along(
    what: str,
    points: Sequence[tuple[str, Experiment]],
    name: str,
    measurements: Mapping[str, Mapping[str, Any]],
) -> str:
    known = [(x, mean(measurements.get(one.name, {}).get(name))) for x, one in points]
    values = [(x, y) for x, y in known if y is not None]
    if len(values) < 2:
        return ""
    best = measurement_text(max(y for _, y in values))
    highest_at = [x for x, y in values if measurement_text(y) == best]
    if len(highest_at) == len(values):
        return f"Over the {what} of the LoRA, {name} is {best} throughout."
    steps = ", ".join(f"{measurement_text(y)} at {x}" for x, y in values)
    return f"Over the {what} of the LoRA, {name} is {steps}: highest at {' and '.join(highest_at)}."


def _cost(experiments: Sequence[Experiment]) -> str:
    parts = []
    for method, title in (("dreambooth", "DreamBooth"), ("lora", "LoRA")):
        records = [e.record for e in experiments if e.hyperparameters.method == method]
        done = [record for record in records if {"seconds", "size_mb", "trainable_parameters"} <= set(record)]
        if done:
            times, sizes = [r["seconds"] for r in done], [r["size_mb"] for r in done]
            weights = [r["trainable_parameters"] for r in done]
            parts.append(
                f"{title} trained {_span(weights, lambda v: f'{v:,.0f}')} weights in "
                f"{_span(times, duration)} and takes {_span(sizes, lambda v: f'{v:.3g} MB')} on disk"
            )
    return "; ".join(parts) + "." if parts else ""


def _span(values: Sequence[float], text: Any) -> str:
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low} to {high}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
