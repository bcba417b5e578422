"""Sampling from a pipeline, each image from its own seed and carrying its record; class images."""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdlab import machine
from sdlab.config import LARGEST_SEED, Range, unknown
from sdlab.files import acquire_lock, write_bytes, write_json
from sdlab.models import Base, BaseModel, fuse, quiet, resolve
from sdlab.profiles import profile

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
_SIDE = Range(8, "Usual: 512 (mini: 128).", multiple=8)
_RULES = {
    "num_inference_steps": Range(1, "Usual: 20 to 35; the noise schedule has 1000.", below=1000),
    "guidance_scale": Range(1, "Usual: 7 to 9 (mini: 2)."),
    "width": _SIDE,
    "height": _SIDE,
}
IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
IMAGE_FORMATS = ["PNG", "JPEG", "WEBP"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How images are sampled."""

    num_inference_steps: int
    guidance_scale: float  # of classifier-free guidance; 1 is none
    sampler: str = "dpm++"  # a key of `SAMPLERS`
    negative_prompt: str = ""
    width: int  # in pixels, as height
    height: int


def choose_sampling(
    base: Base,
    *,
    resolution: int | None = None,
    width: int | None = None,
    height: int | None = None,
    **choices: Any,
) -> Sampling:
    """Fills what isn't chosen (None) from the base's profile; `resolution` is both width and height.

    Raises:
        ValueError: A value breaks its rule.
    """
    chosen = profile(base)
    side = chosen.resolution if resolution is None else resolution
    values = {name: getattr(chosen, name) for name in ("num_inference_steps", "guidance_scale")}
    values |= {name: value for name, value in choices.items() if value is not None}
    width, height = (side if one is None else one for one in (width, height))
    found = Sampling(**values, width=width, height=height)
    if found.sampler not in SAMPLERS:
        raise ValueError(unknown("sampler", found.sampler, SAMPLERS))
    for name, rule in _RULES.items():
        rule.check(name, getattr(found, name))
    return found


def ready_pipeline(base: Base, sampling: Sampling) -> StableDiffusionPipeline:
    """Loads a pipeline for sampling: float16 on a CUDA GPU, LoRA fused, with the sampler's scheduler."""
    import torch

    place = machine.device()
    dtype = torch.float16 if place.type == "cuda" else torch.float32
    pipeline = fuse(resolve(base).load(dtype)).to(place)
    if place.type == "cuda":
        pipeline.unet.to(memory_format=torch.channels_last)  # the order that its convolutions want
    pipeline.vae.enable_slicing()  # an image at a time: less memory, and on a CPU less time
    return with_sampler(pipeline, sampling.sampler)


def images_at_once(base: Base, sampling: Sampling) -> int:
    """The profile's batch, or what half of the free memory holds; docs/speed.md reckons an image's share."""
    each = 0.14e9 * sampling.width * sampling.height / 512**2
    return max(1, min(profile(base).images_per_batch, int(machine.memory_free() / 2 / each)))


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
    """Samples a batch, one image per prompt; each depends on its own seed alone, not on the others."""
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


def sample_all(
    pipeline: StableDiffusionPipeline,
    wanted: Sequence[tuple[str, int]],
    sampling: Sampling,
    *,
    batch_size: int,
    description: str | None,
    **options: Any,
) -> Iterator[Image.Image]:
    """Samples an image per prompt and seed, in batches, under a progress bar if it has a description."""
    from tqdm.auto import tqdm

    warn_of_cut_prompts(pipeline, [*(prompt for prompt, _ in wanted), sampling.negative_prompt])
    with tqdm(total=len(wanted), desc=description, unit="image", disable=description is None) as bar:
        for start in range(0, len(wanted), batch_size):
            batch = wanted[start : start + batch_size]
            prompts, seeds = zip(*batch, strict=True)
            yield from sample(pipeline, prompts, seeds, sampling, **options)
            bar.update(len(batch))


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


def read_record(path: Path) -> dict[str, Any] | None:
    """Reads the record that an image carries, empty if it carries none; None if it can't be read."""
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return dict(json.loads(image.info.get("sdlab", "{}")))
    except (OSError, ValueError, TypeError, Image.DecompressionBombError):
        return None


def image_files(folder: str | Path) -> list[Path]:
    """Lists the images in a folder by name, without hidden files."""
    files = (file for file in Path(folder).expanduser().glob("[!.]*") if file.suffix.lower() in IMAGE_ENDINGS)
    return sorted(files)


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
    """Samples the images of prior preservation; those that are there are kept and shared.

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
    Range(1, "Usual: 200 to 500 (mini: 64).").check("num", num)
    Range(0, "Usual: 0.", below=LARGEST_SEED - num).check("seed", seed)
    model = resolve(base, root)
    chosen = choose_sampling(model, **sampling)
    settings = {"base": model.fingerprint, "class_prompt": class_prompt, **asdict(chosen)}
    if chosen.width == chosen.height:  # as folders are keyed since before there were width and height
        settings["resolution"] = settings.pop("width")
        del settings["height"]
    words = re.sub(r"\W+", "_", class_prompt).strip("_")[:40]
    own = Path(data).expanduser() / f"{words}_{digest_of(settings)}"
    place = Path(folder).expanduser() if folder is not None else own
    _check_class_images(place, model, class_prompt)
    missing = _missing_seeds(place, num, seed)
    if progress:
        print(f"class images: {num - len(missing)} of {num} are in {place}")
    if missing:
        model.check(chosen.width, chosen.height)
        with acquire_lock(place / ".lock"):  # another experiment that needs them waits until they are there
            if seeds := _missing_seeds(place, num, seed):
                write_json(place / "class_images.json", {"base_name": model.name, **settings})
                title = "class images" if progress else None
                for one, image in _sample_class(model, class_prompt, seeds, chosen, title):
                    write_image(place / f"class_{one:05d}.png", image, settings | {"seed": one})
    return place


def _sample_class(
    model: BaseModel, class_prompt: str, seeds: Sequence[int], chosen: Sampling, title: str | None
) -> Iterator[tuple[int, Image.Image]]:
    """Each seed with its image."""
    prompts, pipeline = [(class_prompt, one) for one in seeds], ready_pipeline(model, chosen)
    size = images_at_once(model, chosen)
    images = sample_all(pipeline, prompts, chosen, batch_size=size, description=title)
    yield from zip(seeds, images, strict=True)


def _check_class_images(folder: Path, model: BaseModel, class_prompt: str) -> None:
    """Refuses a folder with images of another prompt, and warns of those of another base."""
    records = [record for file in image_files(folder) if (record := read_record(file))]
    prompts = [record.get("class_prompt", class_prompt) for record in records]
    if others := [prompt for prompt in prompts if prompt != class_prompt]:
        raise ValueError(
            f"{folder} holds {len(others)} class images of {others[0]!r}, and {class_prompt!r} is asked for. "
            "Give that prompt, another folder, or none: then one is made for the prompt."
        )
    bases = [record.get("base", model.fingerprint) for record in records]
    if count := sum(base != model.fingerprint for base in bases):
        warnings.warn(
            f"{folder} holds {count} class images of another base than {model.name}, and prior preservation "
            "keeps what they show. Another folder, or none, gives the base's own.",
            stacklevel=3,
        )


def _missing_seeds(folder: Path, num: int, seed: int) -> list[int]:
    """Which images to add so that there are `num`, counting images that came from elsewhere."""
    here = {file.name for file in image_files(folder)}
    missing = [one for one in range(seed, seed + num) if f"class_{one:05d}.png" not in here]
    return missing[: max(0, num - len(here))]


def digest_of(values: dict[str, Any]) -> str:
    """Eight hexadecimal digits that stand for values which JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
