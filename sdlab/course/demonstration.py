"""The homework from beginning to end on the mini model, on any machine, in minutes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdlab import mini
from sdlab.control import Control
from sdlab.control.maps import KINDS
from sdlab.files import fingerprint
from sdlab.images import generate, load_images
from sdlab.photos import Dataset, prepare
from sdlab.profiles import Profile, hyperparameters, profile
from sdlab.prompts import HOMEWORK_A, PromptSet
from sdlab.reports import report
from sdlab.sampling import class_images
from sdlab.scores import MINI_LIKENESS, Tally, mini_scores
from sdlab.sweeps import experiment_name, plan, train_planned
from sdlab.tables import duration, table

BASE = "mini"
SUBJECT, NAME = "woman", "Vera"
CLASS = "results/class"  # images of the class prompt
PROMPTS = HOMEWORK_A.fill("sks woman")
WHY = "The DreamBooth with prior preservation, and the LoRA that has the profile's learning rate and rank."
FINISHED = """
Finished in {took}. Look at
  {results}/report/report.html   the report, in a browser
  {results}/report/report.pdf    the same to print
  {results}/report/README.md     the same for GitHub
  {results}/table.png            all images as one picture
The conclusion is a draft: write yours into README.md, between its marks; `sdlab report` keeps it.
Run this again: nothing is done twice. With your own photos: put them into data/raw_images of a
new folder and go on with `sdlab prepare`, `sdlab train dreambooth` …; `sdlab --help` lists all."""


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
        root: Folder to work in, as if it were the current one.
        prompts: What to generate.
        images_per_prompt: Images for each prompt and experiment, 1, 2 or 4.
        **overrides: Hyperparameters of all experiments, such as `max_train_steps=20` for a quick look.

    Returns:
        The path of report.html.

    Raises:
        KeyboardInterrupt: It was interrupted; the same call goes on from there.

    Taught in: notebooks/05
    """
    start = time.perf_counter()
    Path(root).mkdir(parents=True, exist_ok=True)
    with chdir(root):
        chosen = profile(BASE)
        with _stage(1, "photos"):
            dataset = _photos(chosen)
        overrides = {"instance_data_dir": dataset.folder.as_posix(), **overrides}
        dreambooth = hyperparameters("dreambooth", BASE, **overrides)
        with _stage(2, "class images, for prior preservation"):
            wanted, prompt = dreambooth.num_class_images, dreambooth.class_prompt or ""
            folder = class_images(BASE, prompt, wanted, resolution=dreambooth.resolution)
            print(f"  {wanted} of {prompt!r} in {folder}")
        with _stage(3, "DreamBooth"):
            no_prior = replace(dreambooth, with_prior_preservation=False)
            experiments = train_planned({"dreambooth": dreambooth, "dreambooth_no_prior": no_prior})
        with _stage(4, "LoRA: learning rates and ranks, in one pass"):
            common = hyperparameters("lora", BASE, **overrides)  # as in homework A
            rates = plan(common, learning_rate=list(chosen.lora_learning_rates))
            ranks = plan(common, rank=sorted(chosen.lora_ranks))
            experiments += train_planned(rates | ranks)
        names = ["base", *(one.name for one in experiments if one.status == "finished")]
        with _stage(5, f"images: {len(names)} models × {len(prompts.prompts)} prompts × {images_per_prompt}"):
            generate(names, prompts, images_per_prompt=images_per_prompt, base=BASE)
            best = {"dreambooth": "dreambooth", "lora": experiment_name(common)}  # the profile's rate, rank
            best = {method: name for method, name in best.items() if name in names}
            _draw_class(names, best, prompt, 2 * images_per_prompt)
        with _stage(6, "ControlNet: canny, depth and pose through one of each method"):
            controlled = _controlled([*best.values()], prompts)
        with _stage(7, "tables and report"):
            _measure([*names, *controlled], prompts)
            _report(names, best | {"why": WHY}, prompts, images_per_prompt, dataset)
    results = os.path.relpath(Path(root) / "results")
    print(FINISHED.format(took=duration(time.perf_counter() - start), results=results))
    return Path(root) / "results/report/report.html"


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
    print(*(f"  {line}" for line in dataset.diagnosis()), sep="\n")
    return dataset


def _draw_class(names: list[str], best: dict[str, str], prompt: str, number: int) -> None:
    """Images of the class prompt, of those that the report says it of."""
    drawn = [name for name in names if name in ("base", "dreambooth_no_prior", *best.values())]
    class_prompt = PromptSet({"class": prompt})
    generate(drawn, class_prompt, images_per_prompt=number, base=BASE, results=CLASS)


def _controlled(names: list[str], prompts: PromptSet) -> list[str]:
    """Images in another picture's outline, depth and pose; returns their folders."""
    image = Path("data/control_images/raised_arms.png")
    if not image.is_file():
        mini.copy_control_images(image.parent)
    options: dict[str, Any] = {"images_per_prompt": 1, "sampler": "unipc"}
    made = [
        one for kind in KINDS for one in generate(names, prompts, control=Control(kind, image), **options)
    ]
    return list(dict.fromkeys(one.path.parent.name for one in made))


def _measure(folders: list[str], prompts: PromptSet) -> None:
    """Leaves what the mini world's reader sees in images where `sdlab score` leaves its measures."""
    of_class = mini_scores(folders, subject=SUBJECT, results=CLASS)
    for name, found in mini_scores(folders, subject=SUBJECT, prompt_names=prompts.prompts).items():
        if name in of_class:
            found["PRES"] = of_class[name][MINI_LIKENESS]
        images = [one for one in load_images(name) if one.prompt_name in prompts.prompts]
        rows = [{"file": one.path.name, "prompt_name": one.prompt_name} for one in images]
        content = fingerprint([one.path for one in images])
        Tally(name, found, rows, content=content).save(images[0].path.with_name("scores.json"))


def _report(
    names: list[str], best: dict[str, str], prompts: PromptSet, images_per_cell: int, dataset: Dataset
) -> None:
    title = f"{NAME} on the mini model: DreamBooth and LoRA"
    cells: dict[str, Any] = {"prompts": prompts, "images_per_cell": images_per_cell}
    report(names, title=title, dataset=dataset.folder, best=best, **cells)
    table(names, reference=dataset.images, **cells).save("results/table.png", title)


@contextmanager
def _stage(index: int, what: str) -> Iterator[None]:
    """Says what begins, and how long it took."""
    print(f"\n[{index}/7] {what}", flush=True)
    start = time.perf_counter()
    yield
    print(f"  done in {duration(time.perf_counter() - start)}", flush=True)
