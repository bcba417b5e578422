"""Experiments × prompts × seeds → images in results/, each carrying how it was made."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from sdlab.control import Control, ControlMap, control_map, control_options, with_controlnets
from sdlab.experiment import Experiment
from sdlab.files import acquire_lock, file_sha256, write_json
from sdlab.formats.pictures import parameters, tiles
from sdlab.models import Base, BaseModel, resolve
from sdlab.profiles import profile
from sdlab.prompts import PromptSet
from sdlab.sampling import (
    SAMPLERS,
    Sampling,
    batches,
    choose_sampling,
    class_images,
    image_files,
    read_record,
    ready_pipeline,
    sample,
    warn_of_cut_prompts,
    with_sampler,
    write_image,
)

__all__ = [
    "SAMPLERS",
    "ImageRecord",
    "Sampling",
    "Setting",
    "by_setting",
    "choose_sampling",
    "class_images",
    "generate",
    "image_files",
    "images_from_elsewhere",
    "load_images",
    "read_record",
    "ready_pipeline",
    "sample",
    "with_sampler",
    "write_image",
]

# What an image from elsewhere may not say of itself.
_UNKNOWN = {
    **dict.fromkeys(["prompt", "negative_prompt", "sampler", "model"], ""),
    **{"seed": -1, "num_inference_steps": 0, "guidance_scale": 0.0},
}
EARLIER = "earlier"
"""Where in an experiment's results the images lie that made room for others."""
BASE = "base"
"""The name of the base model's own images."""
_FORMATS = ["PNG", "JPEG", "WEBP"]
_MAX_SEED = 2**63 - 1
_NAME = re.compile(r"(?P<prompt>.+)_img(?P<number>\d+)")
_CONTROL_PICTURE = re.compile(r"control_\d+(_image)?")


@dataclass(frozen=True)
class Setting:
    """What images of one table have in common besides prompt and experiment, so that like is compared."""

    first_seed: int
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    negative_prompt: str
    width: int
    height: int

    def __str__(self) -> str:
        negative = f", negative prompt {self.negative_prompt!r}" if self.negative_prompt else ""
        return (
            f"{self.num_inference_steps} steps of {self.sampler}, guidance {self.guidance_scale:g}, "
            f"{self.width}×{self.height}, seeds from {self.first_seed}{negative}"
        )


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
        sampler: A key of `SAMPLERS`.
        width: In pixels.
        height: In pixels.
        model: Fingerprint of the weights.
        control: What each control added, see `ControlMap.record`, with the names of its map and its control
            image in the same folder; empty without control.
        made: When, in UTC; empty if it isn't known.
        elsewhere: The program that made it, if it wasn't made here; then numbers that it doesn't say are 0,
            an unknown seed is -1, and the rest is empty.
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
    width: int
    height: int
    model: str
    control: list[dict[str, Any]] = field(default_factory=list)
    made: str = field(default="", compare=False)
    elsewhere: str = ""

    @property
    def setting(self) -> Setting:
        """What it shares with the other images of a table."""
        shared = {item.name: getattr(self, item.name) for item in fields(Setting)[1:]}
        return Setting(first_seed=self.seed - self.number + 1, **shared)

    def as_dict(self) -> dict[str, Any]:
        """The record as the file carries it and images.json holds it: with `file`, a name, for `path`."""
        values = {name: value for name, value in asdict(self).items() if name not in _OPTIONAL or value}
        return {"file": values.pop("path").name, **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any], path: Path) -> ImageRecord | None:
        """Reads what `as_dict` gave; None where it isn't a record."""
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        if "resolution" in values:  # of before there were width and height
            known |= {"width": values["resolution"], "height": values["resolution"]}
        try:
            return cls(**known | {"path": path})
        except TypeError:
            return None


_OPTIONAL = ("control", "made", "elsewhere")


@dataclass(frozen=True)
class _Job:
    """What one experiment's images are made with."""

    model: BaseModel
    sampling: Sampling
    maps: list[ControlMap]
    records: list[ImageRecord]

    @property
    def folder(self) -> Path:
        return self.records[0].path.parent


