"""Memory on paper: a step is taken on tensors without contents, and the bytes that live at once are counted."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextConfig, CLIPTextModel

from sdlab.config import Hyperparameters, LoRA
from sdlab.formats.checkpoints import CONFIGS
from sdlab.training import lora

# Bytes of an optimizer's states per trained weight; 8-bit states have a scale for each block of 256.
_STATES = {"adamw": 8, "adamw8bit": 2 + 8 / 256, "prodigy": 16, "adafactor": 0.1}
# The hyperparameters that decide how much memory a step takes, but for the optimizer.
_COUNTED = (
    *("resolution", "train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"),
    *("with_prior_preservation", "mixed_precision", "train_text_encoder"),
    *("rank", "lora_targets", "use_dora", "lora_dropout"),
)
_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Memory:
    """What a training takes, in bytes; `step` and what follows are peaks."""

    weights: int  # of UNet and text encoder, and a LoRA's own
    gradients: int
    states: int  # the optimizer's, and the weights' running mean
    activations: int  # that the forward pass keeps, autocast's half-precision copies of weights among them
    step: int
    encoding: int  # one image, with the autoencoder's weights, before the step's are there
    decoding: int  # one validation image, beside weights and states

    @property
    def peak(self) -> int:
        """The most that lives at once, but for what CUDA and its libraries take, 0.5 to 1 GB."""
        return max(self.step, self.encoding, self.decoding)


def configurations(pipeline: StableDiffusionPipeline | None = None) -> dict[str, dict[str, Any]]:
    """The configurations of a pipeline's parts; those of Stable Diffusion 1.5 without one."""
    names = ("unet", "text_encoder", "vae")
    if pipeline is None:
        return {name: json.loads((CONFIGS / name / "config.json").read_text()) for name in names}
    return {
        name: config.to_dict()
        if hasattr(config := getattr(pipeline, name).config, "to_dict")
        else dict(config)
        for name in names
    }


def reckon(configs: Mapping[str, Mapping[str, Any]], chosen: Hyperparameters) -> Memory:
    """Reckons what a training takes; no weights are loaded, and equal questions are answered once.

    Args:
        configs: From `configurations`.
        chosen: Batch, resolution, precision … Of a GPU's mixed precision its own rules are taken.
    """
    values = {name: getattr(chosen, name) for name in _COUNTED if hasattr(chosen, name)}
    counted = _count(
        json.dumps(configs, sort_keys=True, default=str), type(chosen)(class_prompt="-", **values)
    )
    weights, trained, activations, step, encoder, decoder = counted
    states = int(trained * (_STATES[chosen.optimizer_name] + (4 if chosen.use_ema else 0)))
    return Memory(
        weights=weights,
        gradients=4 * trained,
        states=states,
        activations=activations,
        step=weights + states + max(step, 4 * trained),
        encoding=encoder,
        decoding=weights + states + decoder,
    )


@cache
def _count(configs: str, chosen: Hyperparameters) -> tuple[int, int, int, int, int, int]:
    """Bytes of weights; trained weights; bytes that are kept, of the step, of the autoencoder's two halves."""
    read = json.loads(configs)
    with torch.device("meta"):
        parts = SimpleNamespace(
            unet=UNet2DConditionModel.from_config(read["unet"]),
            text_encoder=CLIPTextModel(CLIPTextConfig(**read["text_encoder"])),
            vae=AutoencoderKL.from_config(read["vae"]),
        )
        if isinstance(chosen, LoRA):
            lora.freeze(parts, _HALF.get(chosen.mixed_precision, torch.float32))
            lora.prepare(parts, chosen, "default", ["default"])
        else:
            parts.text_encoder.requires_grad_(chosen.train_text_encoder)
        weights = [*parts.unet.parameters(), *parts.text_encoder.parameters()]
        step = _step_bytes(parts, chosen)
        return (
            sum(weight.nbytes for weight in weights),
            sum(weight.numel() for weight in weights if weight.requires_grad),
            *step,
            *_autoencoder_bytes(parts.vae, chosen.resolution),
        )


