"""The homework from beginning to end on the mini model, on any machine, in minutes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from sdlab import mini
from sdlab.control import Control
from sdlab.experiment import Experiment
from sdlab.images import class_images, generate
from sdlab.maps import KINDS
from sdlab.photos import Dataset, prepare
from sdlab.profiles import Profile, hyperparameters, profile
from sdlab.prompts import HOMEWORK_A, PromptSet
from sdlab.reports import report
from sdlab.scores import mini_scores
from sdlab.sweeps import experiment_name, plan, train_planned
from sdlab.tables import duration, table
from sdlab.training import train

BASE = "mini"
SUBJECT, NAME = "woman", "Vera"
PROMPTS = HOMEWORK_A.fill("sks woman")
NOTE = (
    "Measured by the mini world's own reader, a classifier of its drawn pictures. Likeness to the subject: "
    "mean probability of the subject's skin, hair colour, hair style and glasses. Scene as in the prompt: "
    "share of the images. In brackets: 95 % interval over the images, by the bootstrap."
)
STAGES = 7


def demo(
    root: str | Path = ".",
    *,
    prompts: PromptSet = PROMPTS,
    images_per_prompt: int = 4,
    **overrides: Any,
) -> Path:
    """Photos -> DreamBooth and LoRA sweeps -> images -> ControlNet -> tables and report, on the mini model.

    What is finished is not done again, so a second run takes seconds and a killed run goes on.

    Args:
        root: folder to work in, as if it were the current one.
        prompts: what to generate.
        images_per_prompt: images for each prompt and experiment, 1, 2 or 4.
        **overrides: hyperparameters of all experiments, such as `max_train_steps=20` for a quick look.

    Returns:
        The path of report.html.

    Raises:
        KeyboardInterrupt: it was interrupted; the same call goes on from there.

    Taught in: notebooks/05
    """
    start = time.perf_counter()
    Path(root).mkdir(parents=True, exist_ok=True)
    with chdir(root):
        chosen = profile(BASE)
        with _stage(1, "photos"):
            dataset = _photos(chosen)
        overrides = {"instance_data_dir": dataset.folder.as_posix(), **overrides}
        with _stage(2, "class images, for prior preservation"):
            _class_images(chosen, overrides)
        with _stage(3, "DreamBooth"):
            dreambooths = _dreambooths(overrides)
        with _stage(4, "LoRA: learning rates and ranks, in one pass"):
            loras = _loras(chosen, overrides)
        experiments = [one for one in [*dreambooths, *loras] if one.status == "finished"]
        names = ["base", *(one.name for one in experiments)]
        with _stage(5, f"images: {len(names)} models × {len(prompts.prompts)} prompts × {images_per_prompt}"):
            generate(names, prompts, images_per_prompt=images_per_prompt, base=BASE)
        with _stage(6, "ControlNet: canny, depth and pose through the best of each method"):
            controlled = _controlled([dreambooths[0].name, _best_lora(loras, chosen)], prompts)
        with _stage(7, "tables and report"):
            page = _report(names, controlled, prompts, images_per_prompt, dataset)
    return _look_at(Path(root) / page, time.perf_counter() - start)


def _photos(chosen: Profile) -> Dataset:
    """The mini subject's photos; a folder with other people's photos is left alone."""
    raw, out = Path("data/raw_images"), Path("data/instance_images")
    subject = NAME.lower()
    others = [path for path in raw.glob("[!.]*") if path.is_file() and not path.name.startswith(subject)]
    if others:
        print(f"  {raw} holds photos of your own; the demo takes the mini subject's, in data/demo_raw_images")
        raw, out = Path("data/demo_raw_images"), Path("data/demo_instance_images")
    if not any(raw.glob(f"{subject}_*")):
        print(f"  copying photos of {NAME} to {raw}")
        mini.copy_photos(SUBJECT, raw)
    dataset = prepare(raw, out, chosen)
    print(f"  {dataset.summary().splitlines()[0]}")
    print(*(f"  {line}" for line in dataset.diagnosis()[1:]), sep="\n")
    return dataset


def _class_images(chosen: Profile, overrides: Mapping[str, Any]) -> None:
    wanted = hyperparameters("dreambooth", BASE, **overrides)
    folder = class_images(
        BASE, wanted.class_prompt or "", wanted.num_class_images, resolution=wanted.resolution
    )
    print(f"  {wanted.num_class_images} of {wanted.class_prompt!r} in {folder}")


def _dreambooths(overrides: Mapping[str, Any]) -> list[Experiment]:
    with_prior = hyperparameters("dreambooth", BASE, **overrides)
    without = hyperparameters("dreambooth", BASE, **{**overrides, "with_prior_preservation": False})
    done = []
    for name, chosen in {"dreambooth": with_prior, "dreambooth_no_prior": without}.items():
        experiment = train(name, chosen)
        if experiment.status == "stopped":
            raise KeyboardInterrupt(f"{name} was interrupted; the same command goes on from there")
        done.append(experiment)
    return done


def _loras(chosen: Profile, overrides: Mapping[str, Any]) -> list[Experiment]:
    """Homework A: the learning rates at one rank, then the ranks at the best rate."""
    common = hyperparameters("lora", BASE, **overrides)
    rates = plan(common, learning_rate=list(chosen.lora_learning_rates))
    ranks = plan(common, rank=sorted(chosen.lora_ranks))
    return train_planned(rates | ranks)


def _best_lora(loras: list[Experiment], chosen: Profile) -> str:
    """The one that the profile's rates and ranks are built around."""
    best = experiment_name(
        hyperparameters("lora", BASE, learning_rate=chosen.lora_learning_rate, rank=chosen.lora_ranks[0])
    )
    return best if best in [one.name for one in loras if one.status == "finished"] else loras[0].name


