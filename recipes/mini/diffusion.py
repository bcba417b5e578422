"""Stage `unet`: the UNet learns to remove noise from latents, given captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import compute_snr
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from recipes.mini import world

from .autoencoder import LATENT_CHANNELS
from .machine import Machine
from .muon import Muon
from .progress import Progress
from .text import WIDTH, tokens

CHANNELS = (64, 96, 128)
CAPTION_DROPOUT = 0.1
SNR_GAMMA = 5.0
FACE_WEIGHT = 4.0
"""How much more than the rest of a picture its face weighs: a twentieth of a whole figure's picture."""
WHOLE_FIGURES = 2.0
"""How many times more often than their share whole figures are trained on: they are the hardest."""


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet for 16×16 latents; attention at 8×8 and 4×4, where it is cheap on a CPU."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_noise_schedule() -> DDPMScheduler:
    """SD 1.5's noise schedule."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
    )


def denoising_loss(
    unet: UNet2DConditionModel,
    noise_schedule: DDPMScheduler,
    latents: Tensor,
    hidden: Tensor,
    machine: Machine,
    faces: Tensor | None = None,
) -> Tensor:
    """The epsilon loss, weighted over noise levels; the timesteps of a batch are spread evenly.

    Little noise weighs as in Min-SNR; much noise (SNR below 1), where words settle what the picture becomes,
    weighs SNR^-1/2 times more than there: a wrong colour costs little epsilon when nearly all is noise.

    Args:
        unet: what is trained.
        noise_schedule: adds the noise.
        latents: standardised, (n, 8, 16, 16).
        hidden: the text encoder's last hidden states, (n, 77, width).
        machine: where it runs.
        faces: x, y and radius of each picture's face in latent cells, (n, 3), to weigh faces more; None
            to weigh all cells alike.

    Source: Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", equation 8.
    """
    count = len(latents)
    steps = noise_schedule.config.num_train_timesteps
    spread = (torch.randperm(count) + torch.rand(count)) / count
    timesteps = (spread * steps).long().clamp(max=steps - 1).to(latents.device)
    noise = torch.randn_like(latents)
    noisy = noise_schedule.add_noise(latents, noise, timesteps)
    with machine.autocast():
        predicted = unet(noisy, timesteps, hidden, return_dict=False)[0]
    snr = compute_snr(noise_schedule, timesteps)
    weights = snr.clamp(max=SNR_GAMMA) / snr * snr.clamp(max=1) ** -0.5
    error = (predicted.float() - noise).square()
    if faces is not None:
        error = error * _face_weights(faces, latents.shape[-1])
    return (weights * error.mean(dim=(1, 2, 3))).mean()


def _face_weights(faces: Tensor, side: int) -> Tensor:
    """Each cell's weight, (n, 1, side, side), of mean 1 in each picture."""
    grid = torch.arange(side, device=faces.device) + 0.5
    x, y, radius = faces[:, :, None].unbind(1)
    across, down = ((-((grid - at) ** 2) / (2 * radius**2)).exp() for at in (x, y))
    weights = 1 + FACE_WEIGHT * down[:, None, :, None] * across[:, None, None, :]
    return weights / weights.mean(dim=(2, 3), keepdim=True)


def train_unet(
    folder: Path,
    latents: np.ndarray,
    faces: np.ndarray,
    held_out: np.ndarray,
    held_out_seed: int,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    begin_with: Path | None = None,
    cool_down: Path | None = None,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
) -> UNet2DConditionModel:
    """Train the UNet on cached latents and freshly worded captions, at a constant rate or to cool it down.

    Args:
        folder: working folder of the stage.
        latents: scaled latents of the pictures with seeds 0, 1, …: (n, 8, 16, 16).
        faces: where their faces are, in latent cells: x, y and radius, (n, 3).
        held_out: scaled latents of the pictures from seed `held_out_seed` on.
        held_out_seed: see above.
        tokenizer: from `train_tokenizer`.
        text_encoder: from `train_text`; stays as it is.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles weights, order, captions and noise.
        begin_with: an exported UNet to begin with; None for a new one.
        cool_down: the checkpoint of a training at a constant rate; from it on the rate falls to nothing. If
            there is none, from `begin_with` on.
        batch_size: pictures in a step of one process.
        learning_rate: peak.

    Returns:
        The UNet with the averaged weights.
    """
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(begin_with) if begin_with else new_unet()
    unet.train().to(machine.device)
    if machine.device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # a sixth faster to train than the fused attention
    text_encoder.to(machine.device).eval().requires_grad_(False)
    optimizer = Muon(unet.parameters(), learning_rate)
    noise_schedule = new_noise_schedule()
    drawn = [world.sample(s) for s in range(len(latents))]
    chances = np.array([WHOLE_FIGURES if one.framing == "full height" else 1.0 for one in drawn])
    chances /= chances.sum()
    check = [world.caption(world.sample(held_out_seed + i), i) for i in range(len(held_out))]

    def loss(latents: np.ndarray, captions: list[str], faces: Tensor | None = None) -> Tensor:
        with torch.no_grad(), machine.autocast():
            hidden = text_encoder(tokens(tokenizer, captions).to(machine.device)).last_hidden_state
        batch = torch.from_numpy(latents).float().to(machine.device)
        return denoising_loss(unet, noise_schedule, batch, hidden, machine, faces)

    def evaluate() -> dict[str, float]:
        torch.manual_seed(seed)
        return {"held_out_loss": float(loss(held_out, check))}

    progress = Progress(
        folder,
        unet,
        optimizer,
        machine,
        minutes=minutes,
        ema_decay=0.995 if cool_down else 0.999,
        decay_from=0.0 if cool_down else 1.0,
        begin_from=cool_down if cool_down and cool_down.exists() else None,
    )
    for step in progress.steps(evaluate):
        rng = np.random.default_rng([seed, step, machine.rank])
        torch.manual_seed(int(rng.integers(2**31)))
        chosen = rng.choice(len(latents), size=batch_size, p=chances)
        captions = [_caption(drawn[i], rng) for i in chosen]
        progress.learn(loss(latents[chosen], captions, torch.from_numpy(faces[chosen]).to(machine.device)))
    progress.use_average()
    return unet.eval()


def _caption(picture: world.Picture, rng: np.random.Generator) -> str:
    """`caption_or_nothing`, but the more frequent whole figures are called so.

    So a caption that says nothing of the framing is as rarely a whole figure as it would be by their share.
    """
    caption = caption_or_nothing(picture, rng)
    named = any(words in caption for words in ("full height", "full body"))
    if picture.framing != "full height" or named or rng.random() < 1 / WHOLE_FIGURES:
        return caption
    return f"{caption}, full height" if caption else "full height"


def caption_or_nothing(picture: world.Picture, rng: np.random.Generator) -> str:
    """A fresh caption, or now and then none, which classifier-free guidance needs."""
    caption = world.caption(picture, int(rng.integers(2**31)))
    return "" if rng.random() < CAPTION_DROPOUT else caption
