"""The one training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import torch

from sdlab.cards import model_card
from sdlab.config import Hyperparameters
from sdlab.files import write_bytes
from sdlab.models import resolve
from sdlab.training import checkpoint, processes
from sdlab.training.data import draw_batch, generator, share
from sdlab.training.diagnosis import diagnose, predictions
from sdlab.training.loss import dreambooth_loss, noise_losses
from sdlab.training.memory import Needs, Trial, check, now, peak_memory_gb, reset_peak_memory
from sdlab.training.progress import Bar, Panel, show
from sdlab.training.record import describe_machine, describe_result
from sdlab.training.setup import Notify, Training
from sdlab.training.trackers import Trackers
from sdlab.training.validation import steps_between, validate

_LOG_EVERY = 10  # steps; reading a loss waits for the GPU, so it isn't done in each step


class Diverged(RuntimeError):
    """The loss is no longer a number; the message says what to change."""


def run(
    trainings: Sequence[Training],
    notify: Notify,
    progress: bool,
    *,
    checkpoint_name: str = checkpoint.LATEST,
) -> dict[str, Diverged]:
    """Trains from the newest checkpoints (or from the start) to the end, and exports.

    Args:
        trainings: At step 0, of one model; their experiments are locked and begun.
        checkpoint_name: Where to go on, see `checkpoint.find`.

    Returns:
        The trainings that diverged, by name; the others went on without them.
    """
    reset_peak_memory()
    needs = check(trainings)
    with trainings[0].evaluation():
        before = predictions(trainings[0])  # of the base, since no weight is trained yet
    for training in trainings:
        if processes.FIRST:
            training.experiment.update(environment=describe_machine(training), in_one_pass=len(trainings))
        if resume(training, checkpoint_name):
            notify(f"{training.experiment.name}: going on after step {training.done}{_longer(training)}")
    diverged = train_steps(trainings, needs, progress)
    for training in trainings:
        if training.experiment.name not in diverged and processes.FIRST:
            _end(training, before, notify)
    return diverged


def _longer(training: Training) -> str:
    """What more steps than before do to the learning rate."""
    before, chosen = training.experiment.record.get("longer_from"), training.hyperparameters
    if not before or training.done < before[-1]:
        return ""
    if chosen.lr_scheduler.startswith("constant"):
        return f" of {chosen.max_train_steps}, with the same learning rate"
    rate = training.lr_scheduler.get_last_lr()[0]
    return (
        f" of {chosen.max_train_steps}; the {chosen.lr_scheduler} schedule now ends there, so the learning "
        f"rate goes on at {rate:.2g}. So many steps from the start would have had other rates."
    )


def _end(training: Training, before: torch.Tensor, notify: Notify) -> None:
    """Exports and describes a finished training; says how one that was stopped goes on."""
    experiment, total = training.experiment, training.hyperparameters.max_train_steps
    if training.done < total:
        message = f"stopped after step {training.done}; train again to go on"
        experiment.update(status="stopped", steps=training.done, message=message)
        notify(f"{experiment.name}: stopped after step {training.done} of {total}; train it again to go on")
        return
    training.export()
    found = diagnose(training, before)
    notify(f"{experiment.name}: {found.diagnosis}")
    experiment.update(**describe_result(training), **asdict(found))
    write_bytes(experiment.card_file, model_card(experiment).encode())
    experiment.update(status="finished")
    experiment.update(fingerprint=resolve(experiment).fingerprint)  # by which its images know it
    checkpoint.drop_optimizer_states(experiment.checkpoints_folder)


def train_steps(trainings: Sequence[Training], needs: Needs, progress: bool) -> dict[str, Diverged]:
    """Takes the steps that are left, until all are done or a stop; gives those that diverged, by name."""
    diverged: dict[str, Diverged] = {}
    logs = {training.adapter: _Log(training) for training in trainings}
    timed: list[float] = []  # when the first steps ended
    with stop_requests() as stop, show(trainings, stop, progress) as shown:
        fresh = [training for training in trainings if training.done == 0]
        for training, measured in zip(fresh, validate(fresh), strict=True):
            if measured and processes.FIRST:
                shown.row(training, logs[training.adapter].write(measured, len(fresh)))
        while running := [
            one for one in trainings if one.experiment.name not in diverged and not one.finished
        ]:
            for training, values in zip(running, train_step(running), strict=True):
                logs[training.adapter].add(values)
            shown.step()
            if len(timed) < 2:
                timed.append(now(trainings[0].model.device))
                if len(timed) == 2:
                    left = max(one.hyperparameters.max_train_steps - one.done for one in running)
                    shown.say(Trial(needs, timed[1] - timed[0], peak_memory_gb(), left).text())
            stopping = processes.any_of_us(stop.is_set(), trainings[0].model.device)
            diverged |= _look(running, logs, shown, stopping)
            if stopping:
                break
    for log in logs.values():
        log.close()
    return diverged


def _look(
    running: Sequence[Training], logs: dict[str, _Log], shown: Bar | Panel, stopping: bool
) -> dict[str, Diverged]:
    """Logs, validates and saves the trainings whose turn it is; gives those that diverged, by name."""
    diverged: dict[str, Diverged] = {}
    rows: dict[str, dict[str, float]] = {}
    for training in running:
        if training.done % _LOG_EVERY == 0 or _looks(training) or _saves(training) or stopping:
            try:
                rows[training.adapter] = logs[training.adapter].means()
            except Diverged as error:
                diverged[training.experiment.name] = error
    if not processes.FIRST:
        return diverged
    looked_at = [one for one in running if _looks(one) and one.adapter in rows]
    for training, measured in zip(looked_at, validate(looked_at), strict=True):
        rows[training.adapter] |= measured
    for training in running:
        if row := rows.get(training.adapter):
            shown.row(training, logs[training.adapter].write(row, len(running)))
            if _saves(training) or stopping:
                save_checkpoint(training)
    return diverged


def _looks(training: Training) -> bool:
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
    measured: list[list[torch.Tensor]] = [[] for _ in trainings]
    with _dropout(first):
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
    model = trainings[0].model
    schedule, count = model.noise_scheduler, model.noise_scheduler.config.num_train_timesteps
    batches = []
    for training in trainings:
        chosen = training.hyperparameters
        index = training.done * chosen.gradient_accumulation_steps + part
        size, offset = chosen.train_batch_size, chosen.noise_offset
        drawn = draw_batch(model.sources, size, index, chosen.seed, count, noise_offset=offset)
        batches.append(share(drawn, size))
    latents = torch.cat([batch.latents for batch in batches])  # (trainings · batch, channels, height, width)
    noise = torch.cat([batch.noise for batch in batches])
    timesteps = torch.cat([batch.timesteps for batch in batches])
    noisy = schedule.add_noise(latents, noise, timesteps)
    model.active[:] = [training.adapter for training in trainings]
    with model.accelerator.autocast():
        embeddings = model.prompts.embeddings([batch.images for batch in batches])
        prediction = model.unet(noisy, timesteps, embeddings, return_dict=False)[0]
    losses = []
    for training, batch, own in zip(trainings, batches, prediction.chunk(len(trainings)), strict=True):
        chosen = training.hyperparameters
        each = noise_losses(
            own, schedule, batch.latents, batch.noise, batch.timesteps, snr_gamma=chosen.snr_gamma
        )
        weight = chosen.prior_loss_weight if chosen.with_prior_preservation else None
        losses.append(dreambooth_loss(each, weight))
    return losses


def _take(training: Training) -> torch.Tensor:
    """Takes a step along the gradient; gives its norm before clipping."""
    processes.average(weight.grad for weight in training.weights.values())
    training.scaler.unscale_(training.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(
        training.weights.values(), training.hyperparameters.max_grad_norm
    ).detach()
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.lr_scheduler.step()
    training.optimizer.zero_grad(set_to_none=True)
    if training.ema is not None:
        training.ema.step(training.weights.values())
    training.done += 1
    return norm


def resume(training: Training, checkpoint_name: str = checkpoint.LATEST) -> int:
    """Loads a checkpoint into a training at step 0; gives the steps done.

    Raises:
        ValueError: There is no such checkpoint.
    """
    folder = training.experiment.checkpoints_folder
    if processes.FIRST:
        checkpoint.tidy(folder, keep=None)
    place = checkpoint.find(folder, checkpoint_name)
    if place is None:
        if processes.FIRST:
            training.experiment.cut_log(-1)
        return 0
    training.done, states = checkpoint.load(place, training.weights)
    training.optimizer.load_state_dict(states["optimizer"])
    schedule = training.lr_scheduler
    schedule.load_state_dict(states["lr_scheduler"])
    # with more steps than before it is another schedule
    schedule._last_lr = [
        base * f(training.done) for f, base in zip(schedule.lr_lambdas, schedule.base_lrs, strict=True)
    ]
    for group, rate in zip(training.optimizer.param_groups, schedule._last_lr, strict=True):
        group["lr"] = rate
    training.scaler.load_state_dict(states["scaler"])
    if training.ema is not None:
        training.ema.load_state_dict(states["ema"])
        training.ema.to(training.model.device)
    if training.done > (training.hyperparameters.text_encoder_steps or training.done):
        training.freeze_text_encoder()
    if processes.FIRST:
        training.experiment.cut_log(training.done)
    return training.done


def save_checkpoint(training: Training) -> None:
    """Saves what `resume` needs, and deletes checkpoints beyond the limit.

    Raises:
        DiskFull: The disk is full; the checkpoints that were there are whole.
    """
    states = {
        "optimizer": training.optimizer.state_dict(),
        "lr_scheduler": training.lr_scheduler.state_dict(),
        "scaler": training.scaler.state_dict(),
        "ema": training.ema.state_dict() if training.ema is not None else None,
    }
    folder = training.experiment.checkpoints_folder
    checkpoint.save(folder, training.done, training.weights, states)
    checkpoint.tidy(folder, training.hyperparameters.checkpoints_total_limit)


class _Log:
    """Sums one training's measurements on the device and writes their means to its log."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._names = ["loss", *["instance_loss", "prior_loss"][: len(training.model.sources)], "grad_norm"]
        self._measured: list[torch.Tensor] = []
        self._trackers = Trackers(training)
        rows = training.experiment.log()
        self._seconds, self._since = rows[-1]["seconds"] if rows else 0.0, time.perf_counter()

    def add(self, measured: torch.Tensor) -> None:
        self._measured.append(measured)

    def means(self) -> dict[str, float]:
        """The means since they were asked for last; waits for the device."""
        means = torch.stack(self._measured).mean(dim=0).tolist()
        self._measured.clear()
        measured = dict(zip(self._names, means, strict=True))
        # with fp16 the scaler skips the steps whose gradient overflowed
        fine = math.isfinite(measured["grad_norm"]) or self._training.scaler.is_enabled()
        if not math.isfinite(measured["loss"]) or not fine:
            chosen, done = self._training.hyperparameters, self._training.done
            raise Diverged(_advice(measured["loss"], done, chosen))
        return measured

    def write(self, measured: dict[str, float], among: int) -> dict[str, float]:
        """Writes a row: what was measured, the learning rate, and this training's share of the time."""
        now = time.perf_counter()
        self._seconds, self._since = self._seconds + (now - self._since) / among, now
        # Prodigy's own estimate multiplies the schedule's
        factor = self._training.optimizer.param_groups[0].get("d", 1)
        rate = float(self._training.lr_scheduler.get_last_lr()[0] * factor)
        row = {"step": self._training.done, **measured, "learning_rate": rate}
        row |= {"seconds": round(self._seconds, 3)}
        self._training.experiment.add_to_log(row)
        self._trackers.log(row)
        return row

    def close(self) -> None:
        self._trackers.finish()


def _advice(loss: float, step: int, chosen: Hyperparameters) -> str:
    rate = chosen.learning_rate
    advice = f"Lower learning_rate (it is {rate:g}; try {rate / 10:g})"
    if chosen.mixed_precision == "fp16":
        advice += ", or take mixed_precision 'bf16' or 'no'"
    lost = f"The loss is {loss:g} by step {step} or its gradient is no number, so the weights are lost."
    return f"{lost} {advice}, under another name."


@contextmanager
def _dropout(training: Training) -> Iterator[None]:
    """Gives dropout, which draws from torch's global generator, the random numbers of this step."""
    chosen = training.hyperparameters
    if not getattr(chosen, "lora_dropout", 0):
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(generator(chosen.seed, training.done, "dropout").initial_seed())
        yield


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turns the first signal into a request to save after the step and end; a second one acts as usual.

    SIGHUP is a lost connection, SIGUSR2 a cluster's warning that the time is up.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach the main thread only
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2")
    before = {
        number: signal.getsignal(number)
        for name in names
        if (number := getattr(signal, name, None)) is not None
    }

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
