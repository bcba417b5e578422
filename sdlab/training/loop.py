"""The one training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from sdlab.experiment import Experiment, Hyperparameters
from sdlab.files import write_bytes
from sdlab.cards import model_card
from sdlab.training import checkpoint, diagnosis
from sdlab.training.data import draw_batch, generator
from sdlab.training.loss import dreambooth_loss, noise_losses
from sdlab.training.measure import describe_machine, describe_result, peak_memory_gb, reset_peak_memory
from sdlab.training.needs import Needs, Trial, check, now
from sdlab.training.progress import show
from sdlab.training.setup import Training, set_up
from sdlab.training.validation import steps_between, validate

_LOG_EVERY = 10  # steps; reading a loss waits for the GPU, so it isn't done in each step


class Diverged(RuntimeError):
    """The loss is no longer a number; the message says what to change."""


def run(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    files: Sequence[Sequence[Path]],
    progress: bool,
    *,
    held_out: Sequence[Path] = (),
    checkpoint_name: str = checkpoint.LATEST,
) -> None:
    """Trains from the newest checkpoint (or from the start) to the end, and exports.

    Args:
        experiment: Locked and begun.
        hyperparameters: Of the experiment.
        files: The instance images, and with prior preservation the class images.
        progress: Say what is chosen and why, and show a progress bar.
        held_out: Instance images that aren't trained on.
        checkpoint_name: Where to go on, see `checkpoint.find`.

    Raises:
        Diverged: The loss is no longer a number.
        NotEnoughMemory: The training doesn't fit; said before its first step where that can be reckoned.
        DiskFull: The disk is full.
    """

    def say(text: str) -> None:
        if progress:
            print(f"{experiment.name}: {text}")

    reset_peak_memory()
    training = set_up(experiment, hyperparameters, files, say, held_out)
    experiment.update(environment=describe_machine(training), held_out=[file.name for file in held_out])
    needs = check(training, experiment.path)
    done = resume(training, experiment, checkpoint_name)
    if done:
        say(f"going on after step {done}")
    done = train_steps(training, experiment, done, needs, progress)
    if done < hyperparameters.max_train_steps:
        experiment.update(
            status="stopped", steps=done, message=f"stopped after step {done}; train again to go on"
        )
        say(f"stopped after step {done} of {hyperparameters.max_train_steps}; train it again to go on")
        return
    training.export(experiment)
    found = diagnosis.diagnose(training, experiment)
    say(found.diagnosis)
    experiment.update(**describe_result(training, experiment), **asdict(found))
    write_bytes(experiment.card_file, model_card(experiment).encode())
    experiment.update(status="finished")
    checkpoint.drop_optimizer_states(experiment.checkpoints_folder)


def train_steps(training: Training, experiment: Experiment, done: int, needs: Needs, progress: bool) -> int:
    """Takes the steps that are left, with log, validations and checkpoints.

    Args:
        training: At step `done`.
        experiment: Gets the log, the validation images and the checkpoints.
        done: Steps done before.
        needs: What was reckoned before.
        progress: Show the progress.

    Returns:
        Steps done: all, or fewer after an interrupt or the panel's stop button.

    Raises:
        Diverged: The loss is no longer a number.
    """
    chosen = training.hyperparameters
    total = chosen.max_train_steps
    between = steps_between(chosen, len(training.sources[0]))
    meter = _Meter(training, experiment)
    first_steps: list[float] = []  # when they ended
    with _interrupts() as interrupted, show(experiment, chosen, done, interrupted, progress) as shown:
        if done == 0 and (before := validate(training, experiment, 0)):
            shown.row(meter.write_row(0, before))
        while done < total:
            meter.add(train_step(training, done))
            done += 1
            shown.step(done)
            if len(first_steps) < 2 and progress:
                first_steps.append(now(training))
                if len(first_steps) == 2:
                    seconds = first_steps[1] - first_steps[0]
                    trial = Trial(needs, seconds, peak_memory_gb(), total - done)
                    shown.say(trial.text())
            stop = interrupted.is_set()
            save = done % chosen.checkpointing_steps == 0 or stop
            look = done % between == 0 or done == total
            if done % _LOG_EVERY == 0 or look or save:
                measured = meter.means(done)
                measured |= validate(training, experiment, done) if look else {}
                shown.row(meter.write_row(done, measured))
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
    chosen = training.hyperparameters
    accumulation = chosen.gradient_accumulation_steps
    if step == chosen.text_encoder_steps:
        training.freeze_text_encoder()
    measured = []
    with _dropout(training, step):
        for part in range(accumulation):
            loss, parts = batch_loss(training, step * accumulation + part)
            training.accelerator.backward(loss / accumulation)
            measured.append(torch.cat([loss.detach()[None], parts]))
    norm = training.accelerator.clip_grad_norm_(training.weights.values(), chosen.max_grad_norm)
    training.optimizer.step()
    training.lr_scheduler.step()
    training.optimizer.zero_grad(set_to_none=True)
    if training.ema is not None:
        training.ema.step(training.weights.values())
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
    number = schedule.config.num_train_timesteps
    batch = draw_batch(training.sources, size, index, chosen.seed, number, noise_offset=chosen.noise_offset)
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


def resume(training: Training, experiment: Experiment, checkpoint_name: str = checkpoint.LATEST) -> int:
    """Loads a checkpoint.

    Args:
        training: At step 0; its weights, optimizer and schedule are overwritten.
        experiment: Whose checkpoints and log.
        checkpoint_name: Which, see `checkpoint.find`.

    Returns:
        Steps done; 0 without a checkpoint.

    Raises:
        ValueError: There is no such checkpoint.
    """
    folder = experiment.checkpoints_folder
    checkpoint.tidy(folder, keep=None)
    place = checkpoint.find(folder, checkpoint_name)
    done = 0
    if place is not None:
        done, states = checkpoint.load(place, training.weights)
        training.optimizer.load_state_dict(states["optimizer"])
        training.lr_scheduler.load_state_dict(states["lr_scheduler"])
        if training.accelerator.scaler is not None:
            training.accelerator.scaler.load_state_dict(states["scaler"])
        if training.ema is not None:
            training.ema.load_state_dict(states["ema"])
            training.ema.to(training.accelerator.device)
        if done > (training.hyperparameters.text_encoder_steps or done):
            training.freeze_text_encoder()
    experiment.cut_log(done if place is not None else -1)
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
        "ema": training.ema.state_dict() if training.ema is not None else None,
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

    def means(self, done: int) -> dict[str, float]:
        """The means since they were asked for last; waits for the device."""
        means = torch.stack(self._measured).mean(dim=0).tolist()
        self._measured.clear()
        measured = dict(zip(self._names, means, strict=True))
        if not math.isfinite(measured["loss"]) or not self._gradient_is_fine(measured["grad_norm"]):
            raise Diverged(_advice(measured["loss"], done, self._training.hyperparameters))
        return measured

    def write_row(self, done: int, measured: dict[str, float]) -> dict[str, float]:
        """Writes what was measured to the log, with the learning rate and the time; gives the row."""
        row = {"step": done, **measured, "learning_rate": self._learning_rate()}
        row |= {"seconds": round(time.perf_counter() - self._began, 3)}
        self._experiment.add_to_log(row)
        return row

    def _learning_rate(self) -> float:
        """The schedule's; Prodigy's own estimate multiplies it."""
        group = self._training.optimizer.param_groups[0]
        return float(self._training.lr_scheduler.get_last_lr()[0] * group.get("d", 1))

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
def _dropout(training: Training, step: int) -> Iterator[None]:
    """Gives dropout, which draws from torch's global generator, the random numbers of this step."""
    chosen = training.hyperparameters
    if not getattr(chosen, "lora_dropout", 0):
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(generator(chosen.seed, step, "dropout").initial_seed())
        yield


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
