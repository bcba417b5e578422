"""How experiments and their hyperparameters are named under pictures and in a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab.config import BESIDE_TRAINING, number
from sdlab.experiment import Experiment
from sdlab.words import Words

BASE = "base"
METHOD_NAMES = {"dreambooth": "DreamBooth", "lora": "LoRA"}
NOT_SHOWN = BESIDE_TRAINING | {"instance_data_dir", "class_data_dir", "method"}


@dataclass(frozen=True)
class Heading:
    """Name of a row or column with smaller lines under it; `text` is long and may be cut short."""

    title: str
    details: tuple[str, ...] = ()
    text: str = ""


def captions(names: Sequence[str], root: str | Path = "experiments", language: str = "en") -> list[Heading]:
    """Headings of experiments: method, learning rate, rank, and every hyperparameter that differs.

    One that isn't on this disk has no details.
    """
    words = Words(language)
    known = {name: hyperparameters_of(name, root) for name in names if name != BASE}
    headings = []
    for name in names:
        if name == BASE:
            headings.append(Heading(words("base"), (words("not_trained"),)))
            continue
        mine = known[name]
        peers = [values for values in known.values() if values.get("method") == mine.get("method")]
        shown = {"learning_rate", "rank", *differing(peers)}
        details = [written(key, value, language) for key, value in mine.items() if key in shown]
        method = METHOD_NAMES.get(mine.get("method", ""))
        headings.append(Heading(name, (method, *details) if method else tuple(details)))
    return headings


def differing(known: Iterable[Mapping[str, Any]]) -> list[str]:
    """Hyperparameters that aren't the same in all that have them."""
    values: dict[str, set[str]] = {}
    for name, value in (item for one in known for item in one.items()):
        values.setdefault(name, set()).add(str(value))
    return [name for name, found in values.items() if len(found) > 1 and name not in NOT_SHOWN]


def hyperparameters_of(name: str, root: str | Path = "experiments") -> dict[str, Any]:
    """Method and hyperparameters of an experiment, or nothing where it isn't on this disk."""
    if not (Path(root) / name / "experiment.json").is_file():
        return {}
    values = Experiment(name, Path(root)).hyperparameters.as_dict()
    base = "pretrained_model_name_or_path"
    return values | {base: plain_place(values[base])}


def plain_place(text: str) -> str:
    """A folder's or model's name without the path on this machine."""
    return Path(text).name if Path(text).is_absolute() or text.startswith("~") else text


def written(key: str, value: Any, language: str = "en") -> str:
    """One hyperparameter as a reader writes it: `learning_rate 2e-4`, `no prior preservation`."""
    if isinstance(value, bool):
        words = key.removeprefix("with_").replace("_", " ")
        return words if value else Words(language)("without", what=words)
    return f"{key} {number(value)}"
