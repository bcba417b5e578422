"""Sampling from a pipeline in batches, each image from its own seed; class images."""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdlab import machine
from sdlab.config import unknown
from sdlab.files import write_bytes, write_json
from sdlab.models import base_fingerprint, fuse, load_pipeline, quiet
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
IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How images are sampled.

    Args:
        num_inference_steps: Denoising steps, at least 1.
        guidance_scale: Strength of classifier-free guidance; 1 is none.
        sampler: A key of `SAMPLERS`.
        negative_prompt: What no image shall show.
        resolution: Side of the images in pixels, a multiple of 8.

    Raises:
        ValueError: A value breaks its rule.
    """

    num_inference_steps: int
    guidance_scale: float
    sampler: str = "dpm++"
    negative_prompt: str = ""
    resolution: int

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
        if self.resolution < 8 or self.resolution % 8:
            raise ValueError(
                f"resolution must be a multiple of 8, got {self.resolution}. Usual: 512 (mini: 128)."
            )


def choose_sampling(base: str | Path, *, root: str | Path = "experiments", **choices: Any) -> Sampling:
    """Fills what isn't chosen from the base's profile.

    Args:
        base: A base model or experiment.
        root: The folder of all experiments.
        **choices: Fields of `Sampling`; None takes the profile's.

    Returns:
        How to sample.

    Raises:
        ValueError: The base is unknown, or a value breaks its rule.
    """
    chosen = profile(base, root=root)
    names = ("num_inference_steps", "guidance_scale", "resolution")
    given = {name: value for name, value in choices.items() if value is not None}
    return Sampling(**{name: getattr(chosen, name) for name in names} | given)


def ready_pipeline(
    base: str | Path, sampling: Sampling, *, root: str | Path = "experiments"
) -> StableDiffusionPipeline:
    """Loads a pipeline for sampling: on the device, LoRA fused, with the sampler's scheduler.

    Args:
        base: A base model or finished experiment.
        sampling: Its sampler is set.
        root: The folder of all experiments.

    Returns:
        The pipeline; float16 on a CUDA GPU, else float32.
    """
    import torch

    place = machine.device()
    dtype = torch.float16 if place.type == "cuda" else torch.float32
    pipeline = fuse(load_pipeline(base, root=root, dtype=dtype)).to(place)
    return with_sampler(pipeline, sampling.sampler)


def with_sampler(pipeline: StableDiffusionPipeline, sampler: str) -> StableDiffusionPipeline:
    """Gives a pipeline of the same parts with the sampler's scheduler.

    Args:
        pipeline: Its weights are shared, its scheduler stays as it is.
        sampler: A key of `SAMPLERS`.

    Returns:
        Another pipeline, without progress bar.
    """
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
    """Samples one batch.

    Args:
        pipeline: From `ready_pipeline`.
        prompts: One per image.
        seeds: One per image; an image depends on its own seed alone, not on the others in the batch.
        sampling: How.
        **options: What else the pipeline takes, such as a ControlNet's maps.

    Returns:
        One image per prompt.
    """
    import torch

    images = pipeline(
        prompt=list(prompts),
        negative_prompt=[sampling.negative_prompt] * len(prompts),
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        height=sampling.resolution,
        width=sampling.resolution,
        **options,
    ).images
    return list(images)


def warn_of_cut_prompts(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> None:
    """Warns of each prompt that is longer than the text encoder reads, naming what is cut.

    Args:
        pipeline: Its tokenizer counts.
        prompts: To check.
    """
    tokenizer = pipeline.tokenizer
    limit = tokenizer.model_max_length - 2  # without the start and end tokens
    for prompt in dict.fromkeys(prompts):
        tokens = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        if len(tokens) > limit:
            cut = tokenizer.decode(tokens[limit:]).strip()
            message = f"The prompt has {len(tokens)} tokens, {limit} are read. Not read: {cut!r}. Shorten it."
            warnings.warn(f"{message} The prompt: {prompt!r}", stacklevel=2)


def write_image(path: Path, image: Image.Image, record: dict[str, Any]) -> None:
    """Writes a PNG that carries its record, whole or not at all.

    Args:
        path: Where.
        image: What.
        record: How it was made; `read_record` reads it back.
    """
    info = PngInfo()
    info.add_itxt("sdlab", json.dumps(record, ensure_ascii=False))
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=info)
    write_bytes(path, data.getvalue())


def read_record(path: Path) -> dict[str, Any]:
    """Reads the record that an image carries.

    Args:
        path: The image.

    Returns:
        The record; empty if there is no such image, or it carries none.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return dict(json.loads(image.info.get("sdlab", "{}")))
    except (OSError, ValueError):
        return {}


