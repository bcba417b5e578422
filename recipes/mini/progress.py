"""A training that lasts a given time: learning rate, moving average, checkpoints and log of a stage."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .machine import Machine

SAVE_EVERY = 180.0
"""Seconds of training between two checkpoints."""

DECAY_FROM = 0.6
"""Share of the time after which the learning rate falls; constant before, so that minutes can be added."""


class Progress:
    """The state of one training: what was learned, how long it took, where it is saved.

    Time, not steps, is the budget: the same recipe fits a slow and a fast machine, and `minutes` can be
    raised later to continue a training that was stopped or finished.

    Args:
        folder: holds `checkpoint.pt` and `log.jsonl`.
        model: what is trained.
        optimizer: its optimizer; the groups' `lr` are taken as the peak.
        machine: where it runs.
        minutes: the whole time of training, earlier runs included.
        ema_decay: how slowly the averaged weights follow.
        decay_from: share of the time after which the learning rate falls.
        begin_from: the checkpoint of another training that this one goes on from.
    """

    def __init__(
        self,
        folder: Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        machine: Machine,
        *,
        minutes: float,
        ema_decay: float = 0.999,
        decay_from: float = DECAY_FROM,
        begin_from: Path | None = None,
    ) -> None:
        self.folder, self.model, self.optimizer, self.machine = folder, model, optimizer, machine
        self.seconds, self.ema_decay, self.decay_from = minutes * 60, ema_decay, decay_from
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.step, self.elapsed = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if self.path.exists():
            self._load(self.path)
        elif begin_from is not None:
            self._load(begin_from)
            self.elapsed = 0.0

    @property
    def path(self) -> Path:
        """The checkpoint."""
        return self.folder / "checkpoint.pt"

    @property
    def share(self) -> float:
        """How much of the time is used, 0 to 1."""
        return min(1.0, self.elapsed / self.seconds)

    def steps(self, evaluate: Callable[[], dict[str, float]] | None = None) -> Iterator[int]:
        """Count steps until the time is used; saves and evaluates in between and at the end.

        Args:
            evaluate: called in the leading process at each checkpoint, the averaged weights in the model.
        """
        saved, last = self.elapsed, time.monotonic()
        while self.elapsed < self.seconds:
            for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
                group["lr"] = peak * self._factor()
            yield self.step
            self.step += 1
            if self.step % 10 == 0:
                now = time.monotonic()
                self.elapsed += self.machine.agreed(now - last)
                last = now
            if self.elapsed - saved >= SAVE_EVERY:
                saved = self.elapsed
                self._report(evaluate)
                last = time.monotonic()
        self._report(evaluate)

    def learn(self, loss: torch.Tensor, max_grad_norm: float = 1.0) -> None:
        """One optimizer step from a loss, and the averaged weights' step after it."""
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.machine.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.machine.leads and self.step % 5 == 0:
            self._follow(1 - min(self.ema_decay, (self.step + 1) / (self.step + 10)) ** 5)
        if self.machine.leads and self.step % 50 == 0:
            self._log({"loss": float(loss.detach()), "lr": self.optimizer.param_groups[0]["lr"]})

    def use_average(self) -> None:
        """Put the averaged weights into the model, to evaluate or export it."""
        self.model.load_state_dict(self.average)

    def _factor(self) -> float:
        """Warm-up over 100 steps, then constant, then a cosine to nothing in the last part of the time."""
        warm_up = min(1.0, (self.step + 1) / 100)
        falling = max(0.0, self.share - self.decay_from) / max(1e-6, 1 - self.decay_from)
        return warm_up * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling)))

    @torch.no_grad()
    def _follow(self, weight: float) -> None:
        values, averages = [], []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                values.append(value)
                averages.append(self.average[name])
        torch._foreach_lerp_(averages, values, weight)

    def _report(self, evaluate: Callable[[], dict[str, float]] | None) -> None:
        if not self.machine.leads:
            return
        self._save()
        if evaluate is None:
            self._log({})
        else:
            trained = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.use_average()
            self.model.eval()
            with torch.no_grad():
                self._log(evaluate())
            self.model.load_state_dict(trained)
            self.model.train()

    def _log(self, values: dict[str, float]) -> None:
        entry = {"step": self.step, "minutes": round(self.elapsed / 60, 2), **values}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        print(self.folder.name, *(f"{k} {v:.5g}" for k, v in entry.items()), flush=True)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }

    def _save(self) -> None:
        partial = self.path.with_suffix(".part")
        with partial.open("wb") as file:
            torch.save(self._state(), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def _load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.machine.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        minutes = self.elapsed / 60
        print(f"{self.folder.name}: continues at step {self.step}, {minutes:.1f} minutes", flush=True)
