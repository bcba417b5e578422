"""What each subcommand of `sdlab` takes and prints: the function of its stage, made into a command."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from json import dumps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tyro.conf import Positional, UseAppendAction, arg

from sdlab.config import METHODS, DreamBooth, LoRA
from sdlab.prompts import PromptSet
from sdlab.subject import Subject

# What several commands say of the same option.
COMMON = """
    Args:
        prompts: homework_a, homework_b, paper_live, paper_objects, or a JSON file of names to prompts; None
            takes those of the images, or what suits the subject.
        subject: Who or what the photos show, such as "sks dog"; None takes the one of the experiments.
        json: Print JSON; what happens meanwhile goes to stderr.
        profile: Where defaults come from: mini, sd15, sd15-16gb, sd15-8gb; auto takes what fits the machine.
        base: The base model: mini, sd15, a folder, a file, or an experiment.
"""


def option_of(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


# How experiments and prompts, which are objects in Python, are given on a command line.
EDGES: dict[str, list[tuple[str, Any, Any]]] = {
    "experiments": [("experiments", Positional[tuple[str, ...]], ())],
    "prompts": [("prompts", str | None, None), ("subject", str | None, None)],
}


@dataclass(frozen=True)
class Command:
    """A subcommand: `run` is given the function it is made from, and the options that both of them take."""

    run: Callable[..., None]
    function: str  # "module:name"
    also: tuple[str, ...]  # whatever else has options that are given to the function

    @property
    def summary(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]

    def options(self) -> dict[str, inspect.Parameter]:
        """The command's own options; where it takes any, those of its functions besides."""
        own = [*inspect.signature(self.run, eval_str=True).parameters.values()][1:]
        found = {option.name: option for option in own if option.kind is not option.VAR_KEYWORD}
        targets = (self.function, *self.also) if len(found) < len(own) else ()
        for target in map(imported, targets):
            for name, option in inspect.signature(target).parameters.items():
                kind = _type(option.annotation, target)
                if name in EDGES:
                    for edge, given, default in EDGES[name]:
                        found.setdefault(edge, option_of(edge, given, default))
                elif kind is not None and name != "progress":
                    found.setdefault(name, option.replace(annotation=kind))
        return {name: option.replace(kind=option.KEYWORD_ONLY) for name, option in found.items()}

    def help(self) -> str:
        """The summary, and what the docstrings say of the options; the command's own counts most."""
        texts = [imported(target).__doc__ or "" for target in (self.function, *self.also)]
        blocks = [
            re.search(r"Args:\n((?: {4}.*\n?)+)", inspect.cleandoc(text) + "\n")
            for text in (*texts, COMMON, self.run.__doc__ or "")
        ]
        return f"{self.summary}\n\nArgs:\n" + "".join(block[1] for block in blocks if block)


COMMANDS: dict[str, Command] = {}
TRAINING: dict[str, Command] = {}  # those whose options are also the hyperparameters of a method
Run = Callable[..., Any]


