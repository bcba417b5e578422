"""`sdlab`: each command is the function of its stage, with that function's own signature and docstring.

A command adds what only a command line needs, and returns what is printed.
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import re
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from functools import partial
from inspect import Parameter
from itertools import product
from json import dumps
from pathlib import Path
from pkgutil import resolve_name
from shlex import quote
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from sdlab.config import METHODS, PRIOR, DreamBooth, LoRA, number
from sdlab.prompts import PromptSet
from sdlab.subject import Kind, Subject

OVERVIEW = """\
sdlab teaches Stable Diffusion one subject from about twenty photos, and compares the ways to do it.

usage: sdlab COMMAND [OPTIONS]        sdlab COMMAND --help lists the options; METHOD is dreambooth or lora

Each goes on from what the ones before it left on disk:

"""
# Options of several commands; what is an object in Python is given by its name here.
SHARED = """Args:
    prompts: homework_a, homework_b, paper_live, paper_objects, or a JSON file of names to prompts; None takes
        those of the images, or what suits the subject.
    subject: Who or what the photos show, such as "sks dog"; None takes the experiments', or the dataset's.
    base: The base model: mini, sd15, a folder, a file, or an experiment.
    profile: Where defaults come from: mini, sd15, sd15-16gb, sd15-8gb; auto takes what fits the machine.
    sampler: dpm++, unipc, euler, ddim, or own, which is the base model's.
    json: Print JSON; what happens meanwhile goes to stderr.
"""
Names = Positional[tuple[str, ...]]


class Answer(NamedTuple):
    """What a command prints, and what it prints with `--json`."""

    text: str
    data: Any
    code: int = 0


@dataclass(frozen=True)
class Command:
    """A subcommand: `run` is given the function it is made from, and the options that both of them take."""

    run: Callable[..., str | Answer | None]
    targets: tuple[str, ...]  # "module:name" of the function, and of whatever else has options for it
    method: str = ""  # of those whose options are also a method's hyperparameters

    @property
    def summary(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]

    def options(self, defaults: DreamBooth | LoRA | None = None) -> dict[str, Parameter]:
        """The command's own options; where it takes any, those of its functions besides."""
        signature = inspect.signature(self.run, eval_str=True)
        own = [*signature.parameters.values()][1:]
        found = {option.name: option for option in own if option.kind is not option.VAR_KEYWORD}
        if self.method:  # each hyperparameter is a flag without a prefix
            flat = Annotated[METHODS[self.method], arg(name="")]  # type: ignore[valid-type,name-defined]
            found["hyperparameters"] = own[0].replace(annotation=flat, default=defaults)
            first = inspect.signature(_defaults, eval_str=True).parameters
            found |= {name: first[name] for name in ("profile", "subject")}
        if signature.return_annotation is Answer:
            found["json"] = Parameter("json", Parameter.KEYWORD_ONLY, default=False, annotation=bool)
        targets = self.targets if own and own[-1].kind is Parameter.VAR_KEYWORD else ()
        for target in map(resolve_name, targets):
            for name, option in inspect.signature(target).parameters.items():
                if name != "progress" and (kind := _readable(option.annotation, target)):
                    found.setdefault(name, option.replace(annotation=kind))
        return {name: option.replace(kind=Parameter.KEYWORD_ONLY) for name, option in found.items()}

    def help(self) -> str:
        """The summary, and what the docstrings say of the options; the command's own counts most."""
        sources = [*map(inspect.getdoc, map(resolve_name, self.targets)), SHARED, inspect.getdoc(self.run)]
        blocks = [re.search(r"Args:\n((?: {4}.*\n?)+)", f"{one}\n") for one in sources]
        return f"{self.summary}\n\nArgs:\n" + "".join(block[1] for block in blocks if block)

    def __call__(self, **values: Any) -> None:
        json = values.pop("json", False)
        with redirect_stdout(sys.stderr) if json else nullcontext():  # stdout is left to the JSON alone
            said = self.run(resolve_name(self.targets[0]), **values)
        text, data, code = said if isinstance(said, Answer) else (said, None, 0)
        if text is not None:
            print(dumps(data, indent=1, default=str) if json else text)
        if code:
            raise SystemExit(code)


