"""The optimizer by its name, and the schedule of its learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from sdlab.config import Hyperparameters

Notify = Callable[[str], None]
Groups = list[dict[str, Any]]


def make_optimizer(
    chosen: Hyperparameters,
    weights: Mapping[str, torch.nn.Parameter],
    device: torch.device,
    notify: Notify,
) -> torch.optim.Optimizer:
    """Makes the optimizer; the weights named `text_encoder.…` may have a learning rate of their own.

    Source:
        Loshchilov and Hutter 2017, arXiv:1711.05101 (AdamW); Dettmers et al. 2021, arXiv:2110.02861 (8 bits);
        Mishchenko and Defazio 2023, arXiv:2306.06101 (Prodigy); Shazeer and Stern 2018, arXiv:1804.04235
        (Adafactor).
    """
    groups: Groups = [{"params": list(weights.values()), "lr": chosen.learning_rate}]
    if chosen.text_encoder_lr is not None:
        of_text = [weight for name, weight in weights.items() if name.startswith("text_encoder.")]
        others = [weight for name, weight in weights.items() if not name.startswith("text_encoder.")]
        groups = [
            {"params": others, "lr": chosen.learning_rate},
            {"params": of_text, "lr": chosen.text_encoder_lr},
        ]
        notify(f"learning rate: {chosen.text_encoder_lr:g} for the text encoder")
    makers = {"adamw": _adamw, "adamw8bit": _adamw8bit, "prodigy": _prodigy, "adafactor": _adafactor}
    return makers[chosen.optimizer_name](groups, chosen, device, notify)


def make_lr_scheduler(chosen: Hyperparameters, optimizer: torch.optim.Optimizer) -> Any:
    """Makes the learning rate's schedule, one of diffusers'; its `step` is called after the optimizer's."""
    return get_scheduler(
        chosen.lr_scheduler,
        optimizer,
        step_rules=chosen.lr_step_rules,
        num_warmup_steps=chosen.lr_warmup_steps,
        num_training_steps=chosen.max_train_steps,
        num_cycles=chosen.lr_num_cycles,
        power=chosen.lr_power,
    )


def _adam_options(chosen: Hyperparameters) -> dict[str, Any]:
    return {
        "betas": (chosen.adam_beta1, chosen.adam_beta2),
        "weight_decay": chosen.adam_weight_decay,
        "eps": chosen.adam_epsilon,
    }


def _adamw(groups: Groups, chosen: Hyperparameters, device: torch.device, notify: Notify) -> Any:
    notify("optimizer: torch's AdamW")
    return torch.optim.AdamW(groups, **_adam_options(chosen), fused=device.type in ("cpu", "cuda"))


def _adamw8bit(groups: Groups, chosen: Hyperparameters, device: torch.device, notify: Notify) -> Any:
    try:
        from bitsandbytes.optim import AdamW8bit

        optimizer = AdamW8bit(groups, **_adam_options(chosen))
    except Exception as error:  # its binary parts fail in many ways: not installed, wrong CUDA, no GPU
        message = f"bitsandbytes can't be used ({error}), so AdamW runs with 32-bit states instead of 8-bit."
        warnings.warn(f"{message} It needs more memory and is otherwise the same.", stacklevel=2)
        return _adamw(groups, chosen, device, notify)
    notify("optimizer: AdamW of bitsandbytes with 8-bit states")
    return optimizer


def _prodigy(groups: Groups, chosen: Hyperparameters, device: torch.device, notify: Notify) -> Any:
    from prodigyopt import Prodigy

    notify("optimizer: Prodigy, which finds the learning rate")
    options = _adam_options(chosen)
    return Prodigy(groups, **options, decouple=True, use_bias_correction=True, safeguard_warmup=True)


def _adafactor(groups: Groups, chosen: Hyperparameters, device: torch.device, notify: Notify) -> Any:
    from transformers.optimization import Adafactor

    notify("optimizer: Adafactor with the learning rate as given, not relative to the weights")
    decay = chosen.adam_weight_decay
    return Adafactor(groups, weight_decay=decay, scale_parameter=False, relative_step=False)
