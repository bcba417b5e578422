"""Muon: momentum whose update of each matrix is made orthogonal, so that it learns all directions alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, AdamW for embeddings, biases and norms.

    Args:
        parameters: of the model; those of fewer than two dimensions get AdamW.
        lr: of Muon; an update has a root mean square of 0.2, as AdamW's has.
        adam_share: AdamW's rate, as a share of `lr`.

    Source: Jordan et al. 2024, "Muon", kellerjordan.github.io/posts/muon; the scale is that of Liu et al.
    2025, "Muon is scalable for LLM training", arXiv:2502.16982, equation 4.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        adam_share: float = 1.0,
    ) -> None:
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for parameter in parameters:
            (matrices if parameter.ndim >= 2 else others).append(parameter)
        groups = [{"params": matrices, "lr": lr}, {"params": others, "lr": lr * adam_share}]
        super().__init__(groups, {"momentum": momentum, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step from the gradients."""
        matrices, others = self.param_groups
        for parameter in matrices["params"]:
            if parameter.grad is not None:
                self._turn(parameter, parameter.grad, matrices)
        for parameter in others["params"]:
            if parameter.grad is not None:
                self._adam(parameter, parameter.grad, others)

    def _turn(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum"], group["momentum"])  # Nesterov
        update = orthogonal(ahead.flatten(1))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.view_as(parameter), alpha=-group["lr"] * 0.2 * max(update.shape) ** 0.5)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        root = (state["square"] / (1 - second ** state["step"])).sqrt() + 1e-8
        parameter.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - first ** state["step"]))


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix with singular values near 1, by Newton and Schulz' iteration.

    In bfloat16 on a GPU; most CPUs take ten times as long in it as in float32.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x.bfloat16() if x.is_cuda else x.float()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).to(matrix.dtype)