def generate(
    experiments: Base | Sequence[Base],
    prompts: PromptSet,
    *,
    control: Control | Sequence[Control] = (),
    images_per_prompt: int = 4,
    seed: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str = "dpm++",
    resolution: int | None = None,
    width: int | None = None,
    height: int | None = None,
    batch_size: int | None = None,
    base: Base | None = None,
    root: str | Path = "experiments",
    results: str | Path = "results",
    progress: bool = True,
) -> list[ImageRecord]:
    """Makes the images of some experiments for a prompt set; an image that is there as described is kept.

    Image n of each prompt has the seed `seed + n - 1` in every experiment, so tables compare like with like.
    Images of a prompt that were made otherwise are moved to `<results>/<experiment>/earlier/`, with a warning
    that says what differs; asked for again, they come back from there.

    Args:
        experiments: Names of finished experiments; `base` is the base model itself, `LORA@0.7` so much of a
            LoRA, `DREAMBOOTH+LORA@0.7` the same on another model.
        prompts: The prompt set, its subject filled in.
        control: What controls the images, one or several at once; such images go to
            `<results>/<experiment>_<kind>_<control image>/`, with the control map.
        images_per_prompt: Images for each prompt, at least 1.
        seed: Of each prompt's first image, at least 0.
        num_inference_steps: None takes the profile's.
        guidance_scale: None takes the profile's.
        sampler: A key of `images.SAMPLERS`.
        resolution: Width and height in pixels, a multiple of 8; None takes the profile's.
        width: In pixels, where it isn't the resolution.
        height: In pixels, where it isn't the resolution.
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
    several = [experiments] if isinstance(experiments, str | Path | Experiment | BaseModel) else experiments
    _check(prompts, images_per_prompt, seed)
    for line in prompts.ignored():
        print(line)
    choices: dict[str, Any] = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "sampler": sampler,
        "negative_prompt": prompts.negative_prompt,
        **{"resolution": resolution, "width": width, "height": height},
    }
    jobs: list[_Job] = []
    for label, model in _models(several, base, root).items():  # all is checked before the first is made
        sampling = choose_sampling(model, **choices)
        model.check(sampling.width, sampling.height)
        maps = _maps(controls, sampling, model.root_name, [job.maps for job in jobs])
        folder = Path(results) / _folder(label, maps)
        records = _plan(label, model, sampling, maps, prompts, range(seed, seed + images_per_prompt), folder)
        jobs.append(_Job(model, sampling, maps, records))
    return [record for job in jobs for record in _make(job, batch_size, progress)]


def load_images(experiment: str, *, results: str | Path = "results") -> list[ImageRecord]:
    """Reads the records of the images that an experiment has, from the images themselves.

    Args:
        experiment: Its name, or `base`.
        results: The results folder.

    Returns:
        The records, prompts in the order of their prompt set; empty if there are none.
    """
    folder = Path(results) / experiment
    rows = _listed(folder)
    found = [record for file in image_files(folder) if (record := _record_of(file, rows.get(file.name, {})))]
    order = list(dict.fromkeys(str(row.get("prompt_name")) for row in rows.values()))
    return sorted(found, key=lambda one: (*_place(one.prompt_name, order), one.number))


def _record_of(file: Path, listed: dict[str, Any]) -> ImageRecord | None:
    """What an image carries, else what is listed of it; None for a broken file and for control maps."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            carried = json.loads(image.info.get("sdlab", "{}"))
    except (OSError, ValueError):
        return None
    return ImageRecord.from_dict(carried or listed, file)


def images_from_elsewhere(name: str, *, results: str | Path = "results") -> list[ImageRecord]:
    """Reads the images that another program made: `<prompt>_img<n>.png`, or `<prompt>.jpg` with a 2×2 grid.

    Args:
        name: Their folder in `results`, a row of tables and scores.
        results: The results folder. A grid's four images are written to `<results>/<name>/.tiles/`.

    Returns:
        The records of images that don't carry ours, by prompt and number.
    """
    folder = Path(results) / name
    ours = {record.path for record in load_images(name, results=results)}
    found: list[ImageRecord] = []
    for file in image_files(folder):
        if file not in ours and not _CONTROL_PICTURE.fullmatch(file.stem):
            found += _records_from_elsewhere(file)
    return sorted(found, key=lambda one: (one.prompt_name, one.number))


