"""Is a homework complete? The assignment's seven steps against what is on disk."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from PIL import Image, ImageChops, ImageStat

from sdlab.config import Hyperparameters, Range, number
from sdlab.experiment import Experiment, find, photos_of
from sdlab.files import placed
from sdlab.homeworks import asked_for
from sdlab.images import generate, load_images
from sdlab.machine import findings, this_machine
from sdlab.models import resolve
from sdlab.profiles import hyperparameters, profile, subject_of
from sdlab.prompts import PromptSet, homework_file
from sdlab.reports.document import read_places
from sdlab.sampling import image_files
from sdlab.subject import Subject

PROMPTS = 5  # what the assignment asks for at least
METHODS = {"dreambooth": ("DreamBooth", 2), "lora": ("LoRA", 3)}  # the step's title, and how many
PHOTOS = {"person": 15}  # of anything else the DreamBooth paper takes 4 to 6
OF_THE_MACHINE = ("pretrained_model_name_or_path", "use_8bit_adam")  # not the student's choice
REPEATED = ("seed", "num_inference_steps", "guidance_scale", "sampler", "width", "height")
SAME = 2.0  # mean difference, of 255, that another processor may make


@dataclass(frozen=True)
class Step:
    """One step of the assignment: what is there, and what is missing, with the way to it."""

    title: str
    found: str
    missing: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        return not self.missing

    def __str__(self) -> str:
        line = f"{'yes' if self.complete else 'no':<5}{self.title:<14}{self.found}"
        return "\n     - ".join([line, *self.missing])


def completeness(
    which: Literal["A", "B"] | None = None,
    *,
    base: str | None = None,
    dataset: str | Path | None = None,
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
        dataset: Folder of the prepared photos; None takes the one that the experiments were trained on.
        root: Folder of the experiments.
        results: Folder of the images.
        report: Folder of the report.
        reproduce: Make so many images again from their records, and compare.

    Returns:
        The steps, in the assignment's order; `complete` says whether one is done.
    """
    Range(0, "0 makes none.").check("reproduce", reproduce)
    root, results, report = (Path(place).expanduser() for place in (root, results, report))
    done = [one for one in find(root) if one.status == "finished"]
    base = base or next((str(one.record["base"]) for one in done if one.record.get("base")), "mini")
    try:
        subject = subject_of(done, root)
    except ValueError:  # several
        subject = Subject()
    dataset = Path(photos_of(done) if dataset is None else dataset).expanduser()
    places = {"root": root, "results": results, "subject": subject.phrase}
    asked = asked_for(which, base, subject) if which else {"dreambooth": {}, "lora": {}}
    kinds = homework_file()[which]["control_kinds"] if which else ["canny", "depth", "pose"]
    names, machine = {name for method in METHODS for name in asked[method]}, this_machine()
    steps = [
        Step("environment", machine.processor, findings(machine)),
        _photos(dataset, base, PHOTOS.get(subject.kind, 4), places),
        _base(base, root),
        *(_trainings(method, base, asked[method], done, which, places) for method in METHODS),
        _control(kinds, done, places),
        _report(report / "README.md", [one.name for one in done if not which or one.name in names], places),
    ]
    return [*steps, _made_again(reproduce, done, base, root, results)] if reproduce > 0 else steps


def _photos(folder: Path, base: str, enough: int, places: dict[str, Any]) -> Step:
    side = profile(base).resolution
    prepare = "sdlab prepare" + (f" --base {base}" if base != "mini" else "")
    prepare += f" --out {folder}" if folder != Path(Hyperparameters.instance_data_dir) else ""
    prepare = placed(prepare, subject=places["subject"])
    files = image_files(folder)
    few = f"{len(files)} of {enough} photos: put more into data/raw_images and run `{prepare}`"
    missing = [few] if len(files) < enough else []
    if odd := [file.name for file in files if not _is_square(file, side)]:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        missing.append(f"{odd[0]}{more} isn't {side}×{side}: run `{prepare}`; crop one of your own yourself")
    return Step("dataset", f"{len(files)} images in {folder}", missing)


def _is_square(file: Path, side: int) -> bool:
    try:
        with Image.open(file) as image:
            return image.width == image.height >= side
    except OSError:
        return False


def _base(base: str, root: str | Path) -> Step:
    try:
        return Step("base model", resolve(base, root).name)
    except ValueError as error:
        return Step("base model", base, [f"{error} Convert yours: `sdlab convert FILE.safetensors`"])