def _controlled(names: list[str], prompts: PromptSet) -> list[str]:
    """Images in another picture's outline, depth and pose; returns their folders."""
    image = Path("data/control_images/raised_arms.png")
    if not image.is_file():
        mini.copy_control_images(image.parent)
    folders: dict[str, None] = {}
    for kind in KINDS:
        made = generate(names, prompts, control=Control(kind, image), images_per_prompt=1, sampler="unipc")
        folders |= dict.fromkeys(one.path.parent.name for one in made)
    return list(folders)


def _report(
    names: list[str], controlled: list[str], prompts: PromptSet, images_per_cell: int, dataset: Dataset
) -> Path:
    title = f"{NAME} on the mini model: DreamBooth and LoRA"
    page = report(
        names,
        prompts,
        title=title,
        dataset=dataset.folder,
        images_per_cell=images_per_cell,
        measurements=mini_scores([*names, *controlled], subject=SUBJECT, prompt_names=prompts.prompts),
        note=NOTE,
    )
    shown = table(names, prompts, images_per_cell=images_per_cell, reference=dataset.images)
    shown.save("results/table.png", title)
    return page


@contextmanager
def _stage(index: int, what: str) -> Iterator[None]:
    """Says what begins, and how long it took."""
    print(f"\n[{index}/{STAGES}] {what}", flush=True)
    start = time.perf_counter()
    yield
    print(f"  done in {duration(time.perf_counter() - start)}", flush=True)


def _look_at(page: Path, seconds: float) -> Path:
    folder = os.path.relpath(page.parent)
    print(f"\nFinished in {duration(seconds)}. Look at")
    print(f"  {folder}/report.html   the report, in a browser")
    print(f"  {folder}/report.pdf    the same to print")
    print(f"  {folder}/README.md     the same for GitHub")
    print(f"  {os.path.relpath(page.parent.parent / 'table.png')}            all images as one picture")
    print("Run it again: nothing is done twice. With your own photos: put them into data/raw_images of a")
    print("new folder and go on with `sdlab prepare`, `sdlab train dreambooth` …; `sdlab --help` lists all.")
    return page
