"""Stages `vae`, `latents` and `decoder`: the autoencoder of 128-pixel pictures, and what it makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from .machine import Machine
from .pictures import SIZE, write_array
from .progress import Progress

LATENT_CHANNELS = 8
"""Twice SD 1.5's: at f = 8 and these few parameters, 4 channels lose the eyes of whole figures."""

CHANNELS = (16, 32, 64, 128)
PIXELS_OF_A_CELL = 8
FACE_WEIGHT = 3.0
KL_WEIGHT = 1e-3
EQUIVARIANCE_SHARE = 0.15
"""Of the steps in which shrunk latents are decoded."""
ENCODED_TOGETHER = 1000
"""Pictures in a part of the latents' file."""


def new_vae() -> AutoencoderKL:
    """An untrained AutoencoderKL, f = 8; no attention, so that what crops teach holds for whole pictures."""
    return AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=["DownEncoderBlock2D"] * len(CHANNELS),
        up_block_types=["UpDecoderBlock2D"] * len(CHANNELS),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=128,
        mid_block_add_attention=False,
    )


def train_vae(
    folder: Path,
    pictures: np.ndarray,
    faces: np.ndarray,
    held_out: np.ndarray,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    begin_with: Path | None = None,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
) -> AutoencoderKL:
    """Train the autoencoder on crops, at the end on whole pictures.

    Args:
        folder: working folder of the stage.
        pictures: training pictures, uint8 (n, 128, 128, 3).
        faces: where their faces are, from `load_faces`.
        held_out: pictures to measure PSNR on while training.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles weights, crops and noise.
        begin_with: an exported autoencoder to begin with; None for a new one.
        batch_size: crops of 64 pixels in a step of one process (a quarter as many whole pictures).
        learning_rate: peak.

    Returns:
        The autoencoder with the averaged weights.
    """
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(begin_with, torch_dtype=torch.float32) if begin_with else new_vae()
    vae.train().to(machine.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        vae.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=True
    )
    progress = Progress(folder, vae, optimizer, machine, minutes=minutes, ema_decay=0.998)
    for step in progress.steps(lambda: {"psnr": psnr(vae, held_out[:96], machine)}):
        rng = np.random.default_rng([seed, step, machine.rank])
        torch.manual_seed(int(rng.integers(2**31)))
        size, count = (64, batch_size) if progress.share < 0.8 else (128, max(1, batch_size // 4))
        batch, weights = crops(pictures, faces, rng, count, size)
        weight = torch.from_numpy(weights).to(machine.device)
        scale = float(rng.choice((0.5, 0.75))) if rng.random() < EQUIVARIANCE_SHARE else 1.0
        progress.learn(autoencoder_loss(vae, as_tensor(batch, machine), weight, machine, scale))
    progress.use_average()
    return vae.eval()


def train_decoder(
    folder: Path,
    vae: AutoencoderKL,
    pictures: np.ndarray,
    faces: np.ndarray,
    held_out: np.ndarray,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    batch_size: int = 4,
    learning_rate: float = 1e-3,
) -> AutoencoderKL:
    """Let the decoder learn on while the encoder, whose latents the UNet is being trained on, stays as it is.

    Args:
        folder: working folder of the stage.
        vae: trained and standardised; its decoder is trained in place.
        pictures: training pictures, uint8 (n, 128, 128, 3).
        faces: where their faces are, from `load_faces`.
        held_out: pictures to measure PSNR on while training.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles pictures and noise.
        batch_size: whole pictures in a step of one process.
        learning_rate: peak.

    Returns:
        The autoencoder with the averaged decoder.
    """
    decoder = decoder_of(vae)
    optimizer = torch.optim.AdamW(
        decoder.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=True
    )
    progress = Progress(folder, decoder, optimizer, machine, minutes=minutes, ema_decay=0.998)
    for step in progress.steps(lambda: {"psnr": psnr(vae, held_out[:96], machine)}):
        rng = np.random.default_rng([seed, 1, step, machine.rank])
        torch.manual_seed(int(rng.integers(2**31)))
        cropped, weights = crops(pictures, faces, rng, batch_size, SIZE)
        batch, weight = as_tensor(cropped, machine), torch.from_numpy(weights).to(machine.device)
        with torch.no_grad(), machine.autocast():
            latents = vae.encode(batch).latent_dist.sample()
        with machine.autocast():
            decoded = vae.decode(latents).sample
        progress.learn(reconstruction_loss(decoded, batch, weight))
    progress.use_average()
    return vae.eval()


def decoder_of(vae: AutoencoderKL) -> nn.ModuleDict:
    """The half of the autoencoder that can learn on without changing the latents."""
    return nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder})


