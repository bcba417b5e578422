"""Experiments × prompts × seeds → images in results/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from sdlab.control import Control, ControlMap, control_map, control_options, with_controlnets
from sdlab.experiment import Experiment
from sdlab.files import write_json
from sdlab.models import base_fingerprint, resolve
from sdlab.profiles import profile
from sdlab.prompts import PromptSet
from sdlab.sampling import (
    Sampling,
    batches,
    choose_sampling,
    class_images,
    read_record,
    ready_pipeline,
    sample,
    warn_of_cut_prompts,
    write_image,
)

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

__all__ = ["ImageRecord", "class_images", "generate", "load_images"]


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image in results/ and everything that made it.

    Args:
        path: The file.
        experiment: Its experiment, or `base`.
        prompt_name: The prompt's name in its prompt set.
        number: From 1 on, for each prompt.
        prompt: The prompt.
        negative_prompt: The negative prompt.
        seed: Of this image.
        num_inference_steps: Denoising steps.
        guidance_scale: Strength of classifier-free guidance.
        sampler: A key of `sampling.SAMPLERS`.
        resolution: Side in pixels.
        model: Fingerprint of the weights.
        control: What each control added, see `ControlMap.record`, with the names of its map and its control
            image in the same folder; empty without control.
    """

    path: Path = field(compare=False)
    experiment: str
    prompt_name: str
    number: int
    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    resolution: int
    model: str
    control: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Gives the record as images.json holds it.

        Returns:
            The fields, with `file` (the name alone, so that the folder can move) for `path`.
        """
        values = asdict(self)
        if not self.control:
            del values["control"]  # as in records from before there was control
        return {"file": values.pop("path").name, **values}


def generate(
    experiments: str | Experiment | Sequence[str | Experiment],
    prompts: PromptSet,
    *,
    control: Control | Sequence[Control] = (),
    images_per_prompt: int = 4,
    seed: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str = "dpm++",
    resolution: int | None = None,
    batch_size: int | None = None,
    base: str | Path | None = None,
    root: str | Path = "experiments",
    results: str | Path = "results",
    progress: bool = True,
) -> list[ImageRecord]:
    """Makes the images of some experiments for a prompt set; an image that is there as described is kept.

    Image n of each prompt has the seed `seed + n - 1` in every experiment, so tables compare like with like.

    Args:
        experiments: Names of finished experiments; `base` is the base model itself, `LORA@0.7` so much of a
            LoRA, `DREAMBOOTH+LORA@0.7` the same on another model.
        prompts: The prompt set, its subject filled in.
        control: What controls the images, one or several at once; such images go to
            `<results>/<experiment>_<kind>_<control image>/`, with the control map.
        images_per_prompt: Images for each prompt, at least 1.
        seed: Of each prompt's first image.
        num_inference_steps: None takes the profile's.
        guidance_scale: None takes the profile's.
        sampler: A key of `sampling.SAMPLERS`.
        resolution: None takes the profile's.
        batch_size: Images at once; None takes the profile's.
        base: What `base` stands for; None takes the base of the experiments, or `mini`.
        root: The folder of all experiments.
        results: Images go to `<results>/<experiment>/<prompt>_img<n>.png`.
        progress: Show a progress bar.

    Returns:
        The records of all images, by experiment, prompt and number.

    Raises:
        ValueError: An unknown or unfinished experiment, an unfilled `{subject}`, or a bad value.
        NothingFound: A control image without edges or without a person.

    Source:
        Taught in: notebooks/02.
    """
    controls = [control] if isinstance(control, Control) else list(control)
    several = [experiments] if isinstance(experiments, str | Experiment) else experiments
    names = [_name(one) for one in several]
    _check(prompts, images_per_prompt, seed)
    choices: dict[str, Any] = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "resolution": resolution,
        "sampler": sampler,
        "negative_prompt": prompts.negative_prompt,
    }
    jobs: list[tuple[str | Path, Sampling, list[ControlMap], list[ImageRecord]]] = []
    for name in dict.fromkeys(names):  # everything is checked before the first image is made
        model = _base_of(names, base, root) if name == "base" else _model(name, root)
        sampling = choose_sampling(model, root=root, **choices)
        maps = _maps(controls, sampling.resolution, resolve(model, root).root_name, [job[2] for job in jobs])
        experiment = name if name == "base" else Path(model).name
        folder = Path(results) / _folder(experiment, maps)
        planned = _plan(model, sampling, prompts, images_per_prompt, seed, experiment, folder, maps, root)
        jobs.append((model, sampling, maps, planned))
    for model, sampling, maps, records in jobs:
        size = batch_size or profile(model, root=root).images_per_batch
        _make(model, sampling, maps, records, size, root, progress)
    return [record for *_, records in jobs for record in records]


def load_images(experiment: str, *, results: str | Path = "results") -> list[ImageRecord]:
    """Reads the records of the images that an experiment has.

    Args:
        experiment: Its name, or `base`.
        results: The results folder.

    Returns:
        The records of images whose file is there; empty if there are none.
    """
    folder = Path(results) / experiment
    try:
        rows = json.loads((folder / "images.json").read_text(encoding="utf-8"))["images"]
    except FileNotFoundError:
        return []
    names = {item.name for item in fields(ImageRecord)}
    found = [{key: row[key] for key in names & set(row)} | {"path": folder / row["file"]} for row in rows]
    return [ImageRecord(**values) for values in found if values["path"].is_file()]


def _check(prompts: PromptSet, images_per_prompt: int, seed: int) -> None:
    if images_per_prompt < 1:
        raise ValueError(
            f"images_per_prompt must be at least 1, got {images_per_prompt}. The homework shows 4."
        )
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}.")
    for name, prompt in prompts.prompts.items():
        if "{subject}" in prompt:
            raise ValueError(
                f"The prompt {name!r} still holds {{subject}}. Fill it in: prompts.fill('sks woman')."
            )


def _name(experiment: str | Experiment) -> str:
    return str(experiment.path) if isinstance(experiment, Experiment) else str(experiment)


def _model(name: str, root: str | Path) -> str | Path:
    """An experiment's folder, or the name of a combination such as `dreambooth+lora@0.7`."""
    try:
        return Experiment.load(name, root).path
    except ValueError:
        if "@" in name or "+" in name:
            resolve(name, root)  # raises where a part of it is unknown
            return name
        raise


