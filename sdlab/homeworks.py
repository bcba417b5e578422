"""The two finished homeworks, name by name: their prompts, and each experiment's hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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
    subject = Subject.parse(subject)
    written = _written(which)
    experiments = {
        method: {
            name: hyperparameters(method, base, subject=subject, **given) for name, given in asked.items()
        }
        for method, asked in asked_for(which, base, subject).items()
    }
    return Homework(
        prompts=PROMPT_SETS[written["prompts"]].fill(subject),
        dreambooths=experiments["dreambooth"],
        loras=experiments["lora"],
        best_dreambooth=written["best_dreambooth"],
        best_lora=written["best_lora"],
    )


def commands(
    which: str, base: str | Path = "mini", *, subject: str | Subject = "sks woman"
) -> list[list[str]]:
    """The command lines of a homework, from its first training to its report, each a list of words."""
    subject = Subject.parse(subject)
    written = _written(which)
    trainings = asked_for(which, base, subject)
    found = [
        ["train", method, f"--output_dir=experiments/{name}", *_flags(given, base, subject, trainings)]
        for method, experiments in trainings.items()
        for name, given in experiments.items()
    ]
    names = [name for experiments in trainings.values() for name in experiments]
    best = [written["best_dreambooth"], written["best_lora"]]
    prompts = ["--prompts", written["prompts"], f"--subject={subject.phrase}"]
    kinds = [word for kind in written["control_kinds"] for word in ("--kind", kind)]
    found.append(["generate", "base", *names, *prompts, "--base", str(base)])
    for image in written["control_images"]:
        shown = ["--image", f"data/control_images/{image}.png", *kinds, *prompts, "--base", str(base)]
        found.append(["control", *shown, "--experiments", *best, "--out", f"results/control_{image}.png"])
    for method, experiments in trainings.items():
        found.append(["table", "base", *experiments, *prompts, "--out", f"results/{method}.png"])
    found.append(["score", "base", *names])
    chosen = ["--best_dreambooth", best[0], "--best_lora", best[1]]
    return [*found, ["report", *names, *prompts, *chosen]]


def _written(which: str) -> dict[str, Any]:
    if which.upper() not in ("A", "B"):
        raise ValueError(f"There are homework A and homework B, got {which!r}.")
    found: dict[str, Any] = homework_file()[which.upper()]
    return found


def asked_for(
    which: str, base: str | Path, subject: Subject | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Method to experiment to what the homework's report gives of its hyperparameters, for this base."""
    written, subject = _written(which), subject or Subject()
    suits = "mini" if profile(base).name == "mini" else "sd15"

    def value(given: Any) -> Any:
        if isinstance(given, str):
            return given.replace("{portrait}", subject.portrait)
        return given[suits] if isinstance(given, dict) else given

    return {
        method: {
            name: {key: value(given) for key, given in (written[method].get("common", {}) | own).items()}
            for name, own in written[method]["experiments"].items()
        }
        for method in ("dreambooth", "lora")
    }


def _flags(given: dict[str, Any], base: str | Path, subject: Subject, trainings: dict[str, Any]) -> list[str]:
    values = {"pretrained_model_name_or_path": str(base), "instance_prompt": subject.instance_prompt}
    values |= {"class_prompt": subject.class_prompt} if given.get("with_prior_preservation") else {}
    values |= given
    if (on := values["pretrained_model_name_or_path"]) in trainings["dreambooth"]:
        values["pretrained_model_name_or_path"] = f"experiments/{on}"
    return [
        f"--{name}" if value is True else f"--{name}={value if value == 1 else number(value)}"
        for name, value in values.items()
    ]