def _trainings(
    method: str,
    base: str,
    asked: dict[str, dict[str, Any]],
    done: list[Experiment],
    which: str | None,
    places: dict[str, Any],
) -> Step:
    """The experiments of a method: as many as are asked for, with these parameters, each with its images."""
    title, enough = METHODS[method]
    own = {one.name: one for one in done if one.hyperparameters.method == method}
    missing, root, subject = [], {"root": places["root"]}, {"subject": places["subject"]}
    homework = placed(f"sdlab homework {which}", **subject)
    for name, values in asked.items():
        if name not in own:
            missing.append(f"{name} isn't trained: `{homework}` prints its command")
            continue
        trained = own[name].hyperparameters.as_dict()
        wrong = [key for key, value in values.items() if key not in OF_THE_MACHINE and trained[key] != value]
        if differing := ", ".join(f"{key}={number(trained[key])} for {number(values[key])}" for key in wrong):
            missing.append(f"{name} was trained with {differing}: `{homework}` prints the homework's")
    if not asked and len(own) < enough:
        rate = hyperparameters(method, base).learning_rate
        rates = " ".join(number(times * rate) for times in (0.25, 0.5, 1)[-enough:])
        on = "" if base == "mini" else f" --pretrained_model_name_or_path {base}"
        sweep = placed(f"sdlab sweep {method} --learning_rates {rates}{on}", **root, **subject)
        train = placed(f"sdlab train {method}{on}", **root, **subject)
        begin = "" if own else f"`{train}`, and others with "
        missing.append(f"{len(own)} of {enough} experiments: {begin}`{sweep}`")
    for name in [name for name in own if not asked or name in asked]:
        shown = len({record.prompt_name for record in load_images(name, results=places["results"])})
        if shown < PROMPTS:
            command = placed(f"sdlab generate {name}", **root, results=places["results"])
            missing.append(f"images of {name} for {shown} of {PROMPTS} prompts: `{command}`")
    return Step(title, ", ".join(own) or "none is trained", missing)


def _control(kinds: list[str], done: list[Experiment], places: dict[str, Any]) -> Step:
    """Images with a control image, through a DreamBooth model and through a LoRA."""
    root, results = places["root"], places["results"]
    methods = {one.name: one.hyperparameters.method for one in done}
    made = {
        (methods.get(record.experiment), str(one["kind"]))
        for path in results.glob("*/images.json")
        for record in load_images(path.parent.name, results=results)
        for one in record.control
    }
    missing = [] if done else ["there is no finished experiment to control"]
    for method in METHODS:
        names = [name for name, its in methods.items() if its == method]
        lacking = [kind for kind in kinds if names and (method, kind) not in made]
        if lacking:
            flags = " ".join(f"--kind {kind}" for kind in lacking)
            command = f"sdlab control --image data/control_images/raised_arms.png {flags}"
            command = placed(f"{command} --experiments {names[0]}", root=root, results=results)
            missing.append(f"{', '.join(lacking)} through a {method} experiment: `{command}`")
    return Step("ControlNet", ", ".join(sorted({kind for _, kind in made})) or "no images", missing)


def _report(readme: Path, wanted: Iterable[str], places: dict[str, Any]) -> Step:
    """The report, with the student's own conclusion; it shows all experiments that are wanted."""
    out = "" if readme.parent == Path("results/report") else f" --out {readme.parent}"
    again = f"run `{placed(f'sdlab report{out}', root=places['root'], results=places['results'])}`"
    if not readme.is_file():
        return Step("report", "none", [f"{again}, and write your conclusion into README.md"])
    try:
        written = read_places(readme)[0].get("conclusion")
    except ValueError as error:
        return Step("report", str(readme), [str(error)])
    text = readme.read_text(encoding="utf-8")
    draft = f"the conclusion is sdlab's draft: write yours between its marks in {readme}"
    if "<!-- conclusion " not in text:
        draft = (
            f"{readme} has no place for the conclusion: {again}, which makes it, and write between its marks"
        )
    missing = [] if written else [draft]
    if absent := [name for name in wanted if f"`{name}`" not in text]:
        missing.append(f"it doesn't show {', '.join(absent)}: {again}")
    return Step("report", str(readme), missing)


def _made_again(count: int, done: list[Experiment], base: str, root: str | Path, results: Path) -> Step:
    """Makes some images again from what they carry; what a student drew or took elsewhere differs."""
    names = ["base", *(one.name for one in done)]
    carried = [one for name in names for one in load_images(name, results=results) if not one.control]
    chosen = random.Random(0).sample(carried, min(count, len(carried)))
    missing = []
    for record in chosen:
        prompts = PromptSet({record.prompt_name: record.prompt}, record.negative_prompt)
        options: dict[str, Any] = {name: getattr(record, name) for name in REPEATED} | {"base": base}
        options |= {"root": root, "images_per_prompt": 1, "progress": False}
        with tempfile.TemporaryDirectory() as folder:
            (again,) = generate(record.experiment, prompts, results=folder, **options)
            difference = _difference(record.path, again.path)
        if difference > SAME:
            missing.append(
                f"{record.path} isn't what its record makes: mean difference {difference:.0f} of 255"
            )
    return Step("made again", f"{len(chosen)} of {len(carried)} images", missing)


def _difference(one: Path, other: Path) -> float:
    """The mean difference of two pictures' pixels, of 255."""
    with Image.open(one) as first, Image.open(other) as second:
        if first.size != second.size:
            return 255.0
        return fmean(ImageStat.Stat(ImageChops.difference(first.convert("RGB"), second.convert("RGB"))).mean)