def _step_bytes(parts: Any, chosen: Hyperparameters) -> tuple[int, int]:
    """What a forward pass keeps, and the most that lives in a step, weights and states apart."""
    sources = 1 + chosen.with_prior_preservation
    images, side = sources * chosen.train_batch_size, chosen.resolution // _scale(parts.vae)
    autocast = partial(_Autocast, _HALF.get(chosen.mixed_precision))
    if chosen.gradient_checkpointing:  # what is computed again is so under the rules of the first time
        again = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), autocast())}
        parts.unet.enable_gradient_checkpointing(partial(checkpoint, **again))
        parts.text_encoder.gradient_checkpointing_enable(again)
    parts.unet.train()
    parts.text_encoder.train()
    with LiveBytes() as live:
        latents = torch.empty(images, parts.unet.config.in_channels, side, side)
        embeddings = torch.empty(images, 77, parts.unet.config.cross_attention_dim)
        for _ in range(min(chosen.gradient_accumulation_steps, 2)):  # the second meets the first's gradients
            with autocast():
                if chosen.train_text_encoder:
                    encoded = parts.text_encoder(torch.zeros(sources, 77, dtype=torch.long))[0]
                    embeddings = encoded.repeat_interleave(chosen.train_batch_size, 0)
                prediction = parts.unet(latents, torch.zeros(images), embeddings, return_dict=False)[0]
                kept = live.now
            functional.mse_loss(prediction.float(), latents).backward()
    return kept, live.peak


def _autoencoder_bytes(vae: AutoencoderKL, resolution: int) -> tuple[int, int]:
    """Of encoding and decoding one image in float32, the autoencoder's weights among them."""
    weights, side = sum(weight.nbytes for weight in vae.parameters()), resolution // _scale(vae)
    peaks = []
    for work, shape in (
        (vae.encode, (1, vae.config.in_channels, resolution, resolution)),
        (vae.decode, (1, vae.config.latent_channels, side, side)),
    ):
        with LiveBytes() as live, _Autocast(None), torch.no_grad():
            work(torch.empty(shape))
        peaks.append(weights + live.peak)
    return peaks[0], peaks[1]


def _scale(vae: AutoencoderKL) -> int:
    return 2 ** (len(vae.config.block_out_channels) - 1)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is on: those that live now, and at their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._living: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {one.untyped_storage()._cdata for one in _tensors((args, kwargs))}
        result = operation(*args, **(kwargs or {}))
        for storage in (one.untyped_storage() for one in _tensors(result)):
            if (place := storage._cdata) not in self._living | known:
                self._living.add(place)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._drop, place, storage.nbytes())
        return result

    def _drop(self, place: int, size: int) -> None:
        self._living.discard(place)
        self.now -= size


class _Autocast(TorchFunctionMode):
    """CUDA's rules of mixed precision and its fused attention, which the meta device hasn't.

    Source: pytorch.org/docs/stable/amp.html, "CUDA Ops that can autocast".
    """

    _to_half = frozenset(
        {functional.linear, functional.conv2d, functional.scaled_dot_product_attention, torch.baddbmm}
        | {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__}
    )
    _to_full = frozenset({functional.group_norm, functional.layer_norm})

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self._dtype = dtype
        self._copies: dict[int, torch.Tensor] = {}  # of weights, for as long as it is on

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._dtype and function in self._to_half | self._to_full:
            dtype = self._dtype if function in self._to_half else torch.float32
            args, kwargs = tree_map(lambda one: self._cast(one, dtype), (args, kwargs))
        if function is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        return function(*args, **kwargs)

    def _cast(self, one: Any, dtype: torch.dtype) -> Any:
        if not isinstance(one, torch.Tensor) or not one.is_floating_point() or one.dtype == dtype:
            return one
        if not isinstance(one, torch.nn.Parameter):
            return one.to(dtype)
        if id(one) not in self._copies:
            self._copies[id(one)] = one.to(dtype)
        return self._copies[id(one)]


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> torch.Tensor:
    """Attention that keeps no map of all pairs of tokens, as it is computed on every device."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def _tensors(values: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, torch.Tensor)]