def _records_from_elsewhere(file: Path) -> list[ImageRecord]:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            values: dict[str, Any] = {**_UNKNOWN, **parameters(image)}
            named = _NAME.fullmatch(file.stem)
            pictures = [image.convert("RGB")] if named else tiles(image.convert("RGB"))
    except (OSError, ValueError) as error:
        warnings.warn(f"{file} is skipped: it can't be read as an image ({error}).", stacklevel=2)
        return []
    prompt, first = (named["prompt"], int(named["number"])) if named else (file.stem, 1)
    paths = [file]
    if len(pictures) > 1:
        paths = [file.parent / ".tiles" / f"{file.stem}_img{n}.png" for n in range(1, len(pictures) + 1)]
        for path, picture in zip(paths, pictures, strict=True):
            if not path.is_file() or path.stat().st_mtime < file.stat().st_mtime:
                write_image(path, picture, {})
    about: dict[str, Any] = {"experiment": file.parent.name, "prompt_name": prompt}
    return [
        ImageRecord(path=path, number=number, width=picture.width, height=picture.height, **about, **values)
        for number, (path, picture) in enumerate(zip(paths, pictures, strict=True), start=first)
    ]


def by_setting(records: Iterable[ImageRecord]) -> dict[Setting, list[ImageRecord]]:
    """Groups records by their setting, the one that was used last first."""
    groups: dict[Setting, list[ImageRecord]] = {}
    for record in records:
        groups.setdefault(record.setting, []).append(record)
    return dict(sorted(groups.items(), key=lambda one: max(r.made for r in one[1]), reverse=True))