COMMANDS: dict[str, Command] = {}
Run = Callable[..., Any]


def command(name: str, *targets: str) -> Callable[[Run], Run]:
    """Makes a subcommand from a function and what is to be done with its result."""

    def add(run: Run) -> Run:
        if "hyperparameters" in inspect.signature(run).parameters:
            COMMANDS.update({f"{name} {method}": Command(run, targets, method) for method in METHODS})
        else:
            COMMANDS[name] = Command(run, targets)
        return run

    return add


@command("demo", "sdlab.course.demonstration:demo")
def demo(run: Run, root: Path = Path()) -> None:
    """The whole homework on the embedded mini model, in minutes, without a GPU."""
    run(root)


@command("prepare", "sdlab.photos:prepare")
def prepare(
    run: Run,
    resolution: int | None = None,
    base: str = "mini",
    subject: str | None = None,
    subject_kind: Kind | None = None,
    drop: str = "",
    **options: Any,
) -> str:
    """Photos -> square images around the subject, and what will spoil the training.

    Args:
        resolution: Side of the images in pixels; None takes the base model's.
        subject_kind: person, animal, thing or style; None takes what the subject's class says. Without both
            the dataset's own are taken, else sks woman.
        drop: Findings whose photos are left out, such as blurry,duplicates.
    """
    from sdlab.photos import save_sheet
    from sdlab.profiles import profile

    side = resolution if resolution is not None else profile(base).resolution
    meant = subject_kind if subject is None else Subject.parse(subject, subject_kind or "")
    left_out = [finding.strip() for finding in drop.split(",") if finding.strip()]
    dataset = run(resolution=side, subject_kind=meant, drop=left_out, **options)
    said = f"{dataset.summary()}\n\nbefore and after: {save_sheet(dataset)}"
    if errors := [finding for finding in dataset.findings if finding.level == "error"]:
        print(said)
        raise ValueError(
            f"{errors[0].text}: {errors[0].effect}. Add photos to {options['raw']} and run it again."
        )
    return said


@command("class-images", "sdlab.sampling:class_images")
def class_images(
    run: Run,
    class_prompt: str | None = None,
    num: Annotated[int | None, arg(aliases=["--num_class_images"])] = None,
    base: str = "mini",
    subject: str | None = None,
    folder: Annotated[str | None, arg(aliases=["--class_data_dir"])] = None,
    negative_prompt: str = "",
    **options: Any,
) -> str:
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
    return f"{num} images of {prompt!r} in {made}"


