"""Stage `control`: three small ControlNets learn to steer the finished UNet by canny, depth and pose maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from recipes.mini import world
from sdlab.control.maps import Kind

from .autoencoder import LATENT_CHANNELS
from .control_maps import Maps
from .diffusion import CHANNELS, denoising_loss, new_noise_schedule
from .machine import Machine
from .progress import Progress
from .text import WIDTH, tokens

CONDITIONING_CHANNELS = (8, 16, 32, 64)
EMPTY_CAPTIONS = 0.4
"""Share of the captions that are left out, so that the map says what the words don't."""

EMBEDDING_GAIN = 2.1
"""Makes up for SiLU, which halves small values: what a map puts in is about as large as the latents are."""


def new_controlnet(unet: UNet2DConditionModel | None = None) -> ControlNetModel:
    """An untrained ControlNet of 1.2 million parameters: the UNet's residual blocks without its attention.

    Args:
        unet: where its weights begin, as far as their shapes are the same; None begins at random.

    Source: Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models", section 3.
    """
    controlnet = ControlNetModel(
        in_channels=LATENT_CHANNELS,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D",) * len(CHANNELS),
        mid_block_type="UNetMidBlock2D",
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        conditioning_embedding_out_channels=CONDITIONING_CHANNELS,
    )
    if unet is not None:
        state, own = unet.state_dict(), controlnet.state_dict()
        same = {
            name: value for name, value in state.items() if name in own and value.shape == own[name].shape
        }
        controlnet.load_state_dict(same, strict=False)
    # Usually the embedding of the map begins near zero, which hides the map from the first thousand steps.
    embedding = controlnet.controlnet_cond_embedding
    for convolution in (embedding.conv_in, *embedding.blocks, embedding.conv_out):
        fan_in = convolution.weight[0].numel()
        torch.nn.init.normal_(convolution.weight, std=EMBEDDING_GAIN * fan_in**-0.5)
    return controlnet


def train_control(
    folder: Path,
    kind: Kind,
    maps: Maps,
    latents: np.ndarray,
    held_out_maps: Maps,
    held_out: np.ndarray,
    unet: UNet2DConditionModel,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    begin_with: Path | None = None,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
) -> ControlNetModel:
    """Train the ControlNet of one kind of map; UNet and text encoder stay as they are.

    Args:
        folder: working folder of this kind.
        kind: of the maps.
        maps: the control maps of the training pictures, in the order of `latents`.
        latents: scaled latents of the pictures with seeds 0, 1, …: (n, 8, 16, 16).
        held_out_maps: the control maps of the held-out pictures.
        held_out: their scaled latents.
        unet: the finished UNet.
        tokenizer: from `train_tokenizer`.
        text_encoder: from `train_text`.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles weights, order, captions and noise.
        begin_with: an exported ControlNet to begin with; None begins with the UNet's blocks.
        batch_size: pictures in a step of one process.
        learning_rate: peak.

    Returns:
        The ControlNet with the averaged weights.
    """
    torch.manual_seed(seed)
    layout = {"device": machine.device, "memory_format": torch.channels_last}
    known = begin_with and ControlNetModel.from_pretrained(begin_with)
    controlnet = (known or new_controlnet(unet)).train().to(**layout)
    # Frozen weights in the precision that is computed in: no casting, a sixth less time for a step.
    unet.to(dtype=torch.bfloat16 if machine.bf16 else torch.float32, **layout).eval().requires_grad_(False)
    if machine.device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())
    text_encoder.to(machine.device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        controlnet.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    noise_schedule = new_noise_schedule()

    def loss(latents: np.ndarray, captions: list[str], control: np.ndarray) -> Tensor:
        with torch.no_grad(), machine.autocast():
            hidden = text_encoder(tokens(tokenizer, captions).to(machine.device)).last_hidden_state
        batch = torch.from_numpy(latents).float().to(**layout)
        steered = _steered(unet, controlnet, _as_condition(control).to(**layout))
        return denoising_loss(steered, noise_schedule, batch, hidden, machine)

    def evaluate() -> dict[str, float]:
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        captions = [world.caption(held_out_maps.picture(i), i) for i in held_out_maps.usable]
        control = np.stack([held_out_maps.draw(kind, i, rng) for i in held_out_maps.usable])
        return {"held_out_loss": float(loss(held_out[held_out_maps.usable], captions, control))}

    progress = Progress(folder, controlnet, optimizer, machine, minutes=minutes)
    for step in progress.steps(evaluate):
        rng = np.random.default_rng([seed, step, machine.rank])
        torch.manual_seed(int(rng.integers(2**31)))
        chosen = rng.choice(maps.usable, batch_size)
        captions = [_caption(maps.picture(i), rng) for i in chosen]
        progress.learn(loss(latents[chosen], captions, np.stack([maps.draw(kind, i, rng) for i in chosen])))
    progress.use_average()
    return controlnet.eval()


def _steered(
    unet: UNet2DConditionModel, controlnet: ControlNetModel, control: Tensor
) -> Callable[..., tuple[Tensor]]:
    """The UNet with the ControlNet's residuals added, called as the UNet alone is."""

    def predict(
        latents: Tensor, timesteps: Tensor, hidden: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        down, middle = controlnet(latents, timesteps, hidden, control, return_dict=False)
        with torch.autocast(latents.device.type, enabled=False):
            return unet(
                latents.to(unet.dtype),
                timesteps,
                hidden.to(unet.dtype),
                down_block_additional_residuals=[one.to(unet.dtype) for one in down],
                mid_block_additional_residual=middle.to(unet.dtype),
                return_dict=return_dict,
            )

    return predict


def _as_condition(maps: np.ndarray) -> Tensor:
    """uint8 (n, 128, 128, 3) to (n, 3, 128, 128) from 0 to 1, as the pipeline hands maps over."""
    return torch.from_numpy(maps).permute(0, 3, 1, 2).float() / 255


def _caption(picture: world.Picture, rng: np.random.Generator) -> str:
    caption = world.caption(picture, int(rng.integers(2**31)))
    return "" if rng.random() < EMPTY_CAPTIONS else caption
