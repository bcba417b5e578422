"""The optimizer by its name, and the schedule of its learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
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
    rate = chosen.text_encoder_lr
    steps = chosen.text_encoder_steps  # 8-bit states are joined, but not those of what stops earlier
    if rate is not None or (steps and chosen.optimizer_name == "adamw8bit"):
        of_text = [weight for name, weight in weights.items() if name.startswith("text_encoder.")]
        others = [weight for name, weight in weights.items() if not name.startswith("text_encoder.")]
        groups[0]["params"] = others
        groups.append({"params": of_text, "lr": rate or chosen.learning_rate})
    if rate is not None:
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
        except Exception as error:  # its binary parts fail in many ways: not installed, wrong CUDA, no GPU
            said = f"bitsandbytes can't be used ({error}), so AdamW runs with 32-bit states instead of 8-bit."
            warnings.warn(f"{said} It needs more memory and is otherwise the same.", stacklevel=2)
        else:
            if device.type == "cpu":
                _join(optimizer)
            notify("optimizer: AdamW of bitsandbytes with 8-bit states")
            return optimizer
    notify("optimizer: torch's AdamW")
    return torch.optim.AdamW(groups, **adam, fused=device.type in ("cpu", "cuda"))


_SMALL = 4096  # values; bitsandbytes keeps the states of tensors below it in 32 bits
_JOINED = 2**18  # values in a vector of larger ones: enough to gain all, and little memory for its gradient


def _join(optimizer: torch.optim.Optimizer) -> None:
    """Makes the weights of each group parts of a few vectors, which the optimizer takes its steps on.

    On a CPU bitsandbytes takes some time for each tensor besides that for its values: mini's 378 tensors take
    a quarter longer than 38 vectors. Each value's step stays the same, but in blocks of 256 that two weights
    share.
    """
    joined: list[tuple[torch.nn.Parameter, list[torch.nn.Parameter]]] = []
    for group in optimizer.param_groups:
        weights = sorted(
            group["params"], key=lambda weight: weight.numel() >= _SMALL
        )  # both kinds in their order
        group["params"] = []
        for part in _parts(weights):
            vector = torch.nn.Parameter(torch.cat([weight.detach().flatten() for weight in part]))
            views = vector.detach().split([weight.numel() for weight in part])
            for weight, view in zip(part, views, strict=True):
                weight.data = view.view_as(weight)
            group["params"].append(vector)
            joined.append((vector, part))

    def hand_over_gradients(*_: object) -> None:
        for vector, part in joined:
            gradients = [weight.grad for weight in part if weight.grad is not None]
            if gradients:  # none, where the text encoder is no longer trained
                vector.grad = torch.cat([gradient.flatten() for gradient in gradients])
            for weight in part:
                weight.grad = None

    optimizer.register_step_pre_hook(hand_over_gradients)


def _parts(weights: Iterable[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Divides weights, small ones first, into runs of one kind within its limit, or of one weight."""
    parts: list[list[torch.nn.Parameter]] = []
    size, limit = 0, 0
    for weight in weights:
        before, limit = limit, _JOINED if weight.numel() >= _SMALL else _SMALL - 1
        if limit == before and size + weight.numel() <= limit:
            parts[-1].append(weight)
            size += weight.numel()
        else:
            parts.append([weight])
            size = weight.numel()
    return parts


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