@command("train", "sdlab.training:train")
def train(
    run: Run,
    hyperparameters: DreamBooth | LoRA,
    name: str | None = None,
    output_dir: Path | None = None,
    root: Path = Path("experiments"),
    **options: Any,
) -> str:
    """One experiment; one that was killed goes on, a finished one is kept.

    Args:
        name: The experiment's name, which may also stand first, without --name; None takes one made from the
            method, rank and learning rate.
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
    name = experiment_name(hyperparameters) if name is None else name
    made = run(name, hyperparameters, root=root, **options)
    if made.status == "stopped":
        raise KeyboardInterrupt(f"{made.name} was interrupted; the same command goes on from there")
    there = "" if root == Path("experiments") else f" --root {quote(str(root))}"
    return f"{made.status}: {made.path}. Images of it: sdlab generate base {made.name}{there}"


@command("sweep", "sdlab.sweeps:sweep")
def sweep(
    run: Run,
    hyperparameters: DreamBooth | LoRA,
    learning_rates: tuple[float, ...] = (),
    ranks: tuple[int, ...] = (),
    prior_loss_weights: tuple[float, ...] = (),
    **options: Any,
) -> Answer:
    """An experiment for every combination of some values.

    Args:
        learning_rates: Values of --learning_rate to try.
        ranks: Values of --rank to try (LoRA).
        prior_loss_weights: Values of --prior_loss_weight to try.
    """
    from sdlab.sweeps import plan
    from sdlab.tables import summary
    from sdlab.workers import share

    grid = {"learning_rate": learning_rates, "rank": ranks, "prior_loss_weight": prior_loss_weights}
    grid = {name: values for name, values in grid.items() if values}
    if not grid:
        raise ValueError("a sweep needs values: --learning_rates 2e-5 2e-4, or --ranks 2 4 8.")
    wanted = share(plan(hyperparameters, prefix=options["prefix"], **grid), options["part"] or "1/1")
    done = run(hyperparameters, **options, **grid)
    records = {one.name: one.record for one in done if one.status == "finished"}
    lacking = len(wanted) - len(records)
    said = f"{summary(done, root=options['root'])}" + f"\n{lacking} of {len(wanted)} failed" * (lacking > 0)
    return Answer(said, {one.name: one.record for one in done}, int(lacking > 0))


@command("preflight", "sdlab.training:preflight")
def preflight(run: Run, hyperparameters: DreamBooth | LoRA, **options: Any) -> Answer:
    """The time, memory and disk a training will take, from two steps of it."""
    trial = run(hyperparameters, **options)
    return Answer(trial.text(), asdict(trial))


@command("generate", "sdlab.images:generate", "sdlab.workers:spread")
def generate(
    run: Run, experiments: Names = (), prompts: str | None = None, subject: str | None = None, **options: Any
) -> Answer:
    """Images of experiments for a prompt set; those that are there are kept.

    Args:
        experiments: Names; base is the base model itself. Without any: base and all that are finished.
    """
    names = _names(experiments, options["root"])
    chosen = _prompts(prompts, subject, names, options["root"])
    names = _spread(partial(run, prompts=chosen), names, options)
    images = run(names, chosen, **options)
    said = f"{len(images)} images of {', '.join(names)} in {options['results']}"
    return Answer(said, [{"path": str(one.path), **one.as_dict()} for one in images])


@command("control", "sdlab.images:generate", "sdlab.control:Control")
def control(
    run: Run,
    image: Path,
    kind: Annotated[tuple[Literal["canny", "depth", "pose"], ...], UseAppendAction],
    experiments: tuple[str, ...] = (),
    prompts: str | None = None,
    subject: str | None = None,
    scale: tuple[float, ...] = (1.0,),
    together: bool = False,
    columns: Literal["control", "scale", "experiment", "prompt"] = "prompt",
    out: Path | None = None,
    images_per_prompt: int = 1,
    sampler: str = "unipc",
    **options: Any,
) -> str:
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

    _keep(out, image)
    names = _names(experiments, options["root"])
    chosen = _prompts(prompts, subject, names, options["root"])
    settings = {field.name: options.pop(field.name) for field in fields(Control) if field.name in options}
    options |= {"images_per_prompt": images_per_prompt, "sampler": sampler}
    sets = [kind] if together else [(one,) for one in kind]
    images = []
    for value, kinds in product(scale, sets):
        controls = [Control(one, image, value, **settings) for one in kinds]
        try:
            images += run(names, chosen, control=controls, **options)
        except NothingFound as reason:
            if len(sets) == 1:
                raise
            print(f"{kinds[0]} is left out. {reason}")
    rows: Literal["control", "experiment"] = "experiment" if columns == "control" else "control"
    made = control_table(images, rows=rows, columns=columns, root=options["root"])
    return f"{made.save(out or Path(options['results']) / f'control_{columns}.png')}: {made.size}"


@command("table", "sdlab.tables:table")
def table(
    run: Run,
    experiments: Names = (),
    prompts: str | None = None,
    subject: str | None = None,
    out: Path | None = None,
    reference: Path | None = None,
    title: str = "",
    **options: Any,
) -> str:
    """Images side by side, experiments × prompts.

    Args:
        experiments: Names; without any: base and all that are finished.
        out: The file; .png, .webp, .jpg, .pdf, .html or .md says in what form; None takes results/table.png.
        reference: A photo of the subject or a folder of them, as the first row or column.
        title: Line above the table.
    """
    from sdlab.models import resolve
    from sdlab.tables import prompts_of
    from sdlab.tables.figures import hyperparameters_of

    _keep(out, reference)
    names = _names(experiments, options["root"])
    for name in names:  # one that is nothing here is misspelt, which is said
        known = name == "base" or (Path(options["results"]) / name).is_dir()
        if not known and not hyperparameters_of(name.split("@")[0], options["root"]):
            resolve(name, options["root"])
    if prompts:
        chosen = _prompts(prompts, subject, names, options["root"])
    else:
        chosen = prompts_of(names, results=options["results"])
    made = run(names, chosen, reference=reference, **options)
    return f"{made.save(out or Path(options['results']) / 'table.png', title=title)}: {made.size}"


@command("score", "sdlab.scores:score", "sdlab.workers:spread")
def score(run: Run, experiments: Names = (), plot: Path | None = None, **options: Any) -> Answer:
    """Likeness, prompt fidelity, diversity, drift and copies; which is best.

    Args:
        experiments: Names; also LORA@0.7 and LORA@step100 if they have images. Without any: base and all
            that are finished and have images.
        plot: File for the plot of likeness against prompt fidelity, as PNG and PDF.
    """
    from sdlab.scores import recommend
    from sdlab.scores.plots import save, tradeoff

    results = Path(options["results"])
    names = [n for n in _finished(options["root"]) if (results / n / "images.json").is_file()]
    names = _spread(run, [*dict.fromkeys(experiments)] or names, options)
    scores = run(names, **options)
    choice = recommend(scores) if scores.eligible else None
    parts = [str(scores), f"\n{choice}\nrule: {choice.rule}" if choice else ""]
    if plot is not None:
        parts.append(f"plot: {', '.join(map(str, save(tradeoff(scores), plot)))}")
    values = {name: asdict(tally) for name, tally in scores.tallies.items()}
    data = {"scores": values, "recommendation": choice and asdict(choice), "notes": scores.notes()}
    return Answer("\n".join(parts), data)


@command("report", "sdlab.reports:report")
def report(
    run: Run,
    experiments: Names = (),
    prompts: str | None = None,
    subject: str | None = None,
    best_dreambooth: str | None = None,
    best_lora: str | None = None,
    **options: Any,
) -> str:
    """The report that is handed in: README.md, report.html and report.pdf.

    Args:
        experiments: Names; without any: all that there are.
        best_dreambooth: The DreamBooth that is compared with the best LoRA.
        best_lora: The LoRA that is compared with the best DreamBooth.
    """
    names = _names(experiments, options["root"])
    chosen = _prompts(prompts, subject, names, options["root"]) if prompts else None
    named = {"dreambooth": best_dreambooth, "lora": best_lora}
    best = {method: name for method, name in named.items() if name}
    path = run([*dict.fromkeys(experiments)] or None, chosen, best=best or None, **options)
    return f"the report: {path}, {path.with_name('report.pdf')} and {path.with_name('README.md')}"


@command("convert", "sdlab.formats:convert")
def convert(
    run: Run, file: Positional[str], out: Positional[str] = "cache_dir/models/civitai_model", **options: Any
) -> str:
    """A checkpoint from Civitai -> a base model in the diffusers layout."""
    return f"{run(file, out, **options)}: a base model, ready to train from"


@command("export lora", "sdlab.exports:export_lora")
def export_lora(run: Run, experiment: Positional[str], out: Path | None = None, **options: Any) -> str:
    """A LoRA -> one file for A1111, Forge, ComfyUI or diffusers, with its card.

    Args:
        out: The .safetensors file to make; None takes the experiment's name.
    """
    out = out or Path(f"{Path(experiment).name}.safetensors")
    run(experiment, out, **options)
    return f"{out}, and its model card: {out.with_suffix('.md')}"


@command("export model", "sdlab.exports:export_model")
def export_model(run: Run, base: Positional[str], out: Path | None = None, **options: Any) -> str:
    """A model -> one file for A1111, Forge, ComfyUI; a LoRA is merged into it.

    Args:
        out: The .safetensors file or the folder to make; None takes the model's name.
    """
    name = Path(base).name.removesuffix(".safetensors")
    out = out or Path(f"{name}.safetensors" if options["format"] == "single-file" else name)
    return f"{run(base, out, **options)}: the whole model"


@command("environment", "sdlab.machine:check")
def environment(run: Run) -> Answer:
    """What this machine is, what was chosen and why, and what fits it."""
    from sdlab import machine

    return Answer(run(), machine.facts())


@command("homework", "sdlab.homeworks:commands")
def homework(
    run: Run, which: Positional[Literal["A", "B"]], base: str = "mini", subject: str | None = "sks woman"
) -> str:
    """The commands of homework A or B, to run, change or paste.

    Args:
        which: A sweeps learning rate and rank, B sweeps DreamBooth and trains LoRAs on top of it.
    """
    return "\n".join(run(which, base, subject=subject))


@command("check", "sdlab.course.handin:completeness")
def check(run: Run, which: Positional[Literal["A", "B"] | None] = None, **options: Any) -> Answer:
    """Is this homework complete? What is missing, with the command for it."""
    steps = run(which, **options)
    complete = all(step.complete for step in steps)
    text = "\n".join([*map(str, steps), "complete" if complete else "not complete yet"])
    data = {"complete": complete, "steps": [{"complete": step.complete, **asdict(step)} for step in steps]}
    return Answer(text, data, 0 if complete else 1)


@command("sync", "sdlab.course.backup:sync")
def sync(run: Run, place: Positional[str], **options: Any) -> None:
    """Finished work to a folder that outlives the machine, and back."""
    run(place, **options)


def _keep(out: Path | None, given: Path | None) -> None:
    """Refuses to write what is made over what it is made from."""
    if out and given and out.resolve() == given.resolve():
        raise ValueError(f"--out {out} is what the table is made from. Give another name, which is free.")


def _finished(root: str | Path) -> list[str]:
    """`base` and every finished experiment."""
    from sdlab.experiment import find

    return ["base", *(one.name for one in find(root) if one.status == "finished")]


def _names(experiments: Sequence[str], root: str | Path) -> list[str]:
    """The experiments that are named, each once; without any: `base` and all that are finished."""
    return list(dict.fromkeys(experiments)) or _finished(root)


def _prompts(prompts: str | None, subject: str | None, names: Sequence[str], root: str | Path) -> PromptSet:
    """The prompts that are meant, about what the experiments learned; for base alone about all of them."""
    from sdlab.profiles import subject_of
    from sdlab.prompts import prompt_set

    if prompts and not (given := prompt_set(prompts)).names_a_subject:
        return given
    trained = _finished(root) if [*names] == ["base"] else names
    return prompt_set(prompts, subject_of(trained, root) if subject is None else subject)


def _spread(call: Callable[..., Any], names: Sequence[str], options: dict[str, Any]) -> list[str]:
    """Has a call made elsewhere, where the options that it takes out say so; gives this share's names."""
    from sdlab.workers import spread

    places = {name: options.pop(name) for name in ("on", "part", "partition", "gpus", "minutes")}
    return spread(partial(call, **options), names, root=options["root"], **places)