def _place(name: str, order: list[str]) -> tuple[int, str]:
    """Sorts names as they stand in a list, and the others behind them by letter."""
    return (order.index(name), "") if name in order else (len(order), name)


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """File name to record, as images.json has it; it describes images that lost their own record."""
    try:
        rows = json.loads((folder / "images.json").read_text(encoding="utf-8"))["images"]
        return {str(row["file"]): row for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _check(prompts: PromptSet, images_per_prompt: int, seed: int) -> None:
    if images_per_prompt < 1:
        raise ValueError(
            f"images_per_prompt must be at least 1, got {images_per_prompt}. The homework shows 4."
        )
    if not 0 <= seed <= _MAX_SEED - images_per_prompt:
        raise ValueError(f"seed must be at least 0 and below 2⁶³, got {seed}. Usual: 0.")
    for name, prompt in prompts.prompts.items():
        if "{subject}" in prompt:
            raise ValueError(
                f"The prompt {name!r} still holds {{subject}}. Fill it in: prompts.fill('sks woman')."
            )


def _models(several: Sequence[Base], base: Base | None, root: str | Path) -> dict[str, BaseModel]:
    """The name of each model's images to the model."""
    resolved = [None if one == BASE else resolve(one, root) for one in several]
    models: dict[str, BaseModel] = {}
    for model in resolved:
        if model is not None:
            models[model.label] = model
        else:
            own = [one for one in resolved if one is not None]
            models[BASE] = resolve(base if base is not None else _base_of(own), root)
    return models


def _base_of(models: list[BaseModel]) -> str:
    """What the models were trained from in the first place."""
    bases = list(dict.fromkeys(model.root_name for model in models)) or ["mini"]
    if len(bases) > 1:
        raise ValueError(
            f"The experiments have several bases: {', '.join(bases)}. Say which one: base={bases[0]!r}."
        )
    return bases[0]


def _plan(
    label: str,
    model: BaseModel,
    sampling: Sampling,
    maps: list[ControlMap],
    prompts: PromptSet,
    seeds: range,
    folder: Path,
) -> list[ImageRecord]:
    control = [one.record | files for one, files in zip(maps, _files_of(maps), strict=True)]
    weights = model.fingerprint
    return [
        ImageRecord(
            path=folder / f"{name}_img{number}.png",
            experiment=label,
            prompt_name=name,
            number=number,
            prompt=prompt,
            seed=seed,
            model=weights,
            control=control,
            **asdict(sampling),
        )
        for name, prompt in prompts.prompts.items()
        for number, seed in enumerate(seeds, start=1)
    ]


def _maps(
    controls: list[Control], sampling: Sampling, root_name: str, made: list[list[ControlMap]]
) -> list[ControlMap]:
    """The control maps for a model; shared with a model before it on the same base and resolution."""
    size = (sampling.width, sampling.height)
    for maps in made:
        if all(one.root_name == root_name and one.image.size == size for one in maps):
            return maps
    return [control_map(control, size, root_name) for control in controls]


def _folder(label: str, maps: list[ControlMap]) -> str:
    """The name of an experiment's images: `lora`, `lora_canny_hat`, `lora_canny_hat+pose_arms_scale0.5`."""
    return f"{label}_{'+'.join(one.control.label for one in maps)}" if maps else label


def _files_of(maps: list[ControlMap]) -> list[dict[str, str]]:
    """Where a control's map and reference lie beside the images."""
    numbers = range(1, len(maps) + 1)
    return [
        {"map": f"control_{number}.png", "reference": f"control_{number}_image.png"} for number in numbers
    ]


def _make(job: _Job, batch_size: int | None, progress: bool) -> list[ImageRecord]:
    """Samples the images that aren't there as described, and writes images.json."""
    folder, prompts = job.folder, dict.fromkeys(record.prompt_name for record in job.records)
    with acquire_lock(folder / ".lock"):
        _make_room(job.records)
        there = {record.path: record for record in load_images(folder.name, results=folder.parent)}
        missing = [record for record in job.records if record.path not in there]
        if progress:
            print(
                f"images of {folder.name}: {len(job.records) - len(missing)} of {len(job.records)} are there"
            )
        for one, files in zip(job.maps, _files_of(job.maps), strict=True):
            write_image(folder / files["map"], one.image, one.record)
            write_image(folder / files["reference"], one.reference, {})
        try:
            there |= {record.path: record for record in _sample_missing(job, missing, batch_size, progress)}
        finally:
            _write_list(folder, list(prompts))
    return [there[record.path] for record in job.records]


def _make_room(planned: list[ImageRecord]) -> None:
    """Moves aside what would be mixed with the planned images, and brings back what was moved before.

    A cell shows one setting, a folder one model and one control.
    """
    folder = planned[0].path.parent
    cells = {record.prompt_name: record for record in reversed(planned)}  # the first of each
    differing: dict[Path, set[str]] = {}
    there = load_images(folder.name, results=folder.parent)
    for path in {record.path for record in planned} - {record.path for record in there}:
        if path.exists() and _records_from_elsewhere(path):  # a picture of the user's own
            differing[path] = {"program"}
            _move(path, folder / EARLIER / f"{path.stem}_{file_sha256(path)[:8]}{path.suffix}")
    for old in there:
        if cell := cells.get(old.prompt_name):
            new = replace(cell, number=old.number, seed=cell.seed - 1 + old.number)
        else:
            new = replace(old, model=planned[0].model, control=planned[0].control)
        if old != new:
            names = {item.name for item in fields(old) if item.compare}
            differing[old.path] = {name for name in names if getattr(old, name) != getattr(new, name)}
            _move(old.path, _aside(old))
    for record in planned:
        if not record.path.exists() and _aside(record).exists():
            _move(_aside(record), record.path)
    if differing:
        what = ", ".join(sorted(set().union(*differing.values())))
        warnings.warn(
            f"{len(differing)} images in {folder} were made with another {what}, and a cell shows one "
            f"setting: they were moved to {folder / EARLIER}. Asked for again, they come back from there.",
            stacklevel=2,
        )


def _aside(record: ImageRecord) -> Path:
    """Where an image lies that made room, named by its record."""
    values = record.as_dict() | {"made": ""}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return record.path.parent / EARLIER / f"{record.path.stem}_{digest}{record.path.suffix}"


def _move(file: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    os.replace(file, to)


def _sample_missing(
    job: _Job, missing: list[ImageRecord], batch_size: int | None, progress: bool
) -> Iterator[ImageRecord]:
    """Yields each record once its image is written."""
    if not missing:
        return
    pipeline = ready_pipeline(job.model, job.sampling)
    pipeline = with_controlnets(pipeline, job.maps) if job.maps else pipeline
    warn_of_cut_prompts(pipeline, [*(record.prompt for record in missing), job.sampling.negative_prompt])
    steered = control_options(job.maps) if job.maps else {}
    size = batch_size or profile(job.model).images_per_batch
    for batch in batches(missing, size, f"images of {job.folder.name}", progress):
        images = sample(
            pipeline, [one.prompt for one in batch], [one.seed for one in batch], job.sampling, **steered
        )
        for record, image in zip(batch, images, strict=True):
            done = replace(record, made=datetime.now(UTC).isoformat(timespec="milliseconds"))
            write_image(done.path, image, done.as_dict())
            yield done


def _write_list(folder: Path, prompts: list[str]) -> None:
    """Writes images.json from what the images carry: these prompts first, then the others as before."""
    records = load_images(folder.name, results=folder.parent)
    records.sort(key=lambda one: _place(one.prompt_name, prompts)[0])
    write_json(folder / "images.json", {"images": [record.as_dict() for record in records]})
