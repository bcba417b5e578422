"""Training: one loop for DreamBooth and LoRA, many LoRAs in one pass; killed work goes on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab import machine
from sdlab.experiment import DreamBooth, Experiment, Locked, LoRA
from sdlab.files import fingerprint
from sdlab.models import BaseModel, resolve
from sdlab.photos import instance_images
from sdlab.photos.captions import captions_fingerprint
from sdlab.sampling import class_images, image_files
from sdlab.training import processes

if TYPE_CHECKING:
    from sdlab.training.memory import Trial

__all__ = ["preflight", "train", "train_together"]


def train(
    name: str,
    hyperparameters: DreamBooth | LoRA,
    *,
    root: str | Path = "experiments",
    resume_from_checkpoint: str = "latest",
    progress: bool = True,
) -> Experiment:
    """Trains an experiment, or goes on with it where it stopped; a finished one is returned at once.

    Args:
        name: The experiment's name; its folder is `<root>/<name>`.
        hyperparameters: `DreamBooth(...)` or `LoRA(...)`, or from `profiles.hyperparameters`.
        root: The folder of all experiments.
        resume_from_checkpoint: Where an experiment that was begun goes on: `latest`, or a checkpoint's name
            such as `step_000100`.
        progress: Say what is chosen and why; in a notebook show the live panel, else a progress bar.

    Returns:
        The experiment: `finished`, or `stopped` after an interrupt (train it again to go on).

    Raises:
        ValueError: The base is unknown, there are no images, or the experiment was begun with something else.
        Locked: Another process trains it.
        Diverged: The loss is no longer a number; the message says what to change.
        NotEnoughMemory: It doesn't fit into memory; the message says what to change first.
        DiskFull: The disk is full.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242; Hu et al. 2021, arXiv:2106.09685. Taught in: notebooks/02.
    """
    planned = {name: hyperparameters}
    errors = train_together(planned, root=root, checkpoint_name=resume_from_checkpoint, progress=progress)
    if errors:
        raise errors[name]
    return Experiment(name, Path(root))


def train_together(
    planned: Mapping[str, DreamBooth | LoRA],
    *,
    root: str | Path = "experiments",
    checkpoint_name: str = "latest",
    progress: bool = True,
    said: set[str] | None = None,
) -> dict[str, Exception]:
    """Trains one experiment, or LoRAs that `lora.in_one_pass` put into one group, as `train` does.

    Args:
        planned: Name to hyperparameters.
        root: The folder of all experiments.
        checkpoint_name: See `train`.
        progress: See `train`.
        said: Choices that were said before; they aren't said again.

    Returns:
        What each that couldn't be trained, or diverged, was ended by, by its name; the others are trained.
    """
    processes.join()
    progress = progress and processes.FIRST
    common, root = next(iter(planned.values())), Path(root)
    base = resolve(common.pretrained_model_name_or_path, root)
    images = instance_images(common.instance_data_dir, _notify if progress else _silent)
    with ExitStack() as locks:
        errors = _begin_all(planned, base, images, root, progress, locks) if processes.FIRST else {}
        names = [name for name in planned if Experiment(name, root).record.get("status") == "running"]
        errors, names = processes.told((errors, [name for name in names if name not in errors]))
        begun = {Experiment(name, root): planned[name] for name in names}
        if begun:
            errors |= _run(begun, base, images, progress, checkpoint_name, set() if said is None else said)
        processes.told(None)  # what the first one writes last is there for all
    return errors


def preflight(
    hyperparameters: DreamBooth | LoRA, *, root: str | Path = "experiments", progress: bool = True
) -> Trial:
    """Tries two steps of a training and throws them away: time, memory and disk that the run will take.

    Args:
        hyperparameters: Of the training.
        root: The folder of all experiments, one of which may be the base.
        progress: Say what is chosen and why.

    Returns:
        The figures.

    Raises:
        ValueError: The base is unknown, or there are no images.
        NotEnoughMemory: It doesn't fit into memory; the message says what to change first.
        DiskFull: It doesn't fit on the disk.
    """
    images = instance_images(hyperparameters.instance_data_dir, _notify if progress else _silent)
    _check(hyperparameters, images)
    from sdlab.training.loop import train_step
    from sdlab.training.memory import try_steps, with_advice
    from sdlab.training.setup import set_up

    notify = _notify if progress else _silent
    some = images[: hyperparameters.train_batch_size]
    sources = [some, some] if hyperparameters.with_prior_preservation else [some]  # class images: same size
    with with_advice(hyperparameters):
        training = set_up(Experiment("preflight", Path(root)), hyperparameters, sources, notify)
        return try_steps(training, train_step)


def _notify(text: str) -> None:
    with suppress(OSError):  # a closed pipe (`| head`) is no reason to lose a training
        print(text, flush=True)


def _silent(text: str) -> None:
    pass


def _begin_all(
    planned: Mapping[str, DreamBooth | LoRA],
    base: BaseModel,
    images: list[Path],
    root: Path,
    progress: bool,
    locks: ExitStack,
) -> dict[str, Exception]:
    """Begins the experiments that aren't finished; gives what is wrong with others."""
    errors: dict[str, Exception] = {}
    for name, chosen in planned.items():
        try:
            experiment = Experiment(name, root)
            _begin(experiment, chosen, base, images, locks)
        except (ValueError, Locked) as error:
            errors[name] = error
            continue
        if experiment.status != "finished":
            experiment.update(status="running", base=base.root_name, message="")
        elif progress:
            _notify(f"{name}: finished before, kept")
    return errors