def _readable(annotation: Any, target: Callable[..., Any]) -> Any | None:
    """What a command line can give of an option's type, None where that is nothing."""
    try:
        names = vars(sys.modules[target.__module__])
        kind = eval(annotation, names) if isinstance(annotation, str) else annotation
    except NameError:  # imported for type checkers alone
        return None
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    readable = [one for one in members if one in (str, int, float, bool, Path) or get_origin(one) is Literal]
    none = [NoneType] if NoneType in members else []
    return Union[*readable, *none] if readable else None


class Console(io.TextIOWrapper):
    """A process's stdout or stderr; that its reader is gone (`| head`) is no reason to end the work."""

    def write(self, text: str) -> int:
        return int(self._or_nowhere(super().write, text))

    def flush(self) -> None:
        self._or_nowhere(super().flush)

    def _or_nowhere(self, do: Callable[..., Any], *values: Any) -> Any:
        try:
            return do(*values)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return do(*values)


def console(stream: Any) -> Any:
    """A stream on which a sign that it lacks ends nothing, nor a reader that is gone."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="replace")
    return Console(stream.buffer, stream.encoding, "replace", line_buffering=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line, whose words are those of the process unless they are given.

    Raises:
        SystemExit: 0 when all went well, 1 when the work failed, 2 when the command can't be understood,
            130 when it was interrupted.
    """
    # what transformers and bitsandbytes say on import is about parts that aren't used here
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if arguments is None:
        arguments, sys.stdout, sys.stderr = sys.argv[1:], console(sys.stdout), console(sys.stderr)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # without our line of code
    understood = False
    try:
        run = parse(list(arguments))
        understood = True
        if run is not None:
            run()
    except KeyboardInterrupt as stop:
        _fail(str(stop) or "interrupted; the same command goes on from there", 130)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("SDLAB_DEBUG"):
            raise
        said = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.filename and error.strerror:
            said = f"{error.filename}: {error.strerror.lower()}. Check the path and its permissions."
        _fail(said, 1 if understood else 2)


