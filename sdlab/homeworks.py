"""The two finished homeworks, name by name: their prompts, and each experiment's hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab.config import DreamBooth, LoRA
from sdlab.profiles import hyperparameters, profile
from sdlab.prompts import HOMEWORK_A, HOMEWORK_B, PromptSet

RATES_A = ("2e_6", "2e_5", "2e_4", "2e_3")  # as homework A's names write them
# Homework B on `mini`: rates and number of class images that do what B's own do on SD 1.5.
MINI_B = {"learning_rate": 1e-4, "lower_rate": 5e-5, "lora_rate": 5e-4, "num_class_images": 64}
SD15_B = {"learning_rate": 2e-6, "lower_rate": 1e-6, "lora_rate": 1e-6, "num_class_images": 500}


@dataclass(frozen=True)
class Homework:
    """What a homework trains and draws.

    Args:
        prompts: Its prompt set, with the subject filled in.
        dreambooths: Name to hyperparameters of the DreamBooth experiments, in its order.
        loras: The same of the LoRAs.
        best_dreambooth: The DreamBooth experiment that the homework found best.
        best_lora: The LoRA that it found best.
    """

    prompts: PromptSet
    dreambooths: dict[str, DreamBooth | LoRA]
    loras: dict[str, DreamBooth | LoRA]
    best_dreambooth: str
    best_lora: str


def homework(which: str, base: str | Path = "mini", *, subject: str = "sks woman") -> Homework:
    """Gives homework A or B by the names that its report has.

    On `mini` the learning rates are those that do the same there (a small model needs larger ones), and the
    names stay: `dreambooth_lora_k4_lr_2e_4` has rate 5e-3 on `mini`, which every table says under the name.

    Args:
        which: `A` (sweep of the learning rate, then of the rank) or `B` (sweep of DreamBooth, then LoRAs on
            top of it; these are called `lora_exp1.1` …, because B used its names twice).
        base: The base model.
        subject: What takes the place of `{subject}` in the prompts.

    Returns:
        The homework.

    Raises:
        ValueError: There is no such homework.

    Taught in: notebooks/02, 03
    """
    if which.upper() not in ("A", "B"):
        raise ValueError(f"There are homework A and homework B, got {which!r}.")
    return _a(base, subject) if which.upper() == "A" else _b(base, subject)


def _a(base: str | Path, subject: str) -> Homework:
    rates = dict(zip(RATES_A, profile(base).lora_learning_rates, strict=True))
    best = RATES_A[2]
    wanted = [(4, rate) for rate in RATES_A] + [(8, best), (2, best)]
    loras = {
        f"dreambooth_lora_k{rank}_lr_{rate}": hyperparameters(
            "lora", base, rank=rank, learning_rate=rates[rate]
        )
        for rank, rate in wanted
    }
    return Homework(
        prompts=HOMEWORK_A.fill(subject),
        dreambooths={"dreambooth_v1": hyperparameters("dreambooth", base)},
        loras=loras,
        best_dreambooth="dreambooth_v1",
        best_lora=f"dreambooth_lora_k4_lr_{best}",
    )


def _b(base: str | Path, subject: str) -> Homework:
    chosen = profile(base)
    differing = MINI_B if chosen.name == "mini" else SD15_B
    common: dict[str, Any] = {
        "resolution": chosen.resolution,
        "train_batch_size": 1,
        "lr_scheduler": "constant",
        "use_8bit_adam": True,
        "mixed_precision": "no",
        "train_text_encoder": True,
        "seed": 31,
    }
    dreambooth = common | {
        "num_class_images": differing["num_class_images"],
        "max_train_steps": 800,
        "checkpointing_steps": 800,
    }
    lora = common | {
        "pretrained_model_name_or_path": "exp1.1",
        "learning_rate": differing["lora_rate"],
        "max_train_steps": 200,
        "checkpointing_steps": 20,
        "validation_prompt": f"a photo of {subject} face in NYC, rain, dark, night, full moon, 4K",
        "validation_epochs": 50,
    }
    rate, lower = differing["learning_rate"], differing["lower_rate"]
    weighted = {"exp1.1": (1.0, rate), "exp2": (1.0, lower), "exp3": (1.2, rate)}
    ranks = {"lora_exp1.1": 32, "lora_exp2": 64, "lora_exp4": 96}
    return Homework(
        prompts=HOMEWORK_B.fill(subject),
        dreambooths={
            name: hyperparameters(
                "dreambooth", base, **dreambooth, prior_loss_weight=weight, learning_rate=rate
            )
            for name, (weight, rate) in weighted.items()
        },
        loras={name: hyperparameters("lora", base, **lora, rank=rank) for name, rank in ranks.items()},
        best_dreambooth="exp1.1",
        best_lora="lora_exp4",
    )
