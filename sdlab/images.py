"""Experiments × prompts × seeds → images in results/, each carrying how it was made."""

from __future__ import annotations

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

from sdlab.config import LARGEST_SEED, Range
from sdlab.control import Control, ControlMap, control_map, control_options, with_controlnets
from sdlab.experiment import Experiment
from sdlab.files import acquire_lock, file_sha256, placed, write_json
from sdlab.formats.pictures import parameters, tiles
from sdlab.models import Base, BaseModel, resolve
from sdlab.prompts import PromptSet
from sdlab.sampling import (
    IMAGE_FORMATS,
    Sampling,
    choose_sampling,
    digest_of,
    image_files,
    images_at_once,
    read_record,
    ready_pipeline,
    sample_all,
    write_image,
)

EARLIER = "earlier"
"""Where in an experiment's results the images lie that made room for others."""
BASE = "base"
"""The name of the base model's own images."""
_NAME = re.compile(r"(?P<prompt>.+)_img(?P<number>\d+)")
_CONTROL_PICTURE = re.compile(r"control_\d+(_image)?")


@dataclass(frozen=True, kw_only=True)
class Setting(Sampling):
    """What images of one table have in common besides prompt and experiment, so that like is compared."""

    first_seed: int


@dataclass(frozen=True, kw_only=True)
class ImageRecord(Sampling):
    """One image in results/ and everything that made it."""

    path: Path = field(compare=False)
    experiment: str  # or `base`
    prompt_name: str
    number: int  # from 1 on, for each prompt
    prompt: str
    seed: int
    model: str  # fingerprint of the weights
    control: list[dict[str, Any]] = field(default_factory=list)  # `ControlMap.record`, `map`, `reference`
    made: str = field(default="", compare=False)  # when, in UTC
    elsewhere: str = ""  # the program that made it, if it wasn't made here; see `_UNKNOWN`

    @property
    def setting(self) -> Setting:
        """What it shares with the other images of a table."""
        shared = {item.name: getattr(self, item.name) for item in fields(Sampling)}
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
    """What one experiment's images are made with; it has one image at least."""

    model: BaseModel
    sampling: Sampling
    maps: list[ControlMap]
    records: list[ImageRecord]


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

    Image n of each prompt has the seed `seed + n - 1`. Images of a prompt that were made otherwise are moved
    to `<results>/<experiment>/earlier/`, with a warning; asked for again, they come back from there.

    Args:
        experiments: Finished ones; `base` is the base model, `LORA@0.7` and `MODEL+LORA@0.7` a LoRA's share.
        prompts: The prompt set, its subject filled in.
        control: What controls the images; they go to `<results>/<experiment>_<kind>_<control image>/`.
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
    """
    _check(prompts, images_per_prompt, seed, batch_size)
    several = [experiments] if isinstance(experiments, str | Path | Experiment | BaseModel) else experiments
    models = _models(several, base, root)
    controls = [control] if isinstance(control, Control) else list(control)
    steps = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
    choices = {**steps, "sampler": sampler, "resolution": resolution, "width": width, "height": height}
    seeds = range(seed, seed + images_per_prompt)
    jobs = _plan(models, prompts, seeds, controls, choices, Path(results).expanduser())
    return [record for job in jobs for record in _make(job, batch_size, progress)]


def load_images(
    experiment: str, *, results: str | Path = "results", root: str | Path | None = None
) -> list[ImageRecord]:
    """Reads the records of the images that an experiment has, in the order of their prompt set.

    They are read from the images themselves. With the folder of all experiments, it is warned of images that
    were made before the experiment was trained anew.
    """
    records = _read(Path(results).expanduser() / experiment)
    trained = Path(root).expanduser() / experiment if root else None
    now = None
    if trained and (trained / "experiment.json").is_file():
        now = Experiment.load(trained).record.get("fingerprint")
    if older := [one for one in records if now and one.model != now]:
        warnings.warn(
            f"{len(older)} images of {experiment} were made before it was trained as it is now. Make them "
            f"again: {placed(f'sdlab generate {experiment}', root=root or 'experiments', results=results)}.",
            stacklevel=2,
        )
    return records


def _read(folder: Path, first: Iterable[str] = ()) -> list[ImageRecord]:
    """Some prompts first, then those that images.json lists, then the others by letter."""
    rows = _listed(folder)
    found = [record for file in image_files(folder) if (record := _record_of(file, rows.get(file.name, {})))]
    order = list(dict.fromkeys([*first, *(str(row.get("prompt_name")) for row in rows.values())]))
    place = {name: number for number, name in enumerate(order)}
    return sorted(found, key=lambda r: (place.get(r.prompt_name, len(place)), r.prompt_name, r.number))


def _in_place(folder: Path) -> list[ImageRecord]:
    """The images that still have the names they were made under."""
    return [one for one in _read(folder) if one.path.stem == f"{one.prompt_name}_img{one.number}"]


def _record_of(file: Path, listed: dict[str, Any]) -> ImageRecord | None:
    """What an image carries, else what is listed of it; None for a broken file and for control maps."""
    carried = read_record(file)
    return None if carried is None else ImageRecord.from_dict(carried or listed, file)


def images_from_elsewhere(name: str, *, results: str | Path = "results") -> list[ImageRecord]:
    """Reads the images that another program made, by prompt and number.

    They are called `<prompt>_img<n>.png`, or `<prompt>.jpg` with a 2×2 grid, whose four images are written to
    `<results>/<name>/.tiles/`. Those that carry our record are left out.
    """
    folder = Path(results).expanduser() / name
    ours = {record.path for record in _read(folder)}
    found: list[ImageRecord] = []
    for file in image_files(folder):
        if file not in ours and not _CONTROL_PICTURE.fullmatch(file.stem):
            found += _records_from_elsewhere(file)
    return sorted(found, key=lambda one: (one.prompt_name, one.number))


def _records_from_elsewhere(file: Path) -> list[ImageRecord]:
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            values = parameters(image)
            named = _NAME.fullmatch(file.stem)
            pictures = [image.convert("RGB")] if named else tiles(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
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


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """File name to record, as images.json has it; it describes images that lost their own record."""
    file = folder / "images.json"
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["images"]
        return {str(row["file"]): row for row in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it can't be read ({error or type(error).__name__})"
        warnings.warn(f"{file} is ignored: {reason}. Only what its images carry is known.", stacklevel=3)
        return {}


def _check(prompts: PromptSet, images_per_prompt: int, seed: int, batch_size: int | None) -> None:
    if not isinstance(prompts, PromptSet):
        raise ValueError(
            f"prompts must be a PromptSet, got {prompts!r}. Write PromptSet({{'street': 'a photo of …'}}), "
            "or take one: HOMEWORK_A.fill('sks woman')."
        )
    Range(1, "The homework shows 4.").check("images_per_prompt", images_per_prompt)
    Range(0, "Usual: 0.", below=LARGEST_SEED - images_per_prompt).check("seed", seed)
    if batch_size is not None:
        Range(1, "Leave it out for the profile's.").check("batch_size", batch_size)
    if unfilled := [name for name, prompt in prompts.prompts.items() if "{subject}" in prompt]:
        raise ValueError(
            f"The prompt {unfilled[0]!r} still holds {{subject}}. Fill it in: prompts.fill('sks woman')."
        )
    for line in prompts.ignored():
        print(line)


def _models(several: Sequence[Base], base: Base | None, root: str | Path) -> dict[str, BaseModel]:
    """The name of each model's images to the model; `base` is what the others were trained from."""
    models: dict[Base, BaseModel] = {one: resolve(one, root) for one in several if one != BASE}
    roots = list(dict.fromkeys(model.root_name for model in models.values())) or ["mini"]
    if BASE in several:
        if base is None and len(roots) > 1:
            raise ValueError(
                f"The experiments have several bases: {', '.join(roots)}. Say which one: base={roots[0]!r}."
            )
        models[BASE] = resolve(base if base is not None else roots[0], root)
    labelled: dict[str, BaseModel] = {}
    for one in several:
        label, model = (BASE if one == BASE else models[one].label), models[one]
        other = labelled.setdefault(label, model)
        if model != other and model.fingerprint != other.fingerprint:
            raise ValueError(
                f"{other.name} and {model.name} are two models, and the images of both would be called "
                f"{label}. Give one of the files or folders another name."
            )
    return labelled


