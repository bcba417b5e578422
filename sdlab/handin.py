"""Is a homework complete? The assignment's seven steps against what is on disk."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from sdlab.config import number
from sdlab.experiment import Experiment, find
from sdlab.homeworks import asked_for
from sdlab.images import ImageRecord, generate, image_files, load_images
from sdlab.machine import findings, this_machine
from sdlab.models import resolve
from sdlab.profiles import profile, subject_of
from sdlab.prompts import PromptSet, homework_file
from sdlab.reports.places import read_kept

PHOTOS, PROMPTS, DREAMBOOTHS, LORAS = 15, 5, 2, 3  # what the assignment asks for at least
SAME = 2.0  # mean difference, of 255, that another processor may make


@dataclass(frozen=True)
class Step:
    """One step of the assignment: what is there, and what is missing, with the way to it."""

    title: str
    found: str
    missing: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.missing

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{'yes' if self.complete else 'no':<5}{self.title:<14}{self.found}",
                *(f"     - {line}" for line in self.missing),
            ]
        )


def completeness(
    which: Literal["A", "B"] | None = None,
    *,
    base: str | None = None,
    dataset: str | Path = "data/instance_images",
    root: str | Path = "experiments",
    results: str | Path = "results",
    report: str | Path = "results/report",
    reproduce: int = 0,
) -> list[Step]:
    """Holds what is on disk against the assignment's seven steps.

    Args:
        which: The homework whose experiments and parameters are asked for; None asks for what the assignment
            does: two DreamBooth experiments, three LoRAs, five prompts, ControlNet, a report.
        base: The base model; None takes that of the experiments.
        dataset: Folder of the prepared photos.
        root: Folder of the experiments.
        results: Folder of the images.
        report: Folder of the report.
        reproduce: Make so many images again from their records, and compare.

    Returns:
        The steps, in the assignment's order; `complete` says whether one is done.
    """
    done = [one for one in find(root) if one.status == "finished"]
    base = base or next((str(one.record.get("base")) for one in done), "mini")
    asked = asked_for(which, base, subject_of(done, root)) if which else {"dreambooth": {}, "lora": {}}
    steps = [
        Step("environment", this_machine().processor, tuple(findings(this_machine()))),
        _photos(Path(dataset), base),
        _base(base, root),
        *(_trainings(method, asked[method], done, which, Path(results)) for method in ("dreambooth", "lora")),
        _control(which, done, Path(results)),
        _report(Path(report)),
    ]
    if reproduce:
        steps.append(_made_again(reproduce, done, base, root, results))
    return steps


def _photos(folder: Path, base: str) -> Step:
    files, side = image_files(folder), profile(base).resolution
    missing = []
    if len(files) < PHOTOS:
        missing.append(
            f"{len(files)} of {PHOTOS} photos: put more into data/raw_images and run `sdlab prepare`"
        )
    sizes = {file.name: _size(file) for file in files}
    if odd := [name for name, (width, height) in sizes.items() if width != height or width < side]:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        missing.append(f"{odd[0]}{more} isn't {side}×{side}: run `sdlab prepare`")
    return Step("dataset", f"{len(files)} images in {folder}", tuple(missing))


def _size(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as image:
            return image.size
    except OSError:
        return (0, 0)


def _base(base: str, root: str | Path) -> Step:
    try:
        found = resolve(base, root).name
    except ValueError as error:
        return Step("base model", base, (f"{error} Convert yours: `sdlab convert FILE.safetensors`",))
    return Step("base model", found)


def _trainings(
    method: str, asked: dict[str, dict[str, Any]], done: list[Experiment], which: str | None, results: Path
) -> Step:
    """The experiments of a method: as many as are asked for, with these parameters, each with its images."""
    own = {one.name: one for one in done if one.hyperparameters.method == method}
    missing = [
        line for name, values in asked.items() if (line := _differs(name, values, own.get(name), which))
    ]
    enough = {"dreambooth": DREAMBOOTHS, "lora": LORAS}[method]
    if not asked and len(own) < enough:
        missing.append(f"{len(own)} of {enough} experiments: `sdlab train {method}`, `sdlab sweep {method}`")
    for name in (name for name in own if not asked or name in asked):
        shown = len({record.prompt_name for record in load_images(name, results=results)})
        if shown < PROMPTS:
            missing.append(f"images of {name} for {shown} of {PROMPTS} prompts: `sdlab generate {name}`")
    title = {"dreambooth": "DreamBooth", "lora": "LoRA"}[method]
    return Step(title, ", ".join(own) or "none is trained", tuple(missing))


def _differs(name: str, asked: dict[str, Any], trained: Experiment | None, which: str | None) -> str:
    """What an experiment lacks to be the homework's; nothing where it is."""
    if trained is None:
        return f"{name} isn't trained: `sdlab homework {which}` prints its command"
    own = trained.hyperparameters.as_dict()
    elsewhere = ("pretrained_model_name_or_path", "use_8bit_adam")  # decided by the machine
    differing = [
        f"{key}={number(own[key])} for {number(value)}"
        for key, value in asked.items()
        if key not in elsewhere and own[key] != value
    ]
    what = f"{name} was trained with {', '.join(differing)}: `sdlab homework {which}` prints the homework's"
    return what if differing else ""