def _base_of(names: list[str], base: str | Path | None, root: str | Path) -> str | Path:
    """What `base` stands for: as given, else what the experiments were trained from in the first place."""
    if base is not None:
        return base
    bases = dict.fromkeys(resolve(name, root).root_name for name in names if name != "base")
    if len(bases) > 1:
        raise ValueError(
            f"The experiments have several bases: {', '.join(bases)}. "
            f"Say which one: base={next(iter(bases))!r}."
        )
    return next(iter(bases), "mini")


def _plan(
    model: str | Path,
    sampling: Sampling,
    prompts: PromptSet,
    count: int,
    seed: int,
    experiment: str,
    folder: Path,
    maps: list[ControlMap],
    root: str | Path,
) -> list[ImageRecord]:
    weights = base_fingerprint(model, root)
    return [
        ImageRecord(
            path=folder / f"{name}_img{number}.png",
            experiment=experiment,
            prompt_name=name,
            number=number,
            prompt=prompt,
            seed=seed + number - 1,
            model=weights,
            control=[one.record | files for one, files in zip(maps, _files_of(maps), strict=True)],
            **asdict(sampling),
        )
        for name, prompt in prompts.prompts.items()
        for number in range(1, count + 1)
    ]


def _maps(
    controls: list[Control], side: int, root_name: str, made: list[list[ControlMap]]
) -> list[ControlMap]:
    """The control maps for a model; shared with a model before it on the same base and resolution."""
    for maps in made:
        if all(one.root_name == root_name and one.image.size == (side, side) for one in maps):
            return maps
    return [control_map(control, side, root_name) for control in controls]


def _folder(experiment: str, maps: list[ControlMap]) -> str:
    """The name of an experiment's images: `lora`, `lora_canny_hat`, `lora_canny_hat+pose_arms_scale0.5`."""
    return f"{experiment}_{'+'.join(one.control.label for one in maps)}" if maps else experiment


def _files_of(maps: list[ControlMap]) -> list[dict[str, str]]:
    """Where a control's map and reference lie beside the images."""
    numbers = range(1, len(maps) + 1)
    return [
        {"map": f"control_{number}.png", "reference": f"control_{number}_image.png"} for number in numbers
    ]


def _make(
    model: str | Path,
    sampling: Sampling,
    maps: list[ControlMap],
    records: list[ImageRecord],
    size: int,
    root: str | Path,
    progress: bool,
) -> None:
    """Samples the images that aren't there as described, and writes images.json."""
    folder = records[0].path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        missing = [record for record in records if read_record(record.path) != record.as_dict()]
        if progress:
            print(f"images of {folder.name}: {len(records) - len(missing)} of {len(records)} are there")
        for one, files in zip(maps, _files_of(maps), strict=True):
            write_image(folder / files["map"], one.image, one.record)
            write_image(folder / files["reference"], one.reference, {})
        if missing:
            pipeline = ready_pipeline(model, sampling, root=root)
            pipeline = with_controlnets(pipeline, maps) if maps else pipeline
            _sample_missing(pipeline, sampling, maps, missing, size, progress)
        _write_list(records)


def _sample_missing(
    pipeline: StableDiffusionPipeline,
    sampling: Sampling,
    maps: list[ControlMap],
    missing: list[ImageRecord],
    size: int,
    progress: bool,
) -> None:
    warn_of_cut_prompts(pipeline, [*(record.prompt for record in missing), sampling.negative_prompt])
    for batch in batches(missing, size, f"images of {missing[0].path.parent.name}", progress):
        steered = control_options(maps) if maps else {}
        images = sample(
            pipeline, [one.prompt for one in batch], [one.seed for one in batch], sampling, **steered
        )
        for record, image in zip(batch, images, strict=True):
            write_image(record.path, image, record.as_dict())


def _write_list(records: list[ImageRecord]) -> None:
    """Writes images.json anew: these images and the others that are in the folder."""
    folder = records[0].path.parent
    rows = {record.path.name: record.as_dict() for record in records}
    others = (read_record(file) for file in sorted(folder.glob("*_img*.png")) if file.name not in rows)
    write_json(folder / "images.json", {"images": [*rows.values(), *(row for row in others if row)]})
