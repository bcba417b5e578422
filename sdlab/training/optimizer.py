"""The optimizer by its name, and the schedule of its learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from sdlab.config import Hyperparameters

Say = Callable[[str], None]
Groups = list[dict[str, Any]]


def make_optimizer(
    hyperparameters: Hyperparameters,
    weights: Mapping[str, torch.nn.Parameter],
    device: torch.device,
    say: Say,
) -> torch.optim.Optimizer:
    """Makes the optimizer over the trained weights; the text encoder may have a learning rate of its own.

    Args:
        hyperparameters: Of the experiment.
        weights: What is trained, by name; `text_encoder.…` are the text encoder's.
        device: Where they are.
        say: Told what is chosen, and why.

    Returns:
        The optimizer.

    Source:
        Loshchilov and Hutter 2017, arXiv:1711.05101 (AdamW); Dettmers et al. 2021, arXiv:2110.02861 (8 bits);
        Mishchenko and Defazio 2023, arXiv:2306.06101 (Prodigy); Shazeer and Stern 2018, arXiv:1804.04235
        (Adafactor).
    """
    groups: Groups = [{"params": list(weights.values()), "lr": hyperparameters.learning_rate}]
    if hyperparameters.text_encoder_lr is not None:
        of_text = [weight for name, weight in weights.items() if name.startswith("text_encoder.")]
        others = [weight for name, weight in weights.items() if not name.startswith("text_encoder.")]
        groups = [
            {"params": others, "lr": hyperparameters.learning_rate},
            {"params": of_text, "lr": hyperparameters.text_encoder_lr},
        ]
        say(f"learning rate: {hyperparameters.text_encoder_lr:g} for the text encoder")
    return _MAKERS[hyperparameters.optimizer_name](groups, hyperparameters, device, say)


def make_lr_scheduler(hyperparameters: Hyperparameters, optimizer: torch.optim.Optimizer) -> Any:
    """Makes the learning rate's schedule, one of diffusers'.

    Args:
        hyperparameters: Of the experiment.
        optimizer: Whose rate it sets.

    Returns:
        The schedule; its `step` is called after each of the optimizer's.
    """
    return get_scheduler(
        hyperparameters.lr_scheduler,
        optimizer,
        step_rules=hyperparameters.lr_step_rules,
        num_warmup_steps=hyperparameters.lr_warmup_steps,
        num_training_steps=hyperparameters.max_train_steps,
        num_cycles=hyperparameters.lr_num_cycles,
        power=hyperparameters.lr_power,
    )


def _adam_options(hyperparameters: Hyperparameters) -> dict[str, Any]:
    return {
        "betas": (hyperparameters.adam_beta1, hyperparameters.adam_beta2),
        "weight_decay": hyperparameters.adam_weight_decay,
        "eps": hyperparameters.adam_epsilon,
    }


def _adamw(groups: Groups, chosen: Hyperparameters, device: torch.device, say: Say) -> torch.optim.Optimizer:
    say("optimizer: torch's AdamW")
    return torch.optim.AdamW(groups, **_adam_options(chosen), fused=device.type in ("cpu", "cuda"))


def _adamw8bit(
    groups: Groups, chosen: Hyperparameters, device: torch.device, say: Say
) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit

        optimizer: torch.optim.Optimizer = AdamW8bit(groups, **_adam_options(chosen))
    except Exception as error:  # its binary parts fail in many ways: not installed, wrong CUDA, no GPU
        message = f"bitsandbytes can't be used ({error}), so AdamW runs with 32-bit states instead of 8-bit."
        warnings.warn(f"{message} It needs more memory and is otherwise the same.", stacklevel=2)
        return _adamw(groups, chosen, device, say)
    say("optimizer: AdamW of bitsandbytes with 8-bit states")
    return optimizer


def _prodigy(
    groups: Groups, chosen: Hyperparameters, device: torch.device, say: Say
) -> torch.optim.Optimizer:
    from prodigyopt import Prodigy

    say("optimizer: Prodigy, which finds the learning rate")
    options = _adam_options(chosen)
    optimizer: torch.optim.Optimizer = Prodigy(
        groups, **options, decouple=True, use_bias_correction=True, safeguard_warmup=True
    )
    return optimizer


def _adafactor(
    groups: Groups, chosen: Hyperparameters, device: torch.device, say: Say
) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    say("optimizer: Adafactor with the learning rate as given, not relative to the weights")
    decay = chosen.adam_weight_decay
    optimizer: torch.optim.Optimizer = Adafactor(
        groups, weight_decay=decay, scale_parameter=False, relative_step=False
    )
    return optimizer


_MAKERS = {"adamw": _adamw, "adamw8bit": _adamw8bit, "prodigy": _prodigy, "adafactor": _adafactor}