def _control(which: str | None, done: list[Experiment], results: Path) -> Step:
    """Images with a control image, through a DreamBooth model and through a LoRA."""
    kinds = homework_file()[which]["control_kinds"] if which else ["canny", "depth", "pose"]
    methods = {one.name: one.hyperparameters.method for one in done}
    folders = [path.parent.name for path in sorted(results.glob("*/images.json"))]
    made = {
        (methods.get(record.experiment), str(one["kind"]))
        for record in _records(folders, results)
        for one in record.control
    }
    missing = []
    for method in dict.fromkeys(methods.values()):
        lacking = [kind for kind in kinds if (method, kind) not in made]
        if lacking:
            name = next(name for name, its in methods.items() if its == method)
            flags = " ".join(f"--kind {kind}" for kind in lacking)
            missing.append(
                f"{', '.join(lacking)} through a {method} experiment: `sdlab control --image "
                f"data/control_images/raised_arms.png {flags} --experiments {name}`"
            )
    if not done:
        missing.append("there is no finished experiment to control")
    return Step("ControlNet", ", ".join(sorted({kind for _, kind in made})) or "no images", tuple(missing))


def _report(folder: Path) -> Step:
    readme = folder / "README.md"
    if not readme.is_file():
        return Step("report", "none", ("run `sdlab report`, and write your conclusion into README.md",))
    try:
        own = read_kept(readme).texts
    except ValueError as error:
        return Step("report", str(readme), (str(error),))
    draft = (
        ()
        if own.get("conclusion")
        else (f"the conclusion is sdlab's draft: write yours between its marks in {readme}",)
    )
    return Step("report", str(readme), draft)


def _records(folders: Iterable[str], results: Path) -> Iterator[ImageRecord]:
    for folder in folders:
        yield from load_images(folder, results=results)


def _made_again(count: int, done: list[Experiment], base: str, root: str | Path, results: str | Path) -> Step:
    """Makes some images again from what they carry; what a student drew or took elsewhere differs."""
    names = ["base", *(one.name for one in done)]
    records = [record for record in _records(names, Path(results)) if not record.control]
    chosen = random.Random(0).sample(records, min(count, len(records)))
    missing = []
    for record in chosen:
        with tempfile.TemporaryDirectory() as folder:
            again = generate(
                record.experiment,
                PromptSet({record.prompt_name: record.prompt}, record.negative_prompt),
                images_per_prompt=1,
                seed=record.seed,
                num_inference_steps=record.num_inference_steps,
                guidance_scale=record.guidance_scale,
                sampler=record.sampler,
                width=record.width,
                height=record.height,
                base=base,
                root=root,
                results=folder,
                progress=False,
            )
            difference = _difference(record.path, again[0].path)
        if difference > SAME:
            missing.append(
                f"{record.path} isn't what its record makes: mean difference {difference:.0f} of 255"
            )
    return Step("made again", f"{len(chosen)} of {len(records)} images", tuple(missing))


def _difference(one: Path, other: Path) -> float:
    pixels = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) for path in (one, other)]
    same_shape = pixels[0].shape == pixels[1].shape
    return float(np.abs(pixels[0] - pixels[1]).mean()) if same_shape else 255.0
