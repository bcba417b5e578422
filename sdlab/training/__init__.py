"""Training: one loop for DreamBooth and LoRA; finished work is kept, killed work goes on."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab import machine
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.files import fingerprint
from sdlab.images import class_images, image_files
from sdlab.models import resolve
from sdlab.photos.captions import captions_fingerprint

if TYPE_CHECKING:
    from sdlab.training.needs import Trial

__all__ = ["preflight", "train"]


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
    experiment = Experiment(name, Path(root))
    base = resolve(hyperparameters.pretrained_model_name_or_path, root)
    images = image_files(hyperparameters.instance_data_dir)
    if experiment.status != "finished":
        _check(hyperparameters, images)
    fingerprints = {
        "base_fingerprint": base.fingerprint,
        "instance_images": fingerprint(images) if images else None,
        "captions": captions_fingerprint(hyperparameters.instance_data_dir),
    }
    with experiment.lock():
        experiment.begin(hyperparameters, fingerprints)
        if experiment.status == "finished":
            _free_disk(experiment)
            if progress:
                print(f"{name}: finished before, kept")
            return experiment
        experiment.update(status="running", base=base.root_name, message="")
        _run(experiment, hyperparameters, images, progress, resume_from_checkpoint)
    return experiment


def _free_disk(experiment: Experiment) -> None:
    """Drops what a run deletes last, for one that was killed just before."""
    if any(experiment.checkpoints_folder.glob("*/optimizer.pt")):
        from sdlab.training.checkpoint import drop_optimizer_states

        drop_optimizer_states(experiment.checkpoints_folder)


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
    images = image_files(hyperparameters.instance_data_dir)
    _check(hyperparameters, images)
    from sdlab.training.loop import train_step
    from sdlab.training.needs import try_steps
    from sdlab.training.setup import set_up

    some = images[: hyperparameters.train_batch_size]
    sources = [some, some] if hyperparameters.with_prior_preservation else [some]  # class images: same size
    experiment = Experiment("preflight", Path(root))
    with _memory(hyperparameters):
        training = set_up(experiment, hyperparameters, sources, print if progress else lambda text: None)
        return try_steps(training, experiment.path, train_step)


def _check(hyperparameters: DreamBooth | LoRA, images: list[Path]) -> None:
    """Refuses what would fail later, before anything is made."""
    if not images:
        raise ValueError(
            f"There are no images in instance_data_dir={hyperparameters.instance_data_dir!r}. "
            "Put photos into data/raw_images and run `sdlab prepare`."
        )
    if hyperparameters.mixed_precision == "fp16" and machine.device().type == "cpu":
        raise ValueError(
            "mixed_precision 'fp16' needs a GPU, and this machine trains on the CPU. Take 'no' or 'bf16'."
        )


def _run(
    experiment: Experiment,
    hyperparameters: DreamBooth | LoRA,
    images: list[Path],
    progress: bool,
    checkpoint_name: str,
) -> None:
    """Trains, and writes down how it ended."""
    try:
        from sdlab.training.validation import split

        trained_on, held_out = split(images, hyperparameters)
        sources = [trained_on]
        if hyperparameters.with_prior_preservation:
            sources.append(_class_files(experiment, hyperparameters, progress))
        from sdlab.training.loop import run

        with _memory(hyperparameters):
            run(
                experiment,
                hyperparameters,
                sources,
                progress,
                held_out=held_out,
                checkpoint_name=checkpoint_name,
            )
    except KeyboardInterrupt:
        experiment.update(status="stopped", message="interrupted; train again to go on")
    except BaseException as error:
        experiment.update(status="failed", message=f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _memory(hyperparameters: DreamBooth | LoRA) -> Iterator[None]:
    """Turns "out of memory" into advice, and frees what the training held."""
    from sdlab.training.needs import NotEnoughMemory, advice, is_out_of_memory

    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0]
        traceback.clear_frames(error.__traceback__)  # they hold the tensors
        machine.free_memory()
        raise NotEnoughMemory(f"Memory ran out ({said}). {advice(hyperparameters)}") from None


def _class_files(experiment: Experiment, hyperparameters: DreamBooth | LoRA, progress: bool) -> list[Path]:
    """The class images, sampled as far as missing; the same ones as when the experiment was begun."""
    number = hyperparameters.num_class_images
    folder = class_images(
        hyperparameters.pretrained_model_name_or_path,
        hyperparameters.class_prompt or "",
        number,
        folder=hyperparameters.class_data_dir,
        root=experiment.root,
        resolution=hyperparameters.resolution,
        progress=progress,
    )
    files = image_files(folder)[:number]
    experiment.begin(hyperparameters, {"class_images": fingerprint(files)})
    experiment.update(class_images=fingerprint(files))
    return files
