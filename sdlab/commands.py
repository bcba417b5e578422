"""What each subcommand of `sdlab` takes and runs; the command line is made from these functions."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import fields
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from sdlab.config import METHODS, DreamBooth, LoRA
from sdlab.prompts import PromptSet
from sdlab.subject import Subject


def demo(root: Path = Path()) -> None:
    """The homework from photos to report on the mini model.

    Args:
        root: Folder to work in; the report ends up in results/report/ below it.
    """
    from sdlab.demonstration import demo as run

    run(root)


def prepare(
    raw: Path = Path("data/raw_images"),
    out: Path = Path("data/instance_images"),
    resolution: int | None = None,
    base: str = "mini",
    subject_kind: Literal["person", "animal", "thing", "style"] = "person",
    framing: Literal["mixed", "face", "head_and_shoulders", "upper_body", "whole"] = "mixed",
    drop: str = "",
    background: str = "white",
    captions: str | None = None,
) -> None:
    """Photos -> square images around the subject, and what will spoil the training.

    Args:
        raw: Folder or zip with the photos as they came.
        out: Folder for the images and dataset.json.
        resolution: Side of the images in pixels; None takes the base model's.
        base: The base model that will be trained: mini, sd15, or a folder.
        subject_kind: Whose photos they are: the face of a person is looked for, anything else is cropped where
            the photo draws the eye.
        framing: How much to show around the face; mixed gives each photo one of the others.
        drop: Findings whose photos are left out, such as blurry,duplicates.
        background: Colour behind transparent parts.
        captions: Caption for images without one, written into captions.txt for you to edit.
    """
    from sdlab.photos import prepare as run
    from sdlab.photos import save_sheet
    from sdlab.profiles import profile

    side = resolution if resolution is not None else profile(base).resolution
    kinds = [kind.strip() for kind in drop.split(",") if kind.strip()]
    options = {"subject_kind": subject_kind, "framing": framing, "background": background}
    dataset = run(raw, out, side, **options, drop=kinds, captions=captions)
    print(f"{dataset.summary()}\n\nbefore and after: {save_sheet(dataset)}")
    if errors := [finding for finding in dataset.findings if finding.level == "error"]:
        raise ValueError(f"{errors[0].text}: {errors[0].effect}. Add photos to {raw} and run it again.")


def class_images(
    class_prompt: str | None = None,
    num_class_images: Annotated[int | None, arg(aliases=["--num"])] = None,
    base: str = "mini",
    class_data_dir: Path | None = None,
    negative_prompt: str = "",
    seed: int = 0,
) -> None:
    """Images of the class, which prior preservation learns from.

    Args:
        class_prompt: What they show; None takes the profile's.
        num_class_images: How many are wanted; None takes the profile's.
        base: The base model that samples them.
        class_data_dir: Folder for them, filled up to the number; None takes one below data/class_images.
        negative_prompt: What they don't show.
        seed: Of the first image.
    """
    from sdlab.images import class_images as run
    from sdlab.profiles import profile

    chosen = profile(base)
    number = num_class_images if num_class_images is not None else chosen.num_class_images
    prompt = class_prompt or Subject().class_prompt
    folder = run(base, prompt, number, folder=class_data_dir, seed=seed, negative_prompt=negative_prompt)
    print(f"{number} images of {prompt!r} in {folder}")


def train(
    hyperparameters: DreamBooth | LoRA,
    name: str | None = None,
    output_dir: Path | None = None,
    profile: str = "auto",
    resume_from_checkpoint: str = "latest",
    root: Path = Path("experiments"),
) -> None:
    """One experiment; one that was killed goes on, a finished one is kept.

    Args:
        hyperparameters: The flags of diffusers' scripts.
        name: The experiment's name; None takes one made from the method, rank and learning rate.
        output_dir: diffusers' way to say it: the experiment's folder.
        profile: Where defaults come from: mini, sd15, sd15-16gb, sd15-8gb; auto takes what fits the machine.
        resume_from_checkpoint: Where one that was begun goes on: latest, or a checkpoint such as step_000100.
        root: Folder of the experiments.
    """
    from sdlab.sweeps import experiment_name
    from sdlab.training import train as run

    if name and output_dir:
        raise ValueError(
            f"--name {name} and --output_dir {output_dir} both name the experiment. Give one of them."
        )
    if output_dir:
        name, root = output_dir.name, output_dir.parent
    experiment = run(
        name or experiment_name(hyperparameters),
        hyperparameters,
        root=root,
        resume_from_checkpoint=resume_from_checkpoint,
    )
    if experiment.status == "stopped":
        raise KeyboardInterrupt(f"{experiment.name} was interrupted; the same command goes on from there")
    print(f"{experiment.status}: {experiment.path}. Images of it: sdlab generate base {experiment.name}")


def sweep(
    hyperparameters: DreamBooth | LoRA,
    learning_rates: tuple[float, ...] = (),
    ranks: tuple[int, ...] = (),
    prior_loss_weights: tuple[float, ...] = (),
    prefix: str | None = None,
    one_pass: bool = True,
    on: Literal["here", "gpus", "slurm"] = "here",
    part: str | None = None,
    partition: str | None = None,
    gpus: int = 1,
    minutes: int = 60,
    profile: str = "auto",
    json: bool = False,
    root: Path = Path("experiments"),
) -> None:
    """An experiment for every combination of some values; LoRAs that can be are trained in one pass.

    Args:
        hyperparameters: What all of them have in common.
        learning_rates: Values of --learning_rate to try.
        ranks: Values of --rank to try (LoRA).
        prior_loss_weights: Values of --prior_loss_weight to try.
        prefix: Beginning of the names; None takes the method: lora_rank4_lr2e-4.
        one_pass: Train LoRAs that share base, images, batch and steps together.
        on: here, gpus (a process for each GPU of this machine), or slurm (a job for each experiment).
        part: Train only this share of the experiments, such as 3/1000: for any other scheduler.
        partition: Of SLURM; None takes the cluster's.
        gpus: For each SLURM job.
        minutes: A SLURM job's time limit; at its end the job saves, and goes on in the queue.
        profile: Where defaults come from: mini, sd15, sd15-16gb, sd15-8gb; auto takes what fits the machine.
        json: Print the experiments' records as JSON; what happens meanwhile goes to stderr.
        root: Folder of the experiments.
    """
    from sdlab.sweeps import sweep as run
    from sdlab.tables import summary

    values = {"learning_rate": learning_rates, "rank": ranks, "prior_loss_weight": prior_loss_weights}
    grid: dict[str, Any] = {name: list(given) for name, given in values.items() if given}
    if not grid:
        raise ValueError("a sweep needs values: --learning_rates 2e-5 2e-4, or --ranks 2 4 8.")
    with stdout_to_stderr(json):
        done = run(
            hyperparameters,
            prefix=prefix,
            root=root,
            one_pass=one_pass,
            on=on,
            part=part,
            partition=partition,
            gpus=gpus,
            minutes=minutes,
            **grid,
        )
    print(as_json({one.name: one.record for one in done}) if json else summary(done, root=root))


def preflight(
    hyperparameters: DreamBooth | LoRA,
    profile: str = "auto",
    json: bool = False,
    root: Path = Path("experiments"),
) -> None:
    """The time, memory and disk a training will take, from two steps of it.

    Args:
        hyperparameters: The flags of diffusers' scripts.
        profile: Where defaults come from: mini, sd15, sd15-16gb, sd15-8gb; auto takes what fits the machine.
        json: Print the figures as JSON; what happens meanwhile goes to stderr.
        root: Folder of the experiments.
    """
    from dataclasses import asdict

    from sdlab.training import preflight as run

    with stdout_to_stderr(json):
        trial = run(hyperparameters, root=root)
    print(as_json(asdict(trial)) if json else trial.text())


def generate(
    experiments: Positional[tuple[str, ...]] = (),
    prompts: str = "homework_a",
    subject: str = "sks woman",
    images_per_prompt: int = 4,
    seed: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str = "dpm++",
    base: str | None = None,
    json: bool = False,
    root: Path = Path("experiments"),
    results: Path = Path("results"),
) -> None:
    """Images of experiments for a prompt set; those that are there are kept.

    Args:
        experiments: Names; base is the base model itself. Without any: base and all that are finished.
        prompts: homework_a, homework_b, or a JSON file of names to prompts.
        subject: What takes the place of {subject} in the prompts.
        images_per_prompt: Images for each prompt.
        seed: Of each prompt's first image.
        num_inference_steps: None takes the profile's.
        guidance_scale: None takes the profile's.
        sampler: dpm++, unipc, euler, ddim, or own (the model's).
        base: What base stands for; None takes the base of the experiments.
        json: Print the images' records as JSON; what happens meanwhile goes to stderr.
        root: Folder of the experiments.
        results: Folder for the images.
    """
    from sdlab.images import generate as run

    names = list(experiments) or finished(root)
    with stdout_to_stderr(json):
        images = run(
            names,
            prompt_set(prompts, subject),
            images_per_prompt=images_per_prompt,
            seed=seed,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            base=base,
            root=root,
            results=results,
        )
    said = f"{len(images)} images of {', '.join(names)} in {results}"
    print(as_json([{"path": str(one.path), **one.as_dict()} for one in images]) if json else said)


def control(
    image: Path,
    kind: Annotated[tuple[Literal["canny", "depth", "pose"], ...], UseAppendAction],
    experiments: tuple[str, ...] = (),
    scale: tuple[float, ...] = (1.0,),
    together: bool = False,
    start: float = 0.0,
    end: float = 1.0,
    low_threshold: float = 100,
    high_threshold: float = 200,
    fit: Literal["crop", "fit"] = "crop",
    is_map: bool = False,
    annotator: str | None = None,
    model: str | None = None,
    columns: Literal["control", "scale", "experiment", "prompt"] = "prompt",
    out: Path | None = None,
    prompts: str = "homework_a",
    subject: str = "sks woman",
    images_per_prompt: int = 1,
    seed: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str = "unipc",
    base: str | None = None,
    root: Path = Path("experiments"),
    results: Path = Path("results"),
) -> None:
    """Images that keep to a picture's edges, depth or pose, and a table of them.

    Args:
        image: The control image.
        kind: canny, depth or pose; several times for several.
        experiments: Names; base is the base model itself. Without any: base and all that are finished.
        scale: Strength of the control; several values make images for each.
        together: All kinds control the same images, instead of images for each kind.
        start: Share of the steps before control begins.
        end: Share of the steps after which control ends.
        low_threshold: Canny: gradient from which an edge goes on.
        high_threshold: Canny: gradient at which an edge begins.
        fit: crop cuts the middle square out of the control image; fit shows all of it, black beside it.
        is_map: The image is a control map already.
        annotator: Hub id or folder of a depth or pose model, or controlnet_aux; None takes the base model's.
        model: Hub id or folder of the ControlNet; None takes the base model's.
        columns: What stands in the table's columns; kinds stand in its rows, or experiments.
        out: The table: .png, .webp, .jpg, .pdf, .html or .md; None takes results/control_<columns>.png.
        prompts: homework_a, homework_b, or a JSON file of names to prompts.
        subject: What takes the place of {subject} in the prompts.
        images_per_prompt: Images for each prompt, kind and scale.
        seed: Of each prompt's first image.
        num_inference_steps: None takes the profile's.
        guidance_scale: None takes the profile's.
        sampler: dpm++, unipc, euler, ddim, or own (the model's).
        base: What base stands for; None takes the base of the experiments.
        root: Folder of the experiments.
        results: Folder for the images.
    """
    from sdlab.control import Control, NothingFound
    from sdlab.images import generate as run
    from sdlab.tables import control_table

    chosen: dict[str, Any] = {
        "start": start,
        "end": end,
        "low_threshold": low_threshold,
        "high_threshold": high_threshold,
        "fit": fit,
        "is_map": is_map,
        "annotator": annotator,
        "model": model,
    }
    each = [[Control(one, image, value, **chosen) for one in kind] for value in scale]
    sets = each if together else [[control] for controls in each for control in controls]
    names = list(experiments) or finished(root)
    images = []
    for controls in sets:
        try:
            images += run(
                names,
                prompt_set(prompts, subject),
                control=controls,
                images_per_prompt=images_per_prompt,
                seed=seed,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                sampler=sampler,
                base=base,
                root=root,
                results=results,
            )
        except NothingFound as reason:
            if len(kind) == 1 or together:
                raise
            print(f"{controls[0].kind} is left out. {reason}")
    rows: Literal["control", "experiment"] = "experiment" if columns == "control" else "control"
    made = control_table(images, rows=rows, columns=columns, root=root)
    print(f"{made.save(out or results / f'control_{columns}.png')}: {made.size}")


def table(
    experiments: Positional[tuple[str, ...]] = (),
    prompts: str | None = None,
    subject: str = "sks woman",
    out: Path = Path("results/table.png"),
    rows: Literal["experiments", "prompts"] | None = None,
    columns: Literal["experiments", "prompts"] | None = None,
    images_per_cell: Literal[1, 2, 4] = 4,
    reference: Path | None = None,
    title: str = "",
    language: Literal["en", "ru"] = "en",
    root: Path = Path("experiments"),
    results: Path = Path("results"),
) -> None:
    """Images side by side, experiments × prompts.

    Args:
        experiments: Names; base is the base model itself. Without any: base and all that are finished.
        prompts: homework_a, homework_b, or a JSON file; None takes the prompts of the images.
        subject: What takes the place of {subject} in the prompts.
        out: The file; .png, .webp, .jpg, .pdf, .html or .md says in what form.
        rows: What stands in the rows; experiments unless --columns says so.
        columns: What stands in the columns.
        images_per_cell: 4 makes a 2×2 picture.
        reference: A photo of the subject or a folder of them, as the first row or column.
        title: Line above the table.
        language: Of captions and hints.
        root: Folder of the experiments.
        results: Folder of the images.
    """
    from sdlab.tables import prompts_of
    from sdlab.tables import table as run

    names = list(experiments) or finished(root)
    made = run(
        names,
        prompt_set(prompts, subject) if prompts else prompts_of(names, results=results),
        results=results,
        root=root,
        images_per_cell=images_per_cell,
        rows=rows,
        columns=columns,
        reference=reference,
        language=language,
    )
    print(f"{made.save(out, title=title)}: {made.size}")


def score(
    experiments: Positional[tuple[str, ...]] = (),
    photos: Path | None = None,
    json: bool = False,
    plot: Path | None = None,
    root: Path = Path("experiments"),
    results: Path = Path("results"),
) -> None:
    """Likeness, prompt fidelity, diversity, drift and copies; which is best.

    Args:
        experiments: Names; also LORA@0.7 and LORA@step100 if they have images. Without any: base and all
            that are finished and have images.
        photos: Folder of the subject's photos; None takes those of the training.
        json: Print JSON instead of a table.
        plot: File for the plot of likeness against prompt fidelity, as PNG and PDF.
        root: Folder of the experiments.
        results: Folder of the images; each experiment gets a scores.json there.
    """
    from dataclasses import asdict

    from sdlab.scores import recommend
    from sdlab.scores import score as run

    names = list(experiments) or [n for n in finished(root) if (results / n / "images.json").is_file()]
    scores = run(names, photos=photos, root=root, results=results)
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


def report(
    experiments: Positional[tuple[str, ...]] = (),
    prompts: str | None = None,
    subject: str = "sks woman",
    out: Path = Path("results/report"),
    title: str | None = None,
    author: str = "",
    language: Literal["en", "ru"] = "en",
    best_dreambooth: str | None = None,
    best_lora: str | None = None,
    dataset: Path = Path("data/instance_images"),
    images_per_cell: Literal[1, 2, 4] = 4,
    root: Path = Path("experiments"),
    results: Path = Path("results"),
) -> None:
    """The report that is handed in: README.md, report.html and report.pdf.

    Args:
        experiments: Names; without any: all that there are.
        prompts: homework_a, homework_b, or a JSON file; None takes the prompts of the images.
        subject: What takes the place of {subject} in the prompts.
        out: Folder for the report.
        title: Its title.
        author: Name, group and year, in a line under the title.
        language: English or Russian.
        best_dreambooth: The DreamBooth that is compared with the best LoRA.
        best_lora: The LoRA that is compared with the best DreamBooth.
        dataset: Folder of the prepared photos.
        images_per_cell: 4 makes a 2×2 picture.
        root: Folder of the experiments.
        results: Folder of the images.
    """
    from sdlab.reports import report as run

    chosen = {"dreambooth": best_dreambooth, "lora": best_lora}
    best = {method: name for method, name in chosen.items() if name}
    path = run(
        experiments or None,
        prompt_set(prompts, subject) if prompts else None,
        out=out,
        title=title,
        author=author,
        language=language,
        best=best or None,
        dataset=dataset,
        images_per_cell=images_per_cell,
        root=root,
        results=results,
    )
    print(f"the report: {path}, {path.with_name('report.pdf')} and {path.with_name('README.md')}")


def convert(
    file: Positional[Path],
    out: Positional[Path] = Path("cache_dir/models/civitai_model"),
    tokenizer: Path | None = None,
    config: Path | None = None,
) -> None:
    """A checkpoint from Civitai -> a base model in the diffusers layout.

    Args:
        file: A .safetensors or .ckpt file of Stable Diffusion 1.5.
        out: The folder to make.
        tokenizer: A folder with CLIP's tokenizer; None takes it from the hub's cache or downloads it.
        config: A folder with the model's configuration files; None takes Stable Diffusion 1.5's.
    """
    from sdlab.formats import convert as run

    print(f"{run(file, out, tokenizer=tokenizer, config=config)}: a base model, ready to train from")


def export_lora(
    experiment: Positional[str],
    format: Literal["kohya", "diffusers"] = "kohya",
    out: Path | None = None,
    half: bool = False,
    root: Path = Path("experiments"),
) -> None:
    """A LoRA -> one file for A1111, Forge, ComfyUI or diffusers, with its card.

    Args:
        experiment: Name of a finished LoRA experiment.
        format: kohya for A1111, Forge, ComfyUI and Civitai; diffusers for load_lora_weights.
        out: The .safetensors file to make; None takes the experiment's name.
        half: Write float16, half the size.
        root: Folder of the experiments.
    """
    from sdlab.formats import export_lora as run

    out = out or Path(f"{Path(experiment).name}.safetensors")
    run(experiment, out, format=format, half=half, root=root)
    print(f"{out}, and its model card: {out.with_suffix('.md')}")


def export_model(
    model: Positional[str],
    format: Literal["single-file", "diffusers"] = "single-file",
    out: Path | None = None,
    half: bool = False,
    root: Path = Path("experiments"),
) -> None:
    """A model -> one file for A1111, Forge, ComfyUI; a LoRA is merged into it.

    Args:
        model: Name of a finished experiment, or a base model.
        format: single-file for A1111, Forge and ComfyUI; diffusers for from_pretrained.
        out: The .safetensors file or the folder to make; None takes the model's name.
        half: Write float16, half the size.
        root: Folder of the experiments.
    """
    from sdlab.formats import export_model as run

    name = Path(model).name.removesuffix(".safetensors")
    out = out or Path(f"{name}.safetensors" if format == "single-file" else name)
    print(f"{run(model, out, format=format, half=half, root=root)}: the whole model")


def homework(which: Positional[Literal["A", "B"]], base: str = "mini", subject: str = "sks woman") -> None:
    """The commands of homework A or B, to run, change or paste.

    Args:
        which: A sweeps learning rate and rank, B sweeps DreamBooth and trains LoRAs on top of it.
        base: The base model.
        subject: Who or what the photos show.
    """
    from shlex import join

    from sdlab.homeworks import commands

    for words in commands(which, base, subject=subject):
        print(join(["sdlab", *words]))


def sync(place: Positional[Path], root: Path = Path("experiments"), results: Path = Path("results")) -> None:
    """Finished work to a folder that outlives the machine, and back.

    Args:
        place: A folder that outlives the machine, such as /content/drive/MyDrive/sdlab.
        root: Folder of the experiments.
        results: Folder of the images.
    """
    from sdlab.backup import sync as run

    run(place, root=root, results=results)


def environment(json: bool = False) -> None:
    """What this machine is, what was chosen and why, what fits it.

    Args:
        json: Print JSON instead of text.
    """
    from dataclasses import asdict

    from sdlab import machine as this

    if not json:
        print(this.check())
        return
    machine = this.this_machine()
    found = {"machine": asdict(machine), "versions": this.versions(), "to_do": this.findings(machine)}
    found |= {"works": this.capabilities(machine), "can_run": this.can_run(machine)}
    print(as_json(found))


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "prepare": prepare,
    "class-images": class_images,
    "generate": generate,
    "control": control,
    "table": table,
    "score": score,
    "report": report,
    "convert": convert,
    "export lora": export_lora,
    "export model": export_model,
    "homework": homework,
    "sync": sync,
    "environment": environment,
}
TRAINING: dict[str, Callable[..., None]] = {
    "train dreambooth": train,
    "train lora": train,
    "sweep dreambooth": sweep,
    "sweep lora": sweep,
    "preflight dreambooth": preflight,
    "preflight lora": preflight,
}


@contextmanager
def stdout_to_stderr(json: bool) -> Iterator[None]:
    """Leaves stdout to the JSON alone, so that a script can read it."""
    with redirect_stdout(sys.stderr) if json else nullcontext():
        yield


def as_json(value: Any) -> str:
    """What `--json` prints."""
    return dumps(value, indent=1, default=str)


def prompt_set(prompts: str, subject: str) -> PromptSet:
    """A prompt set by its name or file, with the subject filled in."""
    from sdlab.prompts import prompt_set as run

    return run(prompts, subject)


def finished(root: Path) -> list[str]:
    """`base` and every finished experiment."""
    from sdlab.experiment import find

    return ["base", *(one.name for one in find(root) if one.status == "finished")]


def defaults(method: str, base: str, root: str, profile: str) -> DreamBooth | LoRA:
    """The hyperparameters of the base model's profile."""
    from sdlab.profiles import hyperparameters

    return hyperparameters(method, base, profile=profile, root=root)


def with_hyperparameters(command: Callable[..., None], chosen: DreamBooth | LoRA) -> Callable[..., None]:
    """The command with these hyperparameters as defaults, each a flag without a prefix."""

    def run(**values: Any) -> None:
        command(**values)

    signature = inspect.signature(command, eval_str=True)
    first = signature.parameters["hyperparameters"].replace(
        annotation=Annotated[type(chosen), arg(name="")], default=chosen
    )
    others = [value for name, value in signature.parameters.items() if name != "hyperparameters"]
    run.__signature__ = signature.replace(parameters=[*others, first])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*others, first]}
    run.__doc__ = command.__doc__
    return run


def say_what_the_profile_sets(chosen: DreamBooth | LoRA, given: set[str]) -> None:
    """Names the values that the profile sets otherwise than diffusers does, unless they were given."""
    plain = METHODS[chosen.method]()
    own = {field.name: getattr(plain, field.name) for field in fields(plain)}
    differing = {k: v for k, v in vars(chosen).items() if v != own[k] and k not in given}
    idle = () if chosen.with_prior_preservation else ("class_prompt", "num_class_images")
    differing = {k: v for k, v in differing.items() if k not in ("pretrained_model_name_or_path", *idle)}
    if differing:
        words = ", ".join(f"{name}={value}" for name, value in differing.items())
        print(f"not given, so set for {chosen.pretrained_model_name_or_path}: {words}", file=sys.stderr)