def command(name: str, function: str, *also: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a subcommand from a function and what is to be done with its result."""

    def add(run: Callable[..., None]) -> Callable[..., None]:
        made = Command(run, function, also)
        if "hyperparameters" in inspect.signature(run).parameters:
            TRAINING.update({f"{name} {method}": made for method in METHODS})
        else:
            COMMANDS[name] = made
        return run

    return add


@command("demo", "sdlab.demonstration:demo")
def demo(run: Run, root: Path = Path()) -> None:
    """The homework from photos to report on the mini model."""
    run(root)


@command("prepare", "sdlab.photos:prepare")
def prepare(
    run: Run,
    resolution: int | None = None,
    base: str = "mini",
    subject: str | None = None,
    drop: str = "",
    **options: Any,
) -> None:
    """Photos -> square images around the subject, and what will spoil the training.

    Args:
        resolution: Side of the images in pixels; None takes the base model's.
        subject: Who or what the photos show, such as "sks dog"; it says the kind.
        drop: Findings whose photos are left out, such as blurry,duplicates.
    """
    from sdlab.photos import save_sheet
    from sdlab.profiles import profile

    side = resolution if resolution is not None else profile(base).resolution
    if subject:
        options["subject_kind"] = Subject.parse(subject).kind
    kinds = [kind.strip() for kind in drop.split(",") if kind.strip()]
    dataset = run(resolution=side, drop=kinds, **options)
    print(f"{dataset.summary()}\n\nbefore and after: {save_sheet(dataset)}")
    if errors := [finding for finding in dataset.findings if finding.level == "error"]:
        raise ValueError(
            f"{errors[0].text}: {errors[0].effect}. Add photos to {options['raw']} and run it again."
        )


@command("class-images", "sdlab.images:class_images")
def class_images(
    run: Run,
    class_prompt: str | None = None,
    num: Annotated[int | None, arg(aliases=["--num_class_images"])] = None,
    base: str = "mini",
    subject: str | None = None,
    folder: Annotated[str | None, arg(aliases=["--class_data_dir"])] = None,
    negative_prompt: str = "",
    **options: Any,
) -> None:
    """Images of the class, which prior preservation learns from.

    Args:
        class_prompt: What they show; None takes the subject's class.
        num: How many are wanted; None takes the profile's.
        folder: Filled up to the number; None takes one below data/class_images.
        negative_prompt: What they don't show.
    """
    from sdlab.profiles import hyperparameters

    chosen = hyperparameters("dreambooth", base, subject=subject)
    num, prompt = num if num is not None else chosen.num_class_images, class_prompt or chosen.class_prompt
    made = run(base, prompt, num, folder=folder, negative_prompt=negative_prompt, **options)
    print(f"{num} images of {prompt!r} in {made}")


@command("train", "sdlab.training:train")
def train(
    run: Run,
    hyperparameters: DreamBooth | LoRA,
    name: str | None = None,
    output_dir: Path | None = None,
    root: Path = Path("experiments"),
    **options: Any,
) -> None:
    """One experiment; one that was killed goes on, a finished one is kept.

    Args:
        name: The experiment's name; None takes one made from the method, rank and learning rate.
        output_dir: diffusers' way to say it: the experiment's folder.
    """
    from sdlab.sweeps import experiment_name

    if name and output_dir:
        raise ValueError(
            f"--name {name} and --output_dir {output_dir} both name the experiment. Give one of them."
        )
    if output_dir:
        base = root / hyperparameters.pretrained_model_name_or_path
        if (base / "experiment.json").is_file():  # where it is, whatever folder the new one goes to
            hyperparameters = replace(hyperparameters, pretrained_model_name_or_path=base.as_posix())
        name, root = output_dir.name, output_dir.parent
    made = run(name or experiment_name(hyperparameters), hyperparameters, root=root, **options)
    if made.status == "stopped":
        raise KeyboardInterrupt(f"{made.name} was interrupted; the same command goes on from there")
    print(f"{made.status}: {made.path}. Images of it: sdlab generate base {made.name}")


@command("sweep", "sdlab.sweeps:sweep")
def sweep(
    run: Run,
    hyperparameters: DreamBooth | LoRA,
    learning_rates: tuple[float, ...] = (),
    ranks: tuple[int, ...] = (),
    prior_loss_weights: tuple[float, ...] = (),
    json: bool = False,
    **options: Any,
) -> None:
    """An experiment for every combination of some values.

    Args:
        learning_rates: Values of --learning_rate to try.
        ranks: Values of --rank to try (LoRA).
        prior_loss_weights: Values of --prior_loss_weight to try.
    """
    from sdlab.tables import summary

    values = {"learning_rate": learning_rates, "rank": ranks, "prior_loss_weight": prior_loss_weights}
    grid: dict[str, Any] = {name: list(given) for name, given in values.items() if given}
    if not grid:
        raise ValueError("a sweep needs values: --learning_rates 2e-5 2e-4, or --ranks 2 4 8.")
    with stdout_to_stderr(json):
        done = run(hyperparameters, **options, **grid)
    print(
        as_json({one.name: one.record for one in done})
        if json
        else summary(done, root=options["root"]).text()
    )


@command("preflight", "sdlab.training:preflight")
def preflight(run: Run, hyperparameters: DreamBooth | LoRA, json: bool = False, **options: Any) -> None:
    """The time, memory and disk a training will take, from two steps of it."""
    with stdout_to_stderr(json):
        trial = run(hyperparameters, **options)
    print(as_json(asdict(trial)) if json else trial.text())


@command("generate", "sdlab.images:generate")
def generate(run: Run, json: bool = False, **options: Any) -> None:
    """Images of experiments for a prompt set; those that are there are kept.

    Args:
        experiments: Names; base is the base model itself. Without any: base and all that are finished.
    """
    names, chosen = _names_and_prompts(options)
    with stdout_to_stderr(json):
        images = run(names, chosen, **options)
    said = f"{len(images)} images of {', '.join(names)} in {options['results']}"
    print(as_json([{"path": str(one.path), **one.as_dict()} for one in images]) if json else said)


@command("control", "sdlab.images:generate", "sdlab.control:Control")
def control(
    run: Run,
    image: Path,
    kind: Annotated[tuple[Literal["canny", "depth", "pose"], ...], UseAppendAction],
    experiments: tuple[str, ...] = (),
    scale: tuple[float, ...] = (1.0,),
    together: bool = False,
    columns: Literal["control", "scale", "experiment", "prompt"] = "prompt",
    out: Path | None = None,
    images_per_prompt: int = 1,
    sampler: str = "unipc",
    **options: Any,
) -> None:
    """Images that keep to a picture's edges, depth or pose, and a table of them.

    Args:
        kind: canny, depth or pose; several times for several.
        experiments: Names; base is the base model itself. Without any: base and all that are finished.
        scale: Strength of the control; several values make images for each.
        together: All kinds control the same images, instead of images for each kind.
        columns: What stands in the table's columns; kinds stand in its rows, or experiments.
        out: The table: .png, .webp, .jpg, .pdf, .html or .md; None takes results/control_<columns>.png.
    """
    from sdlab.control import Control, NothingFound
    from sdlab.tables import control_table

    options |= {"experiments": experiments, "images_per_prompt": images_per_prompt, "sampler": sampler}
    names, chosen = _names_and_prompts(options)
    settings = {field.name: options.pop(field.name) for field in fields(Control) if field.name in options}
    each = [[Control(one, image, value, **settings) for one in kind] for value in scale]
    sets = each if together else [[control] for controls in each for control in controls]
    images = []
    for controls in sets:
        try:
            images += run(names, chosen, control=controls, **options)
        except NothingFound as reason:
            if len(kind) == 1 or together:
                raise
            print(f"{controls[0].kind} is left out. {reason}")
    rows: Literal["control", "experiment"] = "experiment" if columns == "control" else "control"
    made = control_table(images, rows=rows, columns=columns, root=options["root"])
    print(f"{made.save(out or Path(options['results']) / f'control_{columns}.png')}: {made.size}")


@command("table", "sdlab.tables:table")
def table(
    run: Run,
    out: Path = Path("results/table.png"),
    reference: Path | None = None,
    title: str = "",
    **options: Any,
) -> None:
    """Images side by side, experiments × prompts.

    Args:
        out: The file; .png, .webp, .jpg, .pdf, .html or .md says in what form.
        reference: A photo of the subject or a folder of them, as the first row or column.
        title: Line above the table.
    """
    from sdlab.tables import prompts_of

    named = options["prompts"]
    names, chosen = _names_and_prompts(options)
    chosen = chosen if named else prompts_of(names, results=options["results"])
    made = run(names, chosen, reference=reference, **options)
    print(f"{made.save(out, title=title)}: {made.size}")


@command("score", "sdlab.scores:score")
def score(run: Run, json: bool = False, plot: Path | None = None, **options: Any) -> None:
    """Likeness, prompt fidelity, diversity, drift and copies; which is best.

    Args:
        experiments: Names; also LORA@0.7 and LORA@step100 if they have images. Without any: base and all
            that are finished and have images.
        plot: File for the plot of likeness against prompt fidelity, as PNG and PDF.
    """
    from sdlab.scores import recommend

    results = Path(options["results"])
    names = [n for n in finished(options["root"]) if (results / n / "images.json").is_file()]
    scores = run(options.pop("experiments") or names, **options)
    choice = recommend(scores) if scores.eligible else None
    if plot is not None:
        from sdlab.scores.plots import save, tradeoff

        written = save(tradeoff(scores), plot)
    if json:
        values = {name: asdict(tally) for name, tally in scores.tallies.items()}
        print(as_json({"scores": values, "recommendation": asdict(choice) if choice else None}))
        return
    print(scores)
    print(f"\n{choice}\nrule: {choice.rule}" if choice else "")
    if plot is not None:
        print(f"plot: {', '.join(map(str, written))}")


@command("report", "sdlab.reports:report")
def report(
    run: Run, best_dreambooth: str | None = None, best_lora: str | None = None, **options: Any
) -> None:
    """The report that is handed in: README.md, report.html and report.pdf.

    Args:
        experiments: Names; without any: all that there are.
        best_dreambooth: The DreamBooth that is compared with the best LoRA.
        best_lora: The LoRA that is compared with the best DreamBooth.
    """
    experiments, named = options["experiments"], options["prompts"]
    chosen = _names_and_prompts(options)[1]
    best = {"dreambooth": best_dreambooth, "lora": best_lora}
    best = {method: name for method, name in best.items() if name}
    path = run(experiments or None, chosen if named else None, best=best or None, **options)
    print(f"the report: {path}, {path.with_name('report.pdf')} and {path.with_name('README.md')}")


@command("convert", "sdlab.formats:convert")
def convert(
    run: Run, file: Positional[str], out: Positional[str] = "cache_dir/models/civitai_model", **options: Any
) -> None:
    """A checkpoint from Civitai -> a base model in the diffusers layout."""
    print(f"{run(file, out, **options)}: a base model, ready to train from")


@command("export lora", "sdlab.exports:export_lora")
def export_lora(run: Run, experiment: Positional[str], out: Path | None = None, **options: Any) -> None:
    """A LoRA -> one file for A1111, Forge, ComfyUI or diffusers, with its card.

    Args:
        out: The .safetensors file to make; None takes the experiment's name.
    """
    out = out or Path(f"{Path(experiment).name}.safetensors")
    run(experiment, out, **options)
    print(f"{out}, and its model card: {out.with_suffix('.md')}")


@command("export model", "sdlab.exports:export_model")
def export_model(run: Run, base: Positional[str], out: Path | None = None, **options: Any) -> None:
    """A model -> one file for A1111, Forge, ComfyUI; a LoRA is merged into it.

    Args:
        base: Name of a finished experiment, or a base model.
        out: The .safetensors file or the folder to make; None takes the model's name.
    """
    name = Path(base).name.removesuffix(".safetensors")
    out = out or Path(f"{name}.safetensors" if options["format"] == "single-file" else name)
    print(f"{run(base, out, **options)}: the whole model")


@command("homework", "sdlab.homeworks:commands")
def homework(
    run: Run, which: Positional[Literal["A", "B"]], base: str = "mini", subject: str = "sks woman"
) -> None:
    """The commands of homework A or B, to run, change or paste.

    Args:
        which: A sweeps learning rate and rank, B sweeps DreamBooth and trains LoRAs on top of it.
    """
    for words in run(which, base, subject=subject):
        print(shlex.join(["sdlab", *words]))


@command("check", "sdlab.handin:completeness")
def check(
    run: Run, which: Positional[Literal["A", "B"] | None] = None, json: bool = False, **options: Any
) -> None:
    """Is this homework complete? What is missing, with the command for it."""
    with stdout_to_stderr(json):
        steps = run(which, **options)
    complete = all(step.complete for step in steps)
    if json:
        print(as_json({"complete": complete, "steps": [asdict(step) for step in steps]}))
    else:
        print(*steps, "complete" if complete else "not complete yet", sep="\n")
    if not complete:
        raise SystemExit(1)


@command("sync", "sdlab.backup:sync")
def sync(run: Run, place: Positional[str], **options: Any) -> None:
    """Finished work to a folder that outlives the machine, and back."""
    run(place, **options)


@command("environment", "sdlab.machine:check")
def environment(run: Run, json: bool = False) -> None:
    """What this machine is, what was chosen and why, and what fits it."""
    from sdlab import machine

    print(as_json(machine.facts()) if json else run())


@contextmanager
def stdout_to_stderr(json: bool) -> Iterator[None]:
    """Leaves stdout to the JSON alone, so that a script can read it."""
    with redirect_stdout(sys.stderr) if json else nullcontext():
        yield


def as_json(value: Any) -> str:
    """What `--json` prints."""
    return dumps(value, indent=1, default=str)


def finished(root: str | Path) -> list[str]:
    """`base` and every finished experiment."""
    from sdlab.experiment import find

    return ["base", *(one.name for one in find(root) if one.status == "finished")]


def _names_and_prompts(options: dict[str, Any]) -> tuple[list[str], PromptSet]:
    """Takes out of the options the experiments that are meant, and the prompts about what they learned."""
    from sdlab.profiles import subject_of
    from sdlab.prompts import prompt_set

    names = list(options.pop("experiments")) or finished(options["root"])
    subject = options.pop("subject") or subject_of(names, options["root"])
    return names, prompt_set(options.pop("prompts"), subject)


def imported(target: str) -> Callable[..., Any]:
    """What `module:name` means."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _type(annotation: Any, target: Callable[..., Any]) -> Any | None:
    """What a command line can give of an option's type, None where that is nothing."""
    try:
        names = vars(sys.modules[target.__module__])
        kind = eval(annotation, names) if isinstance(annotation, str) else annotation
    except NameError:  # imported for type checkers alone
        return None
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    readable = [one for one in members if one in (str, int, float, bool, Path) or get_origin(one) is Literal]
    if not readable:
        return None
    return Union[*readable, NoneType] if NoneType in members else Union[*readable]
