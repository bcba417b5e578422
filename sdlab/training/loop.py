"""The one training loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sdlab.cards import model_card
from sdlab.files import write_bytes
from sdlab.models import resolve
from sdlab.training import checkpoint, processes
from sdlab.training.data import draw_batch, generator, share
from sdlab.training.loss import dreambooth_loss, noise_losses
from sdlab.training.memory import Needs, Trial, check, now, peak_memory_gb, reset_peak_memory
from sdlab.training.record import Diverged, Log, describe_machine, describe_result
from sdlab.training.setup import Notify, Training
from sdlab.training.validation import diagnose, fixed_predictions, steps_between, validate
from sdlab.training.watch import Watch

_LOG_EVERY = 10  # steps; reading a loss waits for the GPU, so it isn't done in each step


def run(
    trainings: Sequence[Training],
    notify: Notify,
    progress: bool,
    *,
    checkpoint_name: str = checkpoint.LATEST,
) -> None:
    """Trains from the newest checkpoints (or from the start) to the end, and exports.

    Args:
        trainings: At step 0, of one model; their experiments are locked and begun. Those that diverge have
            an `error` afterwards; the others go on without them.
        checkpoint_name: Where to go on, see `checkpoint.find`.
    """
    reset_peak_memory()
    needs = check(trainings)
    before = fixed_predictions(trainings[0])  # of the base, since no weight is trained yet
    for training in trainings:
        if processes.FIRST:
            training.experiment.update(environment=describe_machine(training), in_one_pass=len(trainings))
        if checkpoint.resume(training, checkpoint_name):
            notify(f"{training.experiment.name}: going on after step {training.done}{_longer(training)}")
    train_steps(trainings, needs, progress)
    for training in trainings if processes.FIRST else ():
        _end(training, before, notify)


def _longer(training: Training) -> str:
    """What another number of steps than before does to the learning rate."""
    before, chosen = training.experiment.record.get("longer_from"), training.hyperparameters
    if not before:
        return ""
    if chosen.lr_scheduler.startswith("constant"):
        return f" of {chosen.max_train_steps}, with the same learning rate"
    return (
        f" of {chosen.max_train_steps}; the {chosen.lr_scheduler} schedule now ends there, so the learning "
        f"rate goes on at {training.learning_rate:.2g}. From the start, so many steps have other rates."
    )


def _end(training: Training, before: torch.Tensor, notify: Notify) -> None:
    """Exports and describes a finished training; writes down how another one ended."""
    experiment, total = training.experiment, training.hyperparameters.max_train_steps
    if training.error:
        experiment.fail(training.error)
    elif not training.finished:
        message = f"stopped after step {training.done} of {total}; train it again to go on"
        experiment.update(status="stopped", steps=training.done, message=message)
        notify(f"{experiment.name}: {message}")
    else:
        # a kill may have come between the last checkpoint and what its saving deletes
        checkpoint.tidy(experiment.checkpoints_folder, training.hyperparameters.checkpoints_total_limit)
        training.export()
        found = diagnose(training, before)
        notify(f"{experiment.name}: {found['diagnosis']}")
        experiment.update(**describe_result(training), **found)
        write_bytes(experiment.card_file, model_card(experiment).encode())
        experiment.update(status="finished")
        experiment.update(fingerprint=resolve(experiment).fingerprint)  # by which its images know it


def train_steps(trainings: Sequence[Training], needs: Needs, progress: bool) -> None:
    """Takes the steps that are left, until all are done, or have diverged, or a stop."""
    logs = {training: Log(training) for training in trainings}
    device = trainings[0].model.device
    timed: list[float] = []  # when the first steps ended
    with stop_requests() as stop, Watch(trainings, stop, progress) as shown:
        _look({one: log for one, log in logs.items() if one.done == 0}, shown, stopping=False)
        while running := [one for one in trainings if not one.finished and not one.error]:
            for training, measured in zip(running, train_step(running), strict=True):
                logs[training].add(measured)
            shown.step()
            if len(timed) < 2:
                timed.append(now(device))
                if len(timed) == 2:
                    left = max(one.hyperparameters.max_train_steps - one.done for one in running)
                    shown.say(Trial(needs, timed[1] - timed[0], peak_memory_gb(), left).text())
            stopping = processes.any_of_us(stop.is_set(), device)
            _look({one: logs[one] for one in running}, shown, stopping=stopping)
            if stopping:
                break
    for log in logs.values():
        log.close()


def _look(logs: dict[Training, Log], shown: Watch, *, stopping: bool) -> None:
    """Logs, validates and saves the trainings whose turn it is; finds those that diverged."""
    rows: dict[Training, dict[str, float]] = {}
    for training, log in logs.items():
        if training.done % _LOG_EVERY == 0 or _validates(training) or _saves(training) or stopping:
            try:
                rows[training] = log.means()
            except Diverged as error:
                training.error = error
    if not processes.FIRST:
        return
    validated = [training for training in rows if _validates(training)]
    for training, measured in zip(validated, validate(validated), strict=True):
        rows[training] |= measured
    for training, row in rows.items():
        if row:
            shown.row(training, logs[training].write(row, len(logs)))
        if training.done and (_saves(training) or stopping):
            checkpoint.save(training)


def _validates(training: Training) -> bool:
    between = steps_between(training.hyperparameters, len(training.model.sources[0]))
    return training.finished or training.done % between == 0


def _saves(training: Training) -> bool:
    return training.finished or training.done % training.hyperparameters.checkpointing_steps == 0


def train_step(trainings: Sequence[Training]) -> list[torch.Tensor]:
    """Takes one step of each optimizer, by one forward and backward pass of the base model over all images.

    Returns:
        For each training's log, on the device: the loss, its parts, and the gradient's norm.
    """
    first = trainings[0]
    accumulation = first.hyperparameters.gradient_accumulation_steps
    if first.done == first.hyperparameters.text_encoder_steps:
        first.freeze_text_encoder()
    dropout = getattr(first.hyperparameters, "lora_dropout", 0)  # it draws from torch's global generator
    measured: list[list[torch.Tensor]] = [[] for _ in trainings]
    with torch.random.fork_rng(enabled=dropout > 0):
        if dropout:
            random = generator(first.hyperparameters.seed, first.done, "dropout")
            torch.manual_seed(random.initial_seed())
        for part in range(accumulation):
            losses = batch_losses(trainings, part)
            scaled = [one.scaler.scale(loss) for one, (loss, _) in zip(trainings, losses, strict=True)]
            (torch.stack(scaled).sum() / accumulation).backward()
            for values, (loss, parts) in zip(measured, losses, strict=True):
                values.append(torch.cat([loss.detach()[None], parts]))
    norms = [_take(training) for training in trainings]
    means = [torch.stack(values).mean(dim=0) for values in measured]
    processes.average(means)
    return [torch.cat([mean, norm[None]]) for mean, norm in zip(means, norms, strict=True)]


def batch_losses(trainings: Sequence[Training], part: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Computes each training's loss of one batch and its parts: noise the latents, predict, compare.

    Args:
        part: Which of the step's batches, with gradient accumulation.
    """
    model, batches = trainings[0].model, []
    schedule = model.noise_scheduler
    for training in trainings:
        chosen = training.hyperparameters
        index = training.done * chosen.gradient_accumulation_steps + part
        size, steps = chosen.train_batch_size, schedule.config.num_train_timesteps
        drawn = draw_batch(model.sources, size, index, chosen.seed, steps, noise_offset=chosen.noise_offset)
        batches.append(share(drawn, size))
    losses = []
    for training, batch, prediction in zip(
        trainings, batches, model.predict(trainings, batches), strict=True
    ):
        chosen = training.hyperparameters
        each = noise_losses(prediction, schedule, batch, snr_gamma=chosen.snr_gamma)  # (batch,)
        weight = chosen.prior_loss_weight if chosen.with_prior_preservation else None
        losses.append(dreambooth_loss(each, weight))
    return losses


def _take(training: Training) -> torch.Tensor:
    """Takes a step along the gradient; gives its norm before clipping."""
    chosen, optimizer, weights = training.hyperparameters, training.optimizer, training.weights.values()
    processes.average(weight.grad for weight in weights)
    training.scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(weights, chosen.max_grad_norm).detach()
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * training.rate_factor(training.done)
    training.scaler.step(optimizer)
    training.scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if training.ema is not None:
        training.ema.step(weights)
    training.done += 1
    return norm


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turns the first signal into a request to save after the step and end; a second one acts as usual.

    SIGHUP is a lost connection, SIGUSR2 a cluster's warning that the time is up. What `nohup` has the process
    ignore stays ignored.
    """
    asked = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():  # signals reach no other
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"):
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.getsignal(number)
                signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
