"""The two finished homeworks, name by name: their prompts, and each experiment's hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from sdlab.config import DreamBooth, LoRA, number
from sdlab.profiles import hyperparameters, profile
from sdlab.prompts import PROMPT_SETS, PromptSet, homework_file
from sdlab.subject import Subject


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
    subject, written = Subject.parse(subject), _written(which)
    dreambooths, loras = (
        {name: hyperparameters(method, base, subject=subject, **given) for name, given in asked.items()}
        for method, asked in asked_for(which, base, subject).items()
    )
    prompts = PROMPT_SETS[written["prompts"]].fill(subject)
    return Homework(prompts, dreambooths, loras, written["best_dreambooth"], written["best_lora"])


def commands(which: str, base: str | Path = "mini", *, subject: str | Subject = "sks woman") -> list[str]:
    """The command lines of a homework for a shell, from its first training to its report."""
    subject, written = Subject.parse(subject), _written(which)
    trainings = asked_for(which, base, subject)
    names = {method: " ".join(experiments) for method, experiments in trainings.items()}
    dreambooth, lora, everything = written["best_dreambooth"], written["best_lora"], " ".join(names.values())
    prompts = f"--prompts {written['prompts']} {quote(f'--subject={subject.phrase}')}"
    controlled = " ".join(f"--kind {kind}" for kind in written["control_kinds"]) + f" {prompts}"
    on = f"--base {quote(str(base))}"
    through = (
        f"{name}_{kind}_{image}"
        for name in (dreambooth, lora)
        for kind in written["control_kinds"]
        for image in written["control_images"]
    )
    return [
        *(
            f"sdlab train {method} --output_dir=experiments/{name} {_flags(given, base, subject, trainings)}"
            for method, experiments in trainings.items()
            for name, given in experiments.items()
        ),
        f"sdlab generate base {everything} {prompts} {on}",
        *(
            f"sdlab control --image data/control_images/{image}.png {controlled} {on} "
            f"--experiments {dreambooth} {lora} --out results/control_{image}.png"
            for image in written["control_images"]
        ),
        *(f"sdlab table base {names[method]} {prompts} --out results/{method}.png" for method in trainings),
        f"sdlab score base {everything} {' '.join(through)}",
        f"sdlab report {everything} {prompts} --best_dreambooth {dreambooth} --best_lora {lora}",
    ]


def _written(which: str) -> dict[str, Any]:
    if which.upper() not in ("A", "B"):
        raise ValueError(f"There are homework A and homework B, got {which!r}.")
    found: dict[str, Any] = homework_file()[which.upper()]
    return found


def asked_for(
    which: str, base: str | Path, subject: Subject | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Method to experiment to what the homework's report gives of its hyperparameters, for this base."""
    written, portrait = _written(which), (subject or Subject()).portrait
    suits = "mini" if profile(base).name == "mini" else "sd15"

    def value(given: Any) -> Any:
        if isinstance(given, str):
            return given.replace("{portrait}", portrait)
        return given[suits] if isinstance(given, dict) else given

    return {
        method: {
            name: {key: value(given) for key, given in (written[method].get("common", {}) | own).items()}
            for name, own in written[method]["experiments"].items()
        }
        for method in ("dreambooth", "lora")
    }


def _flags(given: dict[str, Any], base: str | Path, subject: Subject, trainings: dict[str, Any]) -> str:
    values = {"pretrained_model_name_or_path": str(base), "instance_prompt": subject.instance_prompt}
    values |= {"class_prompt": subject.class_prompt} if given.get("with_prior_preservation") else {}
    values |= given
    if (on := values["pretrained_model_name_or_path"]) in trainings["dreambooth"]:
        values["pretrained_model_name_or_path"] = f"experiments/{on}"
    return " ".join(
        f"--{name}" if value is True else quote(f"--{name}={value if value == 1 else number(value)}")
        for name, value in values.items()
    )