def _begin(
    experiment: Experiment,
    chosen: DreamBooth | LoRA,
    base: BaseModel,
    images: list[Path],
    locks: ExitStack,
) -> None:
    """Locks an experiment and writes down what it is trained from, or checks that it is the same again."""
    steps = experiment.record.get("steps", 0)
    if experiment.status != "finished" or chosen.max_train_steps > steps:
        _check(chosen, images)
        base.check(chosen.resolution, chosen.resolution)
    fingerprints = {
        "base_fingerprint": base.fingerprint,
        "instance_images": fingerprint(images) if images else None,
        "captions": captions_fingerprint(chosen.instance_data_dir),
    }
    locks.enter_context(experiment.lock())
    experiment.begin(chosen, fingerprints)
    states = list(experiment.checkpoints_folder.glob("*/optimizer.pt"))
    if experiment.status == "finished" and len(states) > 1:  # it was killed just before it dropped them
        from sdlab.training.checkpoint import drop_optimizer_states

        drop_optimizer_states(experiment.checkpoints_folder)


def _check(chosen: DreamBooth | LoRA, images: list[Path]) -> None:
    """Refuses what would fail later, before anything is made."""
    if not images:
        raise ValueError(
            f"There are no images in instance_data_dir={chosen.instance_data_dir!r}. "
            "Put photos into data/raw_images and run `sdlab prepare`."
        )
    if chosen.mixed_precision == "fp16" and machine.device().type == "cpu":
        raise ValueError(
            "mixed_precision 'fp16' needs a GPU, and this machine trains on the CPU. Take 'no' or 'bf16'."
        )
    if chosen.train_batch_size % processes.COUNT:
        raise ValueError(
            f"train_batch_size is that of all processes together, so it must be a multiple of "
            f"{processes.COUNT}, got {chosen.train_batch_size}. Set it to {processes.COUNT}."
        )


def _run(
    begun: dict[Experiment, DreamBooth | LoRA],
    base: BaseModel,
    images: list[Path],
    progress: bool,
    checkpoint_name: str,
    said: set[str],
) -> dict[str, Exception]:
    """Trains experiments that are locked and begun, and writes down how each ended."""
    try:
        return _train_all(begun, base, images, progress, checkpoint_name, said)
    except (KeyboardInterrupt, SystemExit) as error:
        for experiment in _unfinished(begun):
            places = sorted(experiment.checkpoints_folder.glob("step_*"))
            kept = f"after {places[-1].name}" if places else "from the start, for nothing is saved yet"
            experiment.update(status="stopped", message=f"interrupted; train again to go on {kept}")
        if isinstance(error, SystemExit):
            raise
        return {}
    except BaseException as error:
        for experiment in _unfinished(begun):
            experiment.update(status="failed", message=f"{type(error).__name__}: {error}")
        raise


def _unfinished(begun: dict[Experiment, DreamBooth | LoRA]) -> list[Experiment]:
    return [one for one in begun if processes.FIRST and one.record["status"] == "running"]


def _train_all(
    begun: dict[Experiment, DreamBooth | LoRA],
    base: BaseModel,
    images: list[Path],
    progress: bool,
    checkpoint_name: str,
    said: set[str],
) -> dict[str, Exception]:
    """Trains as many at once as fit into memory; gives those that diverged."""
    from sdlab.training import trackers
    from sdlab.training.loop import run
    from sdlab.training.memory import at_once, with_advice
    from sdlab.training.setup import load_model, start
    from sdlab.training.validation import split

    for chosen in begun.values():
        trackers.check(chosen.report_to)
    notify = _notify if progress else _silent
    waiting = list(begun)
    first, common = waiting[0], begun[waiting[0]]
    head = first.name if len(begun) == 1 else f"{len(begun)} LoRAs"

    def choice(text: str) -> None:
        if text not in said:
            said.add(text)
            notify(f"{head}: {text}")

    trained_on, held_out = split(images, common)
    sources = [trained_on]
    if common.with_prior_preservation:
        sources.append(processes.told(_class_files(begun, base, progress) if processes.FIRST else []))
    errors: dict[str, Exception] = {}
    with with_advice(common):
        model = load_model(base, common, sources, choice, held_out)
        number = processes.told(at_once(model, list(begun.values())))
        while waiting:
            now, waiting = waiting[:number], waiting[number:]
            if len(begun) > 1:
                notify(f"{head}: {len(now)} in one pass: {', '.join(one.name for one in now)}")
            for experiment in now if processes.FIRST else []:
                experiment.update(held_out=[file.name for file in held_out])
            trainings = [start(model, experiment, begun[experiment], choice) for experiment in now]
            diverged = run(trainings, notify, progress, checkpoint_name=checkpoint_name)
            for experiment in now:
                if processes.FIRST and (error := diverged.get(experiment.name)):
                    experiment.update(status="failed", message=f"{type(error).__name__}: {error}")
            errors |= diverged
            if any(not one.finished and one.experiment.name not in diverged for one in trainings):
                break
    return errors


def _class_files(begun: dict[Experiment, DreamBooth | LoRA], base: BaseModel, progress: bool) -> list[Path]:
    """The class images, sampled as far as missing; the same ones as when the experiments were begun."""
    common = next(iter(begun.values()))
    folder = class_images(
        base,
        common.class_prompt or "",
        common.num_class_images,
        folder=common.class_data_dir,
        resolution=common.resolution,
        progress=progress,
    )
    files = image_files(folder)[: common.num_class_images]
    for experiment, chosen in begun.items():
        experiment.begin(chosen, {"class_images": fingerprint(files)})
        experiment.update(class_images=fingerprint(files))
    return files