def class_images(
    base: str | Path,
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
        num: How many there shall be.
        folder: Where; None takes `<data>/<key>`, the key made from base, prompt and sampling.
        data: The folder of all class images.
        root: The folder of all experiments.
        seed: Of the first image; the next has the next seed.
        progress: Show a progress bar.
        **sampling: Fields of `Sampling`; what isn't given is the profile's.

    Returns:
        The folder.

    Raises:
        ValueError: The base is unknown, or a value breaks its rule.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, section 3.3. Taught in: notebooks/02.
    """
    chosen = choose_sampling(base, root=root, **sampling)
    settings = {"base": base_fingerprint(base, root), "class_prompt": class_prompt, **asdict(chosen)}
    place = Path(folder) if folder is not None else Path(data) / _key(settings)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock"):  # another experiment that needs them waits until they are there
        seeds = _missing_seeds(place, num, seed)
        if progress:
            print(f"class images: {num - len(seeds)} of {num} are in {place}")
        if seeds:
            write_json(place / "class_images.json", {"base_name": str(base), **settings})
            size = profile(base, root=root).images_per_batch
            pipeline = ready_pipeline(base, chosen, root=root)
            _sample_class(pipeline, chosen, settings, seeds, place, size, progress)
    return place


def _sample_class(
    pipeline: StableDiffusionPipeline,
    sampling: Sampling,
    settings: dict[str, Any],
    seeds: list[int],
    place: Path,
    size: int,
    progress: bool,
) -> None:
    prompt = settings["class_prompt"]
    warn_of_cut_prompts(pipeline, [prompt])
    for batch in batches(seeds, size, "class images", progress):
        for seed, image in zip(batch, sample(pipeline, [prompt] * len(batch), batch, sampling), strict=True):
            write_image(place / f"class_{seed:05d}.png", image, settings | {"seed": seed})


def image_files(folder: str | Path) -> list[Path]:
    """Lists the images in a folder.

    Args:
        folder: Where; hidden files and other kinds are passed over.

    Returns:
        The images by name.
    """
    files = (file for file in Path(folder).glob("[!.]*") if file.suffix.lower() in IMAGE_ENDINGS)
    return sorted(files)


def batches(items: Sequence[Any], size: int, description: str, progress: bool) -> Iterator[list[Any]]:
    """Splits a list into batches under a progress bar that counts items.

    Args:
        items: The list.
        size: Of a batch.
        description: The bar's label.
        progress: Show the bar.

    Yields:
        The batches in order.
    """
    from tqdm.auto import tqdm

    with tqdm(total=len(items), desc=description, unit="image", disable=not progress) as bar:
        for start in range(0, len(items), size):
            yield list(items[start : start + size])
            bar.update(len(items[start : start + size]))


def _missing_seeds(folder: Path, num: int, seed: int) -> list[int]:
    """Which images to add so that there are `num`, counting images that came from elsewhere."""
    here = {file.name for file in image_files(folder)}
    ours = {f"class_{seed + i:05d}.png": seed + i for i in range(num)}
    others = len(here - set(ours))
    return [one for name, one in ours.items() if name not in here][
        : max(0, num - len(here & set(ours)) - others)
    ]


def _key(settings: dict[str, Any]) -> str:
    words = re.sub(r"\W+", "_", settings["class_prompt"]).strip("_")[:40]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{words}_{digest}"