def _fail(message: str, code: int) -> None:
    print(f"sdlab: {message}", file=sys.stderr)
    raise SystemExit(code)


def parse(words: list[str]) -> Callable[[], None] | None:
    """Understands a command line without doing anything yet.

    Returns:
        What to run; None after help was printed.

    Raises:
        ValueError: An unknown command or option (the message names the nearest), or a value against its rule.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        described = {f"{k.split()[0]} METHOD" if c.method else k: c.summary for k, c in COMMANDS.items()}
        print(OVERVIEW + "\n".join(f"    sdlab {name:<17} {summary}" for name, summary in described.items()))
        return None
    if words[0] in ("--version", "version"):
        from sdlab import __version__

        print(f"sdlab {__version__}")
        return None
    name, words = _command_of(words)
    asked = COMMANDS[name]
    if not asked.method:
        return partial(asked, **_read(asked, name, words))
    if words and not words[0].startswith("-"):
        words = ["--name" if name.startswith("train") else "--prefix", *words]
    asking = [word for word in words if word not in ("-h", "--help")]
    defaults, _ = tyro.cli(  # the base decides the defaults, so it is read before the command line as a whole
        partial(_defaults, asked.method), args=asking, use_underscores=True, return_unknown_args=True
    )
    values = _read(asked, name, words, defaults)
    profile_name = values.pop("profile")
    del values["subject"]  # it is in the prompts
    given = {word.split("=")[0].lstrip("-").replace("-", "_").removeprefix("no_") for word in words}
    print(_unsaid(values["hyperparameters"], given, profile_name, values["root"]), end="", file=sys.stderr)
    return partial(asked, **values)


def _command_of(words: list[str]) -> tuple[str, list[str]]:
    """The command's name of one or two words, and the words after it."""
    one, two = words[0], " ".join(words[:2])
    if two in COMMANDS:
        return two, words[2:]
    if one in COMMANDS:
        return one, words[1:]
    if below := [f"`sdlab {name}`" for name in COMMANDS if name.startswith(one + " ")]:
        if {"-h", "--help"}.intersection(words):
            print(f"{' and '.join(below)} have options of their own: add --help to one of them.")
            raise SystemExit(0)
        raise ValueError(f"`sdlab {two}` is not a command. Write {' or '.join(below)}.")
    known = [*COMMANDS, "help"]
    near = get_close_matches(two, known, 1, 0.5) or get_close_matches(one, known, 1, 0.5)
    hint = f"Did you mean `sdlab {near[0]}`? " if near else ""
    raise ValueError(f"unknown command {one!r}. {hint}`sdlab --help` lists all.")


