"""The two finished homeworks, name by name: their prompts, and each experiment's hyperparameters."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab.config import DreamBooth, LoRA, number
from sdlab.profiles import hyperparameters, profile
from sdlab.prompts import PROMPT_SETS, PromptSet, homework_file
from sdlab.subject import Subject

Asked = dict[str, dict[str, dict[str, Any]]]  # method -> experiment -> what the homework's report gives


@dataclass(frozen=True)
class Homework:
    """What a homework trains and draws; the experiments by name, in the homework's order."""

    prompts: PromptSet
    dreambooths: dict[str, DreamBooth | LoRA]
    loras: dict[str, DreamBooth | LoRA]
    best_dreambooth: str  # as the homework found
    best_lora: str


def homework(which: str, base: str | Path = "mini", *, subject: str | Subject = "sks woman") -> Homework:
    """Gives homework A or B by the names that its report has.

    On `mini` the learning rates are those that do the same there (a small model needs larger ones), and the
    names stay: `dreambooth_lora_k4_lr_2e_4` has rate 5e-3 on `mini`, which every table says under the name.

    Args:
        which: `A` (sweep of the learning rate, then of the rank) or `B` (sweep of DreamBooth, then LoRAs on
            top of it; these are called `lora_exp1.1` …, because B used its names twice).
        base: The base model.
        subject: Who or what the photos show; prompts and training follow it.

    Returns:
        The homework.

    Raises:
        ValueError: There is no such homework.

    Taught in: notebooks/02, 03
    """
    written, subject = written_of(which), Subject.parse(subject)
    dreambooths, loras = (
        {name: hyperparameters(method, base, subject=subject, **given) for name, given in asked.items()}
        for method, asked in asked_for(which, base, subject).items()
    )
    prompts = PROMPT_SETS[written["prompts"]].fill(subject)
    return Homework(prompts, dreambooths, loras, written["best_dreambooth"], written["best_lora"])


def commands(
    which: str, base: str | Path = "mini", *, subject: str | Subject = "sks woman"
) -> list[list[str]]:
    """The command lines of a homework, from its first training to its report, each a list of words."""
    written, subject = written_of(which), Subject.parse(subject)
    asked = asked_for(which, base, subject)
    trainings = [
        ["train", method, f"--output_dir=experiments/{name}", *_flags(given, base, subject, asked)]
        for method, experiments in asked.items()
        for name, given in experiments.items()
    ]
    names = " ".join(name for experiments in asked.values() for name in experiments)
    best, best_lora = written["best_dreambooth"], written["best_lora"]
    prompts = f"--prompts {written['prompts']} --subject={shlex.quote(subject.phrase)}"
    drawn = f"{prompts} --base {shlex.quote(str(base))}"
    controlled = " ".join(f"--kind {kind}" for kind in written["control_kinds"])
    controlled += f" {drawn} --experiments {best} {best_lora}"
    lines = [
        f"generate base {names} {drawn}",
        *(
            f"control --image data/control_images/{one}.png {controlled} --out results/control_{one}.png"
            for one in written["control_images"]
        ),
        *(f"table base {' '.join(asked[one])} {prompts} --out results/{one}.png" for one in asked),
        f"score base {names}",
        f"report {names} {prompts} --best_dreambooth {best} --best_lora {best_lora}",
    ]
    return [*trainings, *map(shlex.split, lines)]


def written_of(which: str) -> dict[str, Any]:
    """What homeworks.toml holds of a homework."""
    if which.upper() not in ("A", "B"):
        raise ValueError(f"There are homework A and homework B, got {which!r}.")
    found: dict[str, Any] = homework_file()[which.upper()]
    return found


def asked_for(which: str, base: str | Path, subject: Subject) -> Asked:
    """Method to experiment to what the homework's report gives of its hyperparameters, for this base."""
    suits = "mini" if profile(base).name == "mini" else "sd15"

    def value(given: Any) -> Any:
        if isinstance(given, str):
            return given.replace("{portrait}", subject.portrait)
        return given[suits] if isinstance(given, dict) else given

    def experiments(common: dict[str, Any], experiments: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {
            name: {key: value(given) for key, given in (common | own).items()}
            for name, own in experiments.items()
        }

    return {
        method: experiments(**{"common": {}} | written_of(which)[method]) for method in ("dreambooth", "lora")
    }


def _flags(given: dict[str, Any], base: str | Path, subject: Subject, asked: Asked) -> list[str]:
    values = {"pretrained_model_name_or_path": str(base), "instance_prompt": subject.instance_prompt}
    values |= {"class_prompt": subject.class_prompt} if given.get("with_prior_preservation") else {}
    values |= given
    if (on := values["pretrained_model_name_or_path"]) in asked["dreambooth"]:
        values["pretrained_model_name_or_path"] = f"experiments/{on}"
    return [
        f"--{name}" if value is True else f"--{name}={value if value == 1 else number(value)}"
        for name, value in values.items()
    ]
