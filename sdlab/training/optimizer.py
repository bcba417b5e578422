"""The optimizer by its name, and the schedule of its learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from sdlab.config import Hyperparameters


def make_optimizer(
    chosen: Hyperparameters,
    weights: Mapping[str, torch.nn.Parameter],
    device: torch.device,
    notify: Callable[[str], None],
) -> torch.optim.Optimizer:
    """Makes the optimizer; the weights named `text_encoder.…` may have a learning rate of their own.

    Source:
        Loshchilov and Hutter 2017, arXiv:1711.05101 (AdamW); Dettmers et al. 2021, arXiv:2110.02861 (8 bits);
        Mishchenko and Defazio 2023, arXiv:2306.06101 (Prodigy); Shazeer and Stern 2018, arXiv:1804.04235
        (Adafactor).
    """
    groups: list[dict[str, Any]] = [{"params": list(weights.values()), "lr": chosen.learning_rate}]
    if (rate := chosen.text_encoder_lr) is not None:
        of_text = [weight for name, weight in weights.items() if name.startswith("text_encoder.")]
        others = [weight for name, weight in weights.items() if not name.startswith("text_encoder.")]
        groups = [{"params": others, "lr": chosen.learning_rate}, {"params": of_text, "lr": rate}]
        notify(f"learning rate: {rate:g} for the text encoder")
    decay = chosen.adam_weight_decay
    adam = {
        "betas": (chosen.adam_beta1, chosen.adam_beta2),
        "weight_decay": decay,
        "eps": chosen.adam_epsilon,
    }
    if chosen.optimizer_name == "prodigy":
        from prodigyopt import Prodigy

        notify("optimizer: Prodigy, which finds the learning rate")
        return Prodigy(groups, **adam, decouple=True, use_bias_correction=True, safeguard_warmup=True)
    if chosen.optimizer_name == "adafactor":
        from transformers.optimization import Adafactor

        notify("optimizer: Adafactor with the learning rate as given, not relative to the weights")
        return Adafactor(groups, weight_decay=decay, scale_parameter=False, relative_step=False)
    if chosen.optimizer_name == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit

            optimizer = AdamW8bit(groups, **adam)
            notify("optimizer: AdamW of bitsandbytes with 8-bit states")
            return optimizer
        except Exception as error:  # its binary parts fail in many ways: not installed, wrong CUDA, no GPU
            said = f"bitsandbytes can't be used ({error}), so AdamW runs with 32-bit states instead of 8-bit."
            warnings.warn(f"{said} It needs more memory and is otherwise the same.", stacklevel=2)
    notify("optimizer: torch's AdamW")
    return torch.optim.AdamW(groups, **adam, fused=device.type in ("cpu", "cuda"))


def rate_factor(chosen: Hyperparameters, optimizer: torch.optim.Optimizer) -> Callable[[int], float]:
    """Gives the schedule, one of diffusers', as a function of the step alone: the factor of `initial_lr`."""
    scheduler = get_scheduler(
        chosen.lr_scheduler,
        optimizer,
        step_rules=chosen.lr_step_rules,
        num_warmup_steps=chosen.lr_warmup_steps,
        num_training_steps=chosen.max_train_steps,
        num_cycles=chosen.lr_num_cycles,
        power=chosen.lr_power,
    )
    return scheduler.lr_lambdas[0]
