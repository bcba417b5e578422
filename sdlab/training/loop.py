"""The one training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from sdlab.experiment import Experiment, Hyperparameters
from sdlab.training import checkpoint
from sdlab.training.data import draw_batch
from sdlab.training.loss import dreambooth_loss, noise_losses
from sdlab.training.measure import describe_machine, describe_result, reset_peak_memory
from sdlab.training.setup import Training, set_up

_LOG_EVERY = 10  # steps; reading a loss waits for the GPU, so it isn't done in each step


class Diverged(RuntimeError):
    """The loss is no longer a number; the message says what to change."""


def run(
    experiment: Experiment, hyperparameters: Hyperparameters, files: Sequence[Sequence[Path]], progress: bool
) -> None:
    """Trains from the newest checkpoint (or from the start) to the end, and exports.

    Args:
        experiment: Locked and begun.
        hyperparameters: Of the experiment.
        files: The instance images, and with prior preservation the class images.
        progress: Say what is chosen and why, and show a progress bar.

    Raises:
        Diverged: The loss is no longer a number.
        DiskFull: The disk is full.
    """

    def say(text: str) -> None:
        if progress:
            print(f"{experiment.name}: {text}")

    reset_peak_memory()
    training = set_up(experiment, hyperparameters, files, say)
    experiment.update(environment=describe_machine(training))
    done = resume(training, experiment)
    if done:
        say(f"going on after step {done}")
    done = train_steps(training, experiment, done, progress)
    if done < hyperparameters.max_train_steps:
        experiment.update(
            status="stopped", steps=done, message=f"stopped after step {done}; train again to go on"
        )
        say(f"stopped after step {done} of {hyperparameters.max_train_steps}; train it again to go on")
        return
    training.export(experiment)
    experiment.update(status="finished", **describe_result(training, experiment))
    checkpoint.drop_optimizer_states(experiment.checkpoints_folder)


def train_steps(training: Training, experiment: Experiment, done: int, progress: bool) -> int:
    """Takes the steps that are left, with log and checkpoints.

    Args:
        training: At step `done`.
        experiment: Gets the log and the checkpoints.
        done: Steps done before.
        progress: Show a progress bar.

    Returns:
        Steps done: all, or fewer after an interrupt.

    Raises:
        Diverged: The loss is no longer a number.
    """
    total = training.hyperparameters.max_train_steps
    meter = _Meter(training, experiment)
    bar = tqdm(
        total=total, initial=done, desc=experiment.name, unit="step", disable=not progress, mininterval=0.5
    )
    with bar, _interrupts() as interrupted:
        while done < total:
            meter.add(train_step(training, done))
            done += 1
            bar.update()
            stop = interrupted.is_set()
            save = done % training.hyperparameters.checkpointing_steps == 0 or stop
            if done % _LOG_EVERY == 0 or done == total or save:
                bar.set_postfix(loss=f"{meter.write_row(done)['loss']:.4f}")
            if save:
                save_checkpoint(training, experiment, done)
            if stop:
                break
    return done


def train_step(training: Training, step: int) -> torch.Tensor:
    """Takes one step of the optimizer.

    Args:
        training: At this step.
        step: Counted from 0.

    Returns:
        For the log, on the device: the loss, its parts, and the gradient's norm.
    """
    accumulation = training.hyperparameters.gradient_accumulation_steps
    measured = []
    for part in range(accumulation):
        loss, parts = batch_loss(training, step * accumulation + part)
        training.accelerator.backward(loss / accumulation)
        measured.append(torch.cat([loss.detach()[None], parts]))
    norm = training.accelerator.clip_grad_norm_(
        training.weights.values(), training.hyperparameters.max_grad_norm
    )
    training.optimizer.step()
    training.lr_scheduler.step()
    training.optimizer.zero_grad(set_to_none=True)
    return torch.cat([torch.stack(measured).mean(dim=0), norm.detach()[None]])


def batch_loss(training: Training, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes the loss of one batch: noise the latents, predict the noise, compare.

    Args:
        training: Its UNet and data.
        index: Of the batch, counted from 0.

    Returns:
        The loss and its parts, see `dreambooth_loss`.
    """
    chosen, schedule = training.hyperparameters, training.noise_scheduler
    size = chosen.train_batch_size
    batch = draw_batch(training.sources, size, index, chosen.seed, schedule.config.num_train_timesteps)
    noisy = schedule.add_noise(
        batch.latents, batch.noise, batch.timesteps
    )  # (batch, channels, height, width)
    with training.accelerator.autocast():
        embeddings = training.prompts.embeddings(batch.images)  # (batch, 77, dim)
        prediction = training.unet(noisy, batch.timesteps, embeddings, return_dict=False)[0]
    losses = noise_losses(
        prediction, schedule, batch.latents, batch.noise, batch.timesteps, snr_gamma=chosen.snr_gamma
    )
    return dreambooth_loss(losses, chosen.prior_loss_weight if chosen.with_prior_preservation else None)


