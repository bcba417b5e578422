"""Training: one loop for DreamBooth and LoRA, many LoRAs in one pass; killed work goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
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
    said = set() if said is None else said
    notify = _notify if progress and processes.FIRST else _silent
    common, root = next(iter(planned.values())), Path(root)
    base = resolve(common.pretrained_model_name_or_path, root)
    images = instance_images(common.instance_data_dir, notify)
    errors: dict[str, Exception] = {}
    begun: dict[Experiment, DreamBooth | LoRA] = {}
    with ExitStack() as locks:
        for name, chosen in planned.items() if processes.FIRST else ():
            try:
                experiment = Experiment(name, root)
                if _begin(experiment, chosen, base, images, locks, checkpoint_name):
                    begun[experiment] = chosen
                else:
                    notify(f"{name}: finished before, kept")
            except (ValueError, Locked) as error:
                errors[name] = error
        errors, begun = processes.told((errors, begun))
        if begun:
            with _ended(begun):
                errors |= _train(begun, base, images, notify, checkpoint_name, said)
        for name in planned.keys() - errors.keys() if processes.FIRST else ():
            _free_disk(Experiment(name, root))
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
    notify = _notify if progress else _silent
    images = instance_images(hyperparameters.instance_data_dir, notify)
    _check(hyperparameters, images)
    from sdlab.training.loop import train_step
    from sdlab.training.memory import try_steps, with_advice
    from sdlab.training.setup import set_up

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


def _begin(
    experiment: Experiment,
    chosen: DreamBooth | LoRA,
    base: BaseModel,
    images: list[Path],
    locks: ExitStack,
    checkpoint_name: str,
) -> bool:
    """Locks an experiment and writes down what it is trained from, or checks that it is the same again.

    Returns:
        Whether it is to be trained; False where it is finished.
    """
    if experiment.status != "finished" or chosen.max_train_steps > experiment.record.get("steps", 0):
        _check(chosen, images)
        base.check(chosen.resolution, chosen.resolution)
    fingerprints = {
        "base_fingerprint": base.fingerprint,
        "instance_images": fingerprint(images) if images else None,
        "captions": captions_fingerprint(chosen.instance_data_dir),
    }
    locks.enter_context(experiment.lock())
    if checkpoint_name != "latest":
        from sdlab.training.checkpoint import find

        find(experiment.checkpoints_folder, checkpoint_name)
    experiment.begin(chosen, fingerprints)
    if experiment.status == "finished":
        return False
    experiment.update(status="running", base=base.root_name, message="")
    return True


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
    for name in (chosen.report_to or "").split(","):
        if name and find_spec(name) is None:
            raise ValueError(
                f"report_to {name!r} needs its package. Run `pip install {name}`, or leave it out."
            )


@contextmanager
def _ended(begun: Iterable[Experiment]) -> Iterator[None]:
    """Writes down how experiments ended that an interrupt or an error kept from finishing."""
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        for experiment in begun if processes.FIRST else ():
            if experiment.record["status"] != "running":
                continue
            if not interrupted:
                experiment.fail(error)
                continue
            places = experiment.checkpoints
            kept = f"after {places[-1].name}" if places else "from the start, for nothing is saved yet"
            experiment.update(status="stopped", message=f"interrupted; train again to go on {kept}")
        if not isinstance(error, KeyboardInterrupt):
            raise


def _free_disk(experiment: Experiment) -> None:
    """Drops two thirds of a finished one's checkpoints: more steps go on from the newest alone."""
    if experiment.record.get("status") == "finished":
        for place in experiment.checkpoints[:-1]:
            (place / "optimizer.pt").unlink(missing_ok=True)


def _train(
    begun: dict[Experiment, DreamBooth | LoRA],
    base: BaseModel,
    images: list[Path],
    notify: Callable[[str], None],
    checkpoint_name: str,
    said: set[str],
) -> dict[str, Exception]:
    """Trains as many at once as fit into memory, half of them where it ran out; gives those that failed."""
    from sdlab.training.loop import run
    from sdlab.training.memory import NotEnoughMemory, at_once, with_advice
    from sdlab.training.setup import load_model, start

    first, common = next(iter(begun.items()))
    head = first.name if len(begun) == 1 else f"{len(begun)} LoRAs"

    def choice(text: str) -> None:
        if text not in said:
            said.add(text)
            notify(f"{head}: {text}")

    sources, held_out = _files(begun, base, images, progress=notify is _notify)
    errors: dict[str, Exception] = {}
    waiting, number = list(begun), len(begun)

    def train_some() -> bool:
        """Trains as many as fit, in a frame that doesn't outlive their memory; gives False after a stop."""
        nonlocal number
        model = load_model(base, common, sources, choice, held_out)
        number = processes.told(min(number, at_once(model, [begun[one] for one in waiting])))
        some = waiting[:number]
        if len(begun) > 1:
            notify(f"{head}: {len(some)} in one pass: {', '.join(one.name for one in some)}")
        for experiment in some if processes.FIRST else ():
            experiment.update(held_out=[file.name for file in held_out])
        trainings = [start(model, experiment, begun[experiment], choice) for experiment in some]
        run(trainings, notify, notify is _notify, checkpoint_name=checkpoint_name)
        del waiting[:number]
        errors.update({one.experiment.name: one.error for one in trainings if one.error})
        return all(one.finished or one.error for one in trainings)

    while waiting:
        try:
            with with_advice(common):
                if not train_some():
                    break
        except NotEnoughMemory as error:
            if len(begun) == 1 or processes.COUNT > 1:
                raise
            if number > 1:
                number = number // 2
                notify(f"{head}: memory ran out, so at most {number} go on in one pass")
            else:  # it doesn't fit alone, the others may
                one = waiting.pop(0)
                one.fail(error)
                errors[one.name] = error
                number = len(waiting)
    return errors


def _files(
    begun: dict[Experiment, DreamBooth | LoRA], base: BaseModel, images: list[Path], *, progress: bool
) -> tuple[list[list[Path]], list[Path]]:
    """The images to train on by source, class images sampled as far as missing; and those held out."""
    from sdlab.training.validation import split

    common = next(iter(begun.values()))
    trained_on, held_out = split(images, common)
    if not common.with_prior_preservation:
        return [trained_on], held_out
    files: list[Path] = []
    if processes.FIRST:
        folder = class_images(
            base,
            common.class_prompt or "",
            common.num_class_images,
            folder=common.class_data_dir,
            resolution=common.resolution,
            progress=progress,
        )
        files = image_files(folder)[: common.num_class_images]
        for experiment, chosen in begun.items():  # the same ones as when it was begun
            experiment.begin(chosen, {"class_images": fingerprint(files)})
            experiment.update(class_images=fingerprint(files))
    return [trained_on, processes.told(files)], held_out