def _defaults(
    method: str,
    pretrained_model_name_or_path: str = "mini",
    root: Path = Path("experiments"),
    profile: str = "auto",
    subject: str | None = None,
    instance_prompt: str | None = None,
    instance_data_dir: str = "data/instance_images",
) -> DreamBooth | LoRA:
    """A method's hyperparameters, as far as nothing else is given."""
    from sdlab.profiles import hyperparameters

    base = os.path.expanduser(pretrained_model_name_or_path)
    given = {"instance_data_dir": instance_data_dir}
    given |= {"instance_prompt": instance_prompt} if instance_prompt else {}
    return hyperparameters(method, base, subject=subject, profile=profile, root=root, **given)


def _unsaid(chosen: DreamBooth | LoRA, given: set[str], profile_name: str, root: Path) -> str:
    """A line that says which hyperparameters were not given, and are otherwise in diffusers."""
    from sdlab.profiles import profile

    base, theirs = chosen.pretrained_model_name_or_path, vars(type(chosen)())
    given |= {"pretrained_model_name_or_path"}
    given |= set() if chosen.with_prior_preservation else PRIOR
    own = [f"{k}={number(v)}" for k, v in vars(chosen).items() if k not in given and v != theirs[k]]
    reason = profile(base, name=profile_name, root=root).reason
    why = f" ({reason})" if reason else ""
    return f"not given, so set for {base}{why}: {', '.join(own)}\n" if own else ""