def crops(
    pictures: np.ndarray, faces: np.ndarray, rng: np.random.Generator, count: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random crops, half of them around the face, a quarter in colours that no picture of the world has.

    Args:
        pictures: uint8 (n, side, side, 3).
        faces: x, y and radius of each picture's face in pixels, (n, 3).
        rng: settles the choice.
        count: how many crops.
        size: their side in pixels.

    Returns:
        The crops, uint8 (count, size, size, 3), and the weight of each pixel, float32 (count, 1, size, size):
        up to four times as much on the face, a fiftieth of a whole figure's picture.
    """
    batch = np.empty((count, size, size, 3), np.uint8)
    weights = np.empty((count, 1, size, size), np.float32)
    room = pictures.shape[1] - size
    grid = np.arange(size, dtype=np.float32)
    for crop, weight in zip(batch, weights, strict=True):
        index = rng.integers(len(pictures))
        x, y, radius = faces[index]
        left, top = rng.integers(0, room + 1, 2)
        if rng.random() < 0.5:
            around = np.array([x, y]) - size / 2 + rng.uniform(-12, 12, 2)
            left, top = (int(v) for v in around.round().clip(0, room))
        crop[:] = pictures[index, top : top + size, left : left + size]
        distance = (grid[None] + left - x) ** 2 + (grid[:, None] + top - y) ** 2
        weight[:] = 1 + FACE_WEIGHT * np.exp(-distance / (2 * radius**2))
        if rng.random() < 0.25:
            inverted = rng.integers(0, 2, 3).astype(bool)
            crop[:] = np.where(inverted, 255 - crop, crop)[..., rng.permutation(3)]
    return batch, weights


def as_tensor(images: np.ndarray, machine: Machine) -> Tensor:
    """uint8 (n, h, w, 3) to float (n, 3, h, w) from -1 to 1, channels last in memory."""
    batch = torch.from_numpy(images).to(machine.device).permute(0, 3, 1, 2)
    return batch.float() / 127.5 - 1


def autoencoder_loss(
    vae: AutoencoderKL, images: Tensor, weights: Tensor, machine: Machine, scale: float = 1.0
) -> Tensor:
    """The reconstruction loss, and a little KL that keeps the latents near a normal distribution.

    With a scale below 1 shrunk latents must decode to the shrunk image: latents become smooth, as images are,
    which makes them easier to learn for the UNet.

    Source: Kouzelis et al. 2025, "EQ-VAE", arXiv:2502.09509, equation 5, with scales alone.
    """
    with machine.autocast():
        posterior = vae.encode(images).latent_dist
        latents = posterior.sample()
        if scale < 1:
            latents = F.interpolate(latents.float(), scale_factor=scale, mode="area")
            size = [8 * side for side in latents.shape[2:]]
            images, weights = (F.interpolate(values, size=size, mode="area") for values in (images, weights))
        decoded = vae.decode(latents).sample
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return reconstruction_loss(decoded, images, weights) + KL_WEIGHT * kl


def reconstruction_loss(decoded: Tensor, images: Tensor, weights: Tensor) -> Tensor:
    """L1 + 3 MSE + half the L1 of the edges: PSNR asks for the second, readable eyes for the third."""
    weights = weights / weights.mean()
    error = decoded.float() - images
    horizontal = (weights[..., 1:] * error.diff(dim=-1).abs()).mean()
    vertical = (weights[..., 1:, :] * error.diff(dim=-2).abs()).mean()
    return (weights * (error.abs() + 3 * error.square())).mean() + 0.5 * (horizontal + vertical)


@torch.no_grad()
def encode_pictures(path: Path, vae: AutoencoderKL, pictures: np.ndarray, machine: Machine) -> np.ndarray:
    """The latents' means of all pictures, once, as a float16 file of shape (n, 8, 16, 16); unscaled.

    Args:
        path: the `.npy` file; parts that were encoded before stay beside it and are used.
        vae: the autoencoder.
        pictures: uint8 (n, 128, 128, 3).
        machine: where it runs; several processes share the work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [path.with_suffix(f".{start}.npy") for start in range(0, len(pictures), ENCODED_TOGETHER)]
    for index, part in enumerate(parts):
        if path.exists() or part.exists() or index % machine.processes != machine.rank:
            continue
        means = []
        for start in range(index * ENCODED_TOGETHER, (index + 1) * ENCODED_TOGETHER, 20):
            if start < len(pictures):
                stop = min(start + 20, (index + 1) * ENCODED_TOGETHER)
                with machine.autocast():
                    mean = vae.encode(as_tensor(pictures[start:stop], machine)).latent_dist.mean
                means.append(mean.to("cpu", torch.float16).numpy())
        write_array(part, np.concatenate(means))
        print(f"latents: {index + 1}/{len(parts)}", flush=True)
    machine.wait()
    if machine.leads and not path.exists():
        write_array(path, np.concatenate([np.load(part) for part in parts]))
        for part in parts:
            part.unlink()
    machine.wait()
    return np.load(path)


@torch.no_grad()
def standardise(vae: AutoencoderKL, mean: np.ndarray, std: np.ndarray) -> None:
    """Fold a shift and scale of each latent channel into the 1×1 convolutions around the latents.

    SD has one scaling factor for all channels; channels of different spread would get different shares of the
    noise. Afterwards each channel has mean 0 and standard deviation 1, and decoded images are unchanged.

    Args:
        vae: changed in place.
        mean: of each latent channel over the training pictures, (8,).
        std: likewise.
    """
    shift, scale = torch.from_numpy(mean).float(), torch.from_numpy(std).float()
    before, after = vae.quant_conv, vae.post_quant_conv
    after.bias += after.weight[:, :, 0, 0] @ shift.to(after.weight)
    after.weight *= scale.to(after.weight)[None, :, None, None]
    channels = len(mean)
    before.bias[:channels] -= shift.to(before.bias)
    before.bias[:channels] /= scale.to(before.bias)
    before.weight[:channels] /= scale.to(before.weight)[:, None, None, None]
    before.bias[channels:] -= 2 * scale.log().to(before.bias)


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: np.ndarray, machine: Machine, batch_size: int = 16) -> float:
    """Mean peak signal-to-noise ratio in dB of pictures through the autoencoder's mean, at 8 bits."""
    ratios = []
    for start in range(0, len(pictures), batch_size):
        images = as_tensor(pictures[start : start + batch_size], machine)
        decoded = reconstruct(vae, images, machine)
        error = ((decoded - images) / 2).square().mean(dim=(1, 2, 3))
        ratios += (-10 * error.log10()).tolist()
    return float(np.mean(ratios))


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor, machine: Machine) -> Tensor:
    """Encode to the mean and decode, clamped to -1..1."""
    with machine.autocast():
        decoded = vae.decode(vae.encode(images).latent_dist.mean).sample
    return F.hardtanh(decoded.float())
