"""Images as the UNet reads them: the VAE's distributions, encoded once and kept, or encoded in each step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageOps
from safetensors.torch import load_file, save

from sdlab.files import file_sha256, write_bytes
from sdlab.photos.decode import DECODER_VERSION, load_image

CACHE = Path("cache_dir/latents")
_IMAGES_AT_ONCE = 8


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

    def sample(self, indices: list[int], random: torch.Generator) -> torch.Tensor:
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

    def sample(self, indices: list[int], random: torch.Generator) -> torch.Tensor:
        """Draws latents of some images, see `Latents.sample`."""
        latents = _encode(self.vae, [self.files[index] for index in indices], self.resolution)
        return latents.sample(list(range(len(indices))), random)


Source = Latents | Encoded


def encode_images(
    vae: AutoencoderKL, files: Sequence[Path], resolution: int, device: torch.device
) -> Latents:
    """Encodes images once, for this training and all later ones with the same VAE and the same images.

    Raises:
        ValueError: An image can't be read.
    """
    place = CACHE / f"{_key(vae, files, resolution)}.safetensors"
    if place.is_file():
        with suppress(Exception):  # a file that can't be read is made anew
            kept = load_file(place, device=str(device))
            return Latents(kept["mean"], kept["std"])
    vae.to(device)
    groups = [files[start : start + _IMAGES_AT_ONCE] for start in range(0, len(files), _IMAGES_AT_ONCE)]
    parts = [_encode(vae, group, resolution) for group in groups]
    vae.to("cpu")  # not needed again before the export
    # contiguous as when read from the cache: SD 1.5's VAE may give channels_last, which safetensors refuses
    latents = Latents(
        torch.cat([part.mean for part in parts]).contiguous(),
        torch.cat([part.std for part in parts]).contiguous(),
    )
    with suppress(OSError):  # without room for the cache, training goes on without it
        write_bytes(place, save({"mean": latents.mean.cpu(), "std": latents.std.cpu()}))
    return latents


@torch.no_grad()
def _encode(vae: AutoencoderKL, files: Sequence[Path], resolution: int) -> Latents:
    pixels = torch.stack([_pixels(file, resolution) for file in files])
    latents = vae.encode(pixels.to(vae.device)).latent_dist  # pixels: (images, 3, height, width) in -1 … 1
    return Latents(latents.mean * vae.config.scaling_factor, latents.std * vae.config.scaling_factor)


def _pixels(file: Path, resolution: int) -> torch.Tensor:
    square = ImageOps.fit(load_image(file), (resolution, resolution), Image.Resampling.LANCZOS)
    data = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return data.view(resolution, resolution, 3).permute(2, 0, 1).float() / 127.5 - 1


def _key(vae: AutoencoderKL, files: Sequence[Path], resolution: int) -> str:
    """Of everything that decides the latents, in the images' order."""
    total = hashlib.sha256(f"{DECODER_VERSION}/{resolution}/{vae.config.scaling_factor}".encode())
    for weight in vae.state_dict().values():
        total.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    for file in files:
        total.update(file_sha256(file).encode())
    return total.hexdigest()[:16]


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves a tensor from the CPU without making the CPU wait for the GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
