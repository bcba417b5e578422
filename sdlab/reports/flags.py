"""Hyperparameters as the report shows them: flags that experiments share, and which of them make a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from sdlab.config import number
from sdlab.experiment import Experiment
from sdlab.tables.captions import plain_place

PRIOR = ("class_prompt", "prior_loss_weight", "num_class_images")
ALWAYS = (  # the homework's command has them, whatever their value
    "pretrained_model_name_or_path",
    "instance_prompt",
    *PRIOR,
    "resolution",
    "train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler",
    "lr_warmup_steps",
    "max_train_steps",
    "mixed_precision",
    "rank",
    "seed",
)
LEFT_OUT = ("instance_data_dir", "class_data_dir", "method", "checkpointing_steps", "checkpoints_total_limit")


def sweep_over(name: str, experiments: Sequence[Experiment]) -> list[Experiment]:
    """The largest group of experiments of one method that differ in one hyperparameter only, ordered by it.

    Returns:
        At least two experiments, or none.
    """
    groups: dict[str, list[Experiment]] = {}
    for one in experiments:
        values = {k: v for k, v in one.hyperparameters.as_dict().items() if k not in LEFT_OUT}
        del values[name]
        groups.setdefault(str(values), []).append(one)
    largest = max(groups.values(), key=len, default=[])
    if len({getattr(one.hyperparameters, name) for one in largest}) < 2:
        return []
    return sorted(largest, key=lambda one: float(getattr(one.hyperparameters, name)))


def shared_flags(experiments: Sequence[Experiment], width: int = 88) -> str:
    """Hyperparameters that all have in common as lines of flags: the homework's, and what isn't default."""
    known = [one.hyperparameters.as_dict() for one in experiments]
    shared = {k: v for k, v in known[0].items() if all(other.get(k) == v for other in known)}
    usual = {name: value for one in experiments for name, value in vars(type(one.hyperparameters)()).items()}
    without_prior = not any(values["with_prior_preservation"] for values in known)
    left_out = (*LEFT_OUT, *(PRIOR if without_prior else ()))
    lines = [""]
    for name, value in shared.items():
        if name in left_out or (name not in ALWAYS and value == usual[name]):
            continue
        text = plain_place(value) if isinstance(value, str) else number(value)
        quoted = f'"{text}"' if " " in text else text
        switch = {True: f"--{name}", False: f"--no_{name}"}
        flag = switch[value] if isinstance(value, bool) else f"--{name}={quoted}"
        if lines[-1] and len(lines[-1]) + len(flag) + 2 > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + flag
    return "\n".join(lines)
