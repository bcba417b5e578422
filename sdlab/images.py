"""Experiments × prompts × seeds → images in results/, each carrying how it was made; class images."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdlab import machine
from sdlab.config import unknown
from sdlab.control import Control, ControlMap, control_map, control_options, with_controlnets
from sdlab.experiment import Experiment
from sdlab.files import acquire_lock, write_bytes, write_json
from sdlab.models import Base, BaseModel, fuse, quiet, resolve
from sdlab.profiles import profile
from sdlab.prompts import PromptSet

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

# Name to diffusers' class; "own" is the scheduler that the model came with.
SAMPLERS = {
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "own": "",
}
IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
EARLIER = "earlier"
"""Where in an experiment's results the images lie that made room for others."""
BASE = "base"
"""The name of the base model's own images."""
_MAX_SEED = 2**63 - 1
_NAME = re.compile(r"(?P<prompt>.+)_img(?P<number>\d+)")
_CONTROL_PICTURE = re.compile(r"control_\d+(_image)?")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How images are sampled.

    Args:
        num_inference_steps: Denoising steps, at least 1.
        guidance_scale: Strength of classifier-free guidance; 1 is none.
        sampler: A key of `SAMPLERS`.
        negative_prompt: What no image is to show.
        width: In pixels, a multiple of 8.
        height: In pixels, a multiple of 8.

    Raises:
        ValueError: A value breaks its rule.
    """

    num_inference_steps: int
    guidance_scale: float
    sampler: str = "dpm++"
    negative_prompt: str = ""
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1:
            raise ValueError(
                f"num_inference_steps must be at least 1, got {self.num_inference_steps}. Usual: 20 to 35."
            )
        if self.guidance_scale < 1:
            raise ValueError(
                f"guidance_scale must be at least 1, got {self.guidance_scale:g}. Usual: 7 to 9."
            )
        if self.sampler not in SAMPLERS:
            raise ValueError(unknown("sampler", self.sampler, SAMPLERS))
        for name, side in (("width", self.width), ("height", self.height)):
            if side < 8 or side % 8:
                raise ValueError(f"{name} must be a multiple of 8, got {side}. Usual: 512 (mini: 128).")


def choose_sampling(
    base: Base,
    *,
    resolution: int | None = None,
    width: int | None = None,
    height: int | None = None,
    **choices: Any,
) -> Sampling:
    """Fills what isn't chosen (None) from the base's profile; `resolution` is both width and height."""
    chosen = profile(base)
    side = resolution or chosen.resolution
    sampling = {"num_inference_steps": chosen.num_inference_steps, "guidance_scale": chosen.guidance_scale}
    given = {name: value for name, value in choices.items() if value is not None}
    return Sampling(**sampling | given, width=width or side, height=height or side)


def ready_pipeline(base: Base, sampling: Sampling) -> StableDiffusionPipeline:
    """Loads a pipeline for sampling: float16 on a CUDA GPU, LoRA fused, with the sampler's scheduler."""
    import torch

    place = machine.device()
    dtype = torch.float16 if place.type == "cuda" else torch.float32
    return with_sampler(fuse(resolve(base).load(dtype)).to(place), sampling.sampler)


def with_sampler(pipeline: StableDiffusionPipeline, sampler: str) -> StableDiffusionPipeline:
    """Gives another pipeline of the same parts, with the sampler's scheduler and without progress bar."""
    import diffusers

    parts = dict(pipeline.components)
    if name := SAMPLERS[sampler]:
        parts["scheduler"] = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    with quiet():
        other = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    return other


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    **options: Any,
) -> list[Image.Image]:
    """Samples a batch, one image per prompt; each depends on its own seed alone, not on the others.

    `options` are what else the pipeline takes, such as a ControlNet's maps.
    """
    import torch

    images = pipeline(
        prompt=list(prompts),
        negative_prompt=[sampling.negative_prompt] * len(prompts),
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        height=sampling.height,
        width=sampling.width,
        **options,
    ).images
    return list(images)


def warn_of_cut_prompts(pipeline: StableDiffusionPipeline, prompts: Iterable[str]) -> None:
    """Warns of each prompt that is longer than the text encoder reads, naming what is cut."""
    tokenizer = pipeline.tokenizer
    limit = tokenizer.model_max_length - 2  # without the start and end tokens
    for prompt in dict.fromkeys(prompts):
        tokens = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        if len(tokens) > limit:
            cut = tokenizer.decode(tokens[limit:]).strip()
            message = f"The prompt has {len(tokens)} tokens, {limit} are read. Not read: {cut!r}. Shorten it."
            warnings.warn(f"{message} The prompt: {prompt!r}", stacklevel=2)


def write_image(path: Path, image: Image.Image, record: dict[str, Any]) -> None:
    """Writes a PNG that carries its record, whole or not at all."""
    info = PngInfo()
    info.add_itxt("sdlab", json.dumps(record, ensure_ascii=False))
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info)
    write_bytes(path, data.getvalue())