def resume(training: Training, experiment: Experiment) -> int:
    """Loads the newest whole checkpoint.

    Args:
        training: At step 0; its weights, optimizer and schedule are overwritten.
        experiment: Whose checkpoints and log.

    Returns:
        Steps done; 0 without a checkpoint.
    """
    folder = experiment.checkpoints_folder
    checkpoint.tidy(folder, keep=None)
    place = checkpoint.latest(folder)
    done = 0
    if place is not None:
        done, states = checkpoint.load(place, training.weights)
        training.optimizer.load_state_dict(states["optimizer"])
        training.lr_scheduler.load_state_dict(states["lr_scheduler"])
        if training.accelerator.scaler is not None:
            training.accelerator.scaler.load_state_dict(states["scaler"])
    experiment.cut_log(done)
    return done


def save_checkpoint(training: Training, experiment: Experiment, done: int) -> None:
    """Saves what `resume` needs, and deletes checkpoints beyond the limit.

    Args:
        training: After step `done`.
        experiment: Whose checkpoints.
        done: Steps done.

    Raises:
        DiskFull: The disk is full; the checkpoints that were there are whole.
    """
    scaler = training.accelerator.scaler
    states = {
        "optimizer": training.optimizer.state_dict(),
        "lr_scheduler": training.lr_scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    checkpoint.save(experiment.checkpoints_folder, done, training.weights, states)
    checkpoint.tidy(experiment.checkpoints_folder, training.hyperparameters.checkpoints_total_limit)


class _Meter:
    """Sums the steps' measurements on the device and writes their means to the log."""

    def __init__(self, training: Training, experiment: Experiment) -> None:
        self._training, self._experiment = training, experiment
        self._names = ["loss", *["instance_loss", "prior_loss"][: len(training.sources)], "grad_norm"]
        self._measured: list[torch.Tensor] = []
        rows = experiment.log()
        self._began = time.perf_counter() - (rows[-1]["seconds"] if rows else 0)

    def add(self, measured: torch.Tensor) -> None:
        self._measured.append(measured)

    def write_row(self, done: int) -> dict[str, Any]:
        """The means since the last row; waits for the device."""
        means = torch.stack(self._measured).mean(dim=0).tolist()
        self._measured.clear()
        row: dict[str, Any] = {"step": done, **dict(zip(self._names, means, strict=True))}
        if not math.isfinite(row["loss"]) or not self._gradient_is_fine(row["grad_norm"]):
            raise Diverged(_advice(row["loss"], done, self._training.hyperparameters))
        row |= {"learning_rate": self._training.lr_scheduler.get_last_lr()[0]}
        row |= {"seconds": round(time.perf_counter() - self._began, 3)}
        self._experiment.add_to_log(row)
        return row

    def _gradient_is_fine(self, norm: float) -> bool:
        """With fp16, accelerate's scaler skips the steps whose gradient overflowed."""
        return math.isfinite(norm) or self._training.accelerator.scaler is not None


def _advice(loss: float, step: int, hyperparameters: Hyperparameters) -> str:
    rate = hyperparameters.learning_rate
    advice = f"Lower learning_rate (it is {rate:g}; try {rate / 10:g})"
    if hyperparameters.mixed_precision == "fp16":
        advice += ", or take mixed_precision 'bf16' or 'no'"
    lost = f"The loss is {loss:g} by step {step} or its gradient is no number, so the weights are lost."
    return f"{lost} {advice}, under another name."


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; a second one acts as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach the main thread only
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