def _plan(
    models: dict[str, BaseModel],
    prompts: PromptSet,
    seeds: range,
    controls: list[Control],
    choices: dict[str, Any],
    results: Path,
) -> list[_Job]:
    """Describes each image that is asked for; all is checked before the first is made."""
    jobs = []
    made: dict[tuple[str, int, int], list[ControlMap]] = {}
    for label, model in models.items():
        sampling = choose_sampling(model, negative_prompt=prompts.negative_prompt, **choices)
        model.check(sampling.width, sampling.height)
        key = (model.root_name, sampling.width, sampling.height)
        if key not in made:
            made[key] = [control_map(control, key[1:], model.root_name) for control in controls]
        name = f"{label}_{'+'.join(control.label for control in controls)}" if controls else label
        shared: dict[str, Any] = {
            "experiment": label,
            "model": model.fingerprint,
            "control": [
                one.record | {"map": f"control_{n}.png", "reference": f"control_{n}_image.png"}
                for n, one in enumerate(made[key], start=1)
            ],
            **asdict(sampling),
        }
        records = [
            ImageRecord(
                path=results / name / f"{prompt_name}_img{number}.png",
                prompt_name=prompt_name,
                number=number,
                prompt=prompt,
                seed=seed,
                **shared,
            )
            for prompt_name, prompt in prompts.prompts.items()
            for number, seed in enumerate(seeds, start=1)
        ]
        jobs.append(_Job(model, sampling, made[key], records))
    return jobs


