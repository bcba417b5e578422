"""What a training step reads: latents, prompt embeddings, and randomness that the step alone decides.

Order, noise, timesteps and the latents' sample of a step come from generators that are seeded with
(seed, step, stream). There is no state to store: a run that is killed and continued draws what it would
have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image, ImageOps
from safetensors.torch import load_file, save

from sdlab.files import file_sha256, write_bytes
from sdlab.photos.decode import DECODER_VERSION, load_image
from sdlab.training import processes

CACHE = Path("cache_dir/latents")


def generator(seed: int, step: int, stream: str) -> torch.Generator:
    """Gives the random numbers of one step for one purpose, on the CPU so that all devices draw the same."""
    digest = hashlib.sha256(f"{seed}/{step}/{stream}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:4], "little"))


def order(count: int, batch_size: int, step: int, seed: int, stream: str) -> list[int]:
    """Chooses the images of a step: each epoch has each image once, in an order of its own."""
    chosen = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, count)
        shuffled = torch.randperm(count, generator=generator(seed, epoch, f"order of {stream}"))
        chosen.append(int(shuffled[place]))
    return chosen


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a tensor from the CPU without making the CPU wait for the GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class Latents:
    """The VAE's distribution for each image, kept as mean and std and sampled anew in each step.

    Args:
        mean: (images, channels, height / 8, width / 8), scaled as the UNet reads it.
        std: The same shape.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def sample(self, indices: Sequence[int], random: torch.Generator) -> torch.Tensor:
        """Draws latents of some images, (len(indices), channels, height / 8, width / 8)."""
        mean = self.mean[indices]
        return mean + self.std[indices] * on_device(torch.randn(mean.shape, generator=random), mean.device)


@dataclass(frozen=True)
class Encoded:
    """Images that are encoded anew whenever they are sampled, as diffusers' scripts do it."""

    vae: AutoencoderKL
    files: Sequence[Path]
    resolution: int

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, indices: Sequence[int], random: torch.Generator) -> torch.Tensor:
        """Draws latents of some images, see `Latents.sample`."""
        latents = _encode(self.vae, [self.files[index] for index in indices], self.resolution)
        return latents.sample(range(len(indices)), random)


Source = Latents | Encoded


def encode_images(
    vae: AutoencoderKL, files: Sequence[Path], resolution: int, device: torch.device
) -> Latents:
    """Encodes images once, for this training and all later ones with the same VAE and the same images.

    Raises:
        ValueError: An image can't be read.
    """
    key = hashlib.sha256(f"{DECODER_VERSION}/{resolution}/{vae.config.scaling_factor}".encode())
    for weight in vae.state_dict().values():
        key.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    for file in files:
        key.update(file_sha256(file).encode())
    place = CACHE / f"{key.hexdigest()[:16]}.safetensors"
    if place.is_file():
        with suppress(Exception):  # a file that can't be read is made anew
            return Latents(**load_file(place, device=str(device)))
    vae.to(device)
    parts = [_encode(vae, [file], resolution) for file in files]  # eight at once would fill an 8 GB GPU
    vae.to("cpu")  # not needed again before the export
    # contiguous as when read from the cache: SD 1.5's VAE may give channels_last, which safetensors refuses
    mean = torch.cat([part.mean for part in parts]).contiguous()
    std = torch.cat([part.std for part in parts]).contiguous()
    with suppress(OSError):  # without room for the cache, training goes on without it
        write_bytes(place, save({"mean": mean.cpu(), "std": std.cpu()}))
    return Latents(mean, std)


@torch.no_grad()
def _encode(vae: AutoencoderKL, files: Sequence[Path], resolution: int) -> Latents:
    pixels = []
    for file in files:
        square = ImageOps.fit(load_image(file), (resolution, resolution), Image.Resampling.LANCZOS)
        data = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
        pixels.append(data.view(resolution, resolution, 3).permute(2, 0, 1).float() / 127.5 - 1)
    latents = vae.encode(torch.stack(pixels).to(vae.device)).latent_dist  # of (images, 3, height, width)
    return Latents(latents.mean * vae.config.scaling_factor, latents.std * vae.config.scaling_factor)


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads; the instance images come first, then as many class images.

    Args:
        latents: (batch, channels, height / 8, width / 8).
        noise: The same shape.
        timesteps: (batch,), 0 to 999.
        images: For each source, which of its images.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    images: Sequence[Sequence[int]]