def _read(
    asked: Command, name: str, words: list[str], defaults: DreamBooth | LoRA | None = None
) -> dict[str, Any]:
    """The values of a command's options; names the nearest to an option that there isn't."""

    def take(**values: Any) -> dict[str, Any]:
        return values

    options = asked.options(defaults)
    take.__doc__ = asked.help()
    take.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    take.__annotations__ = {option.name: option.annotation for option in options.values()}
    values, strange = tyro.cli(
        take, prog=f"sdlab {name}", args=words, use_underscores=True, return_unknown_args=True
    )
    _refuse(strange, asked, name, options)
    for one, value in values.items():
        if isinstance(value, str | Path) and str(value).startswith("~"):  # as a shell would have written it
            values[one] = type(value)(os.path.expanduser(value))
    return values


def _refuse(strange: list[str], asked: Command, name: str, options: Iterable[str]) -> None:
    """Says which of diffusers' flags are ignored, and what to write instead of any other unknown word."""
    known, ignored, instead = [*options], {}, {}
    if asked.method:
        known += [field.name for field in fields(METHODS[asked.method])]
        ignored, instead = tomllib.loads(Path(__file__).with_name("flags.toml").read_text("utf-8")).values()
    ignoring = False
    for word in strange:
        flag = word.split("=")[0].lstrip("-").replace("-", "_")
        if not word.startswith("-") and not ignoring:
            raise ValueError(
                f"`sdlab {name}` doesn't know what to do with {word!r}. See `sdlab {name} --help`."
            )
        if not word.startswith("-"):  # the value of a flag that is ignored
            continue
        ignoring = flag in ignored
        if ignoring:
            print(f"--{flag} is ignored: {ignored[flag]}", file=sys.stderr)
            continue
        near = "".join(f"Did you mean --{one}? " for one in get_close_matches(flag, known, 1, 0.5))
        hint = instead.get(flag, f"{near}`sdlab {name} --help` lists all.")
        raise ValueError(f"`sdlab {name}` has no option --{flag}. {hint}")


if __name__ == "__main__":
    sys.argv[0] = str(Path(sys.argv[0]).with_name("sdlab"))
    main()