def _make(job: _Job, batch_size: int | None, progress: bool) -> list[ImageRecord]:
    """Samples the images that aren't there as described, and writes images.json."""
    first, folder = job.records[0], job.records[0].path.parent
    with acquire_lock(folder / ".lock"):
        _make_room(job.records)
        there = {record.path: record for record in _in_place(folder)}
        missing = [record for record in job.records if record.path not in there]
        if progress:
            here = len(job.records) - len(missing)
            print(f"images of {folder.name}: {here} of {len(job.records)} are there")
        for one, files in zip(job.maps, first.control, strict=True):
            write_image(folder / files["map"], one.image, one.record)
            write_image(folder / files["reference"], one.reference, {})
        try:
            there |= {record.path: record for record in _sample_missing(job, missing, batch_size, progress)}
        finally:  # from what the images carry: the prompts asked for first, then the others as before
            records = _read(folder, [record.prompt_name for record in job.records])
            write_json(folder / "images.json", {"images": [record.as_dict() for record in records]})
    return [there[record.path] for record in job.records]


def _make_room(planned: list[ImageRecord]) -> None:
    """Moves aside what would be mixed with the planned images, and brings back what was moved before.

    A cell shows one setting, a folder one model and one control.
    """
    folder = planned[0].path.parent
    cells = {record.prompt_name: record for record in reversed(planned)}  # the first of each
    differing: dict[Path, set[str]] = {}
    there = _in_place(folder)
    for path in {record.path for record in planned} - {record.path for record in there}:
        if path.exists():  # the user's own, or an image under another one's name
            differing[path] = {"name or program"}
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
    digest = digest_of(record.as_dict() | {"made": ""})
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
    images = sample_all(
        pipeline,
        [(record.prompt, record.seed) for record in missing],
        job.sampling,
        batch_size=batch_size or images_at_once(job.model, job.sampling),
        description=f"images of {missing[0].path.parent.name}" if progress else None,
        **(control_options(job.maps) if job.maps else {}),
    )
    for record, image in zip(missing, images, strict=True):
        done = replace(record, made=datetime.now(UTC).isoformat(timespec="milliseconds"))
        write_image(done.path, image, done.as_dict())
        yield done