def draw_batch(
    sources: Sequence[Source],
    batch_size: int,
    step: int,
    seed: int,
    num_timesteps: int,
    *,
    noise_offset: float = 0.0,
) -> Batch:
    """Draws the batch of one step, or with gradient accumulation the batch of that number.

    Args:
        sources: The instance images, and with prior preservation the class images.
        batch_size: Images from each source.
        step: Counted from 0.
        noise_offset: Shifts each channel's noise as a whole by this times a random number.

    Source:
        N. Guttenberg, "Diffusion with offset noise", 2023 (noise_offset).
    """
    named = dict(zip(("instance", "class"), sources, strict=False))
    images = [order(len(source), batch_size, step, seed, name) for name, source in named.items()]
    latents = torch.cat(
        [
            source.sample(chosen, generator(seed, step, f"latents of {name}"))
            for (name, source), chosen in zip(named.items(), images, strict=True)
        ]
    )
    noise = torch.randn(latents.shape, generator=generator(seed, step, "noise"))
    if noise_offset:
        shift = torch.randn(*latents.shape[:2], 1, 1, generator=generator(seed, step, "noise offset"))
        noise = noise + noise_offset * shift
    timesteps = torch.randint(num_timesteps, (len(latents),), generator=generator(seed, step, "timesteps"))
    return Batch(latents, on_device(noise, latents.device), on_device(timesteps, latents.device), images)


def share(batch: Batch, batch_size: int) -> Batch:
    """Gives this process's share of a batch: of each source's images every COUNT-th."""
    if processes.COUNT == 1:
        return batch
    own = range(processes.RANK, batch_size, processes.COUNT)
    rows = [source * batch_size + place for source in range(len(batch.images)) for place in own]
    images = [[chosen[place] for place in own] for chosen in batch.images]
    return Batch(batch.latents[rows], batch.noise[rows], batch.timesteps[rows], images)


class Prompts:
    """The images' prompts as embeddings: computed once where the text encoder is frozen, else in each step.

    Args:
        texts: For each source, the prompt of each of its images; longer ones are cut, as diffusers does.
        trained: Whether the text encoder is trained.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        texts: Sequence[Sequence[str]],
        device: torch.device,
        *,
        trained: bool,
    ) -> None:
        different = list(dict.fromkeys(text for group in texts for text in group))
        self._of_image = [[different.index(text) for text in group] for group in texts]
        self._text_encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
        options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        self._input_ids = tokenizer(different, return_tensors="pt", **options).input_ids.to(device)
        self._cached: torch.Tensor | None = None
        if not trained:
            self.freeze()

    @torch.no_grad()
    def freeze(self) -> None:
        """Encodes all prompts once; the text encoder isn't trained any more."""
        was_training = self._text_encoder.training
        self._text_encoder.eval()  # without a LoRA's dropout
        self._cached = self._text_encoder(self._input_ids)[0]
        self._text_encoder.train(was_training)

    def embeddings(self, batches: Sequence[Batch]) -> torch.Tensor:
        """Gives the embeddings of the images of several trainings' batches, (images, 77, dim).

        Each prompt is encoded once for a training's batch, however many of its images have it.
        """
        prompts = [
            [self._of_image[source][image] for source, images in enumerate(batch.images) for image in images]
            for batch in batches
        ]
        if self._cached is not None:
            return self._cached[[prompt for wanted in prompts for prompt in wanted]]
        different = list(dict.fromkeys(prompt for wanted in prompts for prompt in wanted))
        encoded = self._text_encoder(self._input_ids[different].repeat(len(batches), 1))[0]
        rows = [
            training * len(different) + different.index(prompt)  # each training's own text encoder
            for training, wanted in enumerate(prompts)
            for prompt in wanted
        ]
        return encoded[rows]
