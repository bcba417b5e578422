"""Hyperparameters as the report shows them: flags that experiments share, and which of them make a sweep."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from sdlab.config import PRIOR, number
from sdlab.experiment import Experiment
from sdlab.tables.figures import NOT_SHOWN, plain_place

# The homework's command has these, whatever their value.
ALWAYS = PRIOR | {
    "pretrained_model_name_or_path", "instance_prompt", "resolution", "train_batch_size",
    "gradient_accumulation_steps", "learning_rate", "lr_scheduler", "lr_warmup_steps", "max_train_steps",
    "mixed_precision", "rank", "seed",
}  # fmt: skip


def sweep_over(name: str, experiments: Sequence[Experiment]) -> list[Experiment]:
    """The largest group of two at least that differ in one hyperparameter only, ordered by it.

    Of several with the same value it has the first.
    """
    groups: dict[str, dict[float, Experiment]] = {}
    for one in experiments:
        values = {k: v for k, v in one.hyperparameters.as_dict().items() if k not in NOT_SHOWN}
        value = float(values.pop(name))
        groups.setdefault(str(values), {}).setdefault(value, one)
    largest = max(groups.values(), key=len, default={})
    return [one for _, one in sorted(largest.items())] if len(largest) > 1 else []


def shared_flags(experiments: Sequence[Experiment]) -> str:
    """Hyperparameters that all have in common as lines of flags: the homework's, and what isn't default."""
    known = [one.hyperparameters.as_dict() for one in experiments]
    usual = {name: value for one in experiments for name, value in vars(type(one.hyperparameters)()).items()}
    hidden = NOT_SHOWN if any(values["with_prior_preservation"] for values in known) else NOT_SHOWN | PRIOR
    flags = []
    for name, value in known[0].items():
        shared = all(other.get(name) == value for other in known)
        if name in hidden or not shared or (name not in ALWAYS and value == usual[name]):
            continue
        text = plain_place(value) if isinstance(value, str) else number(value)
        text = f'"{text}"' if " " in text else text
        switch = {True: f"--{name}", False: f"--no_{name}"}
        flags.append(switch[value] if isinstance(value, bool) else f"--{name}={text}")
    whole = "  ".join(flag.replace(" ", "\0") for flag in flags)  # no flag is broken at its spaces
    return textwrap.fill(whole, 88, break_long_words=False, break_on_hyphens=False).replace("\0", " ")