def read_record(path: Path) -> dict[str, Any]:
    """Reads the record that an image carries; empty if there is no such image, or it carries none."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return dict(json.loads(image.info.get("sdlab", "{}")))
    except (OSError, ValueError):
        return {}


def image_files(folder: str | Path) -> list[Path]:
    """Lists the images in a folder by name, without hidden files."""
    files = (file for file in Path(folder).glob("[!.]*") if file.suffix.lower() in IMAGE_ENDINGS)
    return sorted(files)


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


_OPTIONAL = ("control", "made")


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
        with Image.open(file, formats=["PNG", "JPEG", "WEBP"]) as image:
            carried = json.loads(image.info.get("sdlab", "{}"))
    except (OSError, ValueError):
        return None
    return ImageRecord.from_dict(carried or listed, file)


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
    own = {str(one): resolve(one, root) for one in several if one != BASE}
    models = {own[str(one)].label if one != BASE else BASE: own.get(str(one)) for one in several}
    if BASE in models:
        models[BASE] = resolve(base if base is not None else _base_of(list(own.values())), root)
    return {label: model for label, model in models.items() if model is not None}


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
    for maps in made:
        if all(
            one.root_name == root_name and one.image.size == (sampling.width, sampling.height) for one in maps
        ):
            return maps
    return [control_map(control, (sampling.width, sampling.height), root_name) for control in controls]


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
    for old in load_images(folder.name, results=folder.parent):
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


def class_images(
    base: Base,
    class_prompt: str,
    num: int,
    *,
    folder: str | Path | None = None,
    data: str | Path = "data/class_images",
    root: str | Path = "experiments",
    seed: int = 0,
    progress: bool = True,
    **sampling: Any,
) -> Path:
    """Samples the images of prior preservation; those that are there are kept, and shared by all experiments.

    A folder with images from elsewhere is used as it is and filled up.

    Args:
        base: The base model.
        class_prompt: Such as `a photo of woman face`.
        num: How many there are to be.
        folder: Where; None takes `<data>/<key>`, the key made from base, prompt and sampling.
        data: The folder of all class images.
        root: The folder of all experiments.
        seed: Of the first image; the next has the next seed.
        progress: Show a progress bar.
        **sampling: For `choose_sampling`; what isn't given is the profile's.

    Returns:
        The folder.

    Raises:
        ValueError: The base is unknown, or a value breaks its rule.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, section 3.3. Taught in: notebooks/02.
    """
    model = resolve(base, root)
    chosen = choose_sampling(model, **sampling)
    settings = {"base": model.fingerprint, "class_prompt": class_prompt, **asdict(chosen)}
    if chosen.width == chosen.height:  # as folders are keyed since before there were width and height
        settings["resolution"] = settings.pop("width")
        del settings["height"]
    place = Path(folder).expanduser() if folder is not None else Path(data) / _key(settings)
    _check_prompts(place, class_prompt)
    if progress:
        print(f"class images: {num - len(_missing_seeds(place, num, seed))} of {num} are in {place}")
    if not _missing_seeds(place, num, seed):
        return place
    model.check(chosen.width, chosen.height)
    with acquire_lock(place / ".lock"):  # another experiment that needs them waits until they are there
        if seeds := _missing_seeds(place, num, seed):
            write_json(place / "class_images.json", {"base_name": model.name, **settings})
            _sample_class(model, chosen, settings, seeds, place, progress)
    return place


def _check_prompts(place: Path, class_prompt: str) -> None:
    """Refuses a folder whose images were made with another prompt, so that another class would be kept."""
    said = (read_record(file).get("class_prompt", class_prompt) for file in image_files(place))
    if others := [prompt for prompt in said if prompt != class_prompt]:
        raise ValueError(
            f"{place} holds {len(others)} class images of {others[0]!r}, and {class_prompt!r} is asked for. "
            "Give that prompt, another folder, or none: then one is made for the prompt."
        )


def _sample_class(
    model: BaseModel,
    sampling: Sampling,
    settings: dict[str, Any],
    seeds: list[int],
    place: Path,
    progress: bool,
) -> None:
    pipeline, prompt = ready_pipeline(model, sampling), settings["class_prompt"]
    warn_of_cut_prompts(pipeline, [prompt])
    for batch in batches(seeds, profile(model).images_per_batch, "class images", progress):
        for seed, image in zip(batch, sample(pipeline, [prompt] * len(batch), batch, sampling), strict=True):
            write_image(place / f"class_{seed:05d}.png", image, settings | {"seed": seed})


def _missing_seeds(folder: Path, num: int, seed: int) -> list[int]:
    """Which images to add so that there are `num`, counting images that came from elsewhere."""
    here = {file.name for file in image_files(folder)}
    ours = {f"class_{seed + i:05d}.png": seed + i for i in range(num)}
    missing = [one for name, one in ours.items() if name not in here]
    return missing[: max(0, num - len(here))]


def _key(settings: dict[str, Any]) -> str:
    words = re.sub(r"\W+", "_", settings["class_prompt"]).strip("_")[:40]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{words}_{digest}"


def batches(items: Sequence[Any], size: int, description: str, progress: bool) -> Iterator[list[Any]]:
    """Splits a list into batches under a progress bar that counts items."""
    from tqdm.auto import tqdm

    with tqdm(total=len(items), desc=description, unit="image", disable=not progress) as bar:
        for start in range(0, len(items), size):
            yield list(items[start : start + size])
            bar.update(len(items[start : start + size]))
