"""Single-file checkpoints, as Civitai offers them: what a file is, and what is wrong with it."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

Shapes = Mapping[str, tuple[int, ...]]
"""Names of weights to their shapes."""

_UNET = "model.diffusion_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"  # (channels, latent channels, 3, 3)
_HEAD = 4096  # bytes that tell a web page from weights
_MEANT = "a Stable Diffusion 1.5 checkpoint is needed (about 2 or 4 GB)"


class NotACheckpoint(ValueError):
    """The file isn't a Stable Diffusion 1.x checkpoint; the message says what it is and what to do."""


def checkpoint_shapes(path: str | Path) -> Shapes:
    """Reads which weights a single-file checkpoint has; no code in it is run.

    Args:
        path: A .safetensors file, or a pickle: .ckpt, .pt, .pth or .bin.

    Returns:
        The original's names to their shapes.

    Raises:
        FileNotFoundError: There is no such file.
        NotACheckpoint: It is truncated, a web page, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Give a .safetensors or .ckpt file.")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    _check_head(path, head, size)
    return _safetensors(path, size) if path.suffix == ".safetensors" else _pickle(path, head)


def _check_head(path: Path, head: bytes, size: int) -> None:
    """Refuses what is no file of weights at all, or bears the wrong ending."""
    text = head.lstrip()[:1] if b"\0" not in head else b""  # weights have zeros among the first bytes
    if text in (b"<", b"{") or not head:
        what = "a web page" if text == b"<" else "an error message" if head else "empty"
        raise NotACheckpoint(
            f"{path} is {what} ({size:,} bytes), not weights: the download was answered with something else. "
            "Take the address of the download, not of the page that describes the model, and give a token "
            "if the site asks for a login; then download it again."
        )
    if path.suffix == ".safetensors" and head.startswith(b"PK"):
        raise NotACheckpoint(f"{path} is a pickle, not safetensors. Rename it to {path.stem}.ckpt.")


def _safetensors(path: Path, size: int) -> Shapes:
    """Format: 8 bytes with the header's length, a JSON header with the tensors' places, the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise NotACheckpoint(_broken(path, "its header ends behind the file's end"))
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotACheckpoint(_broken(path, "its header isn't that of a safetensors file")) from error
    if size < (whole := 8 + length + end):
        raise NotACheckpoint(_broken(path, f"{size:,} of {whole:,} bytes are there"))
    return shapes


class _Ignored:
    """Takes the place of what training programs leave in their checkpoints beside the weights."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


# Stable Diffusion's own v1 .ckpt files name this class of the program that trained them.
HARMLESS = [(_Ignored, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")]
"""For `torch.serialization.safe_globals`: read as nothing at all, whatever is installed."""


def _pickle(path: Path, head: bytes) -> Shapes:
    """A .ckpt is a pickle, which may hold code; torch reads the tensors alone, and names what it refuses."""
    archive = head.startswith(b"PK")
    if archive and not zipfile.is_zipfile(path):
        raise NotACheckpoint(_broken(path, "the archive's end is missing"))
    try:
        with torch.serialization.safe_globals(HARMLESS):
            read = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes fail in as many ways as a pickle has opcodes
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code and isinstance(error, UnpicklingError):
            raise NotACheckpoint(
                f"{path} holds code ({code[1]}), which was not run. "
                "Take the .safetensors version of the model, which can't hold any."
            ) from error
        raise NotACheckpoint(_broken(path, "it is no file of torch's")) from error
    while isinstance(read, dict) and isinstance(read.get("state_dict"), dict):
        read = read["state_dict"]
    if not isinstance(read, dict):
        raise NotACheckpoint(f"{path} holds a {type(read).__name__} instead of weights; {_MEANT}.")
    return {name: tuple(value.shape) for name, value in read.items() if isinstance(value, torch.Tensor)}


def check_architecture(shapes: Shapes, path: Path, unet: Mapping[str, Any]) -> None:
    """Refuses what isn't a whole model of the configuration's architecture.

    Args:
        shapes: Of the weights, by the original's names.
        path: For the message.
        unet: The UNet's configuration.

    Raises:
        NotACheckpoint: It is something else; the message says what.
    """
    if found := _other_architecture(shapes, unet):
        raise NotACheckpoint(
            f"{path} is {found}, and {_MEANT}. "
            "On Civitai: filter by base model 'SD 1.5' and type 'Checkpoint'."
        )


def _other_architecture(shapes: Shapes, unet: Mapping[str, Any]) -> str | None:
    """What the names and shapes say that it is; None where they fit the configuration."""

    def has(*starts: str) -> bool:
        return any(name.startswith(starts) for name in shapes)

    def has_inside(*parts: str) -> bool:
        return any(part in name for name in shapes for part in parts)

    if has_inside("lora_down", "lora_A", "lora.down", "hada_w1", "lokr_w1"):
        return "a LoRA, an addition to a model"
    if has("conditioner.embedders."):
        return "Stable Diffusion XL"
    if has("control_model.", "controlnet_"):
        return "a ControlNet"
    if has_inside("double_blocks.", "joint_blocks."):
        return "a Flux or Stable Diffusion 3 model"
    if has("emb_params", "string_to_param"):
        return "a textual inversion, an addition to a model"
    if has("encoder.conv_in", "first_stage_model.") and not has(_UNET):
        return "a VAE alone"
    if _FIRST not in shapes:
        return f"no model that is known here (its first weights: {', '.join(list(shapes)[:3]) or 'none'})"
    return _other_unet(shapes, unet) or _missing_part(has("cond_stage_model."), has("first_stage_model."))


def _other_unet(shapes: Shapes, unet: Mapping[str, Any]) -> str | None:
    """What the UNet's shapes say that it is."""
    channels, latent_channels = shapes[_FIRST][:2]
    text = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    if latent_channels == 9:
        return "an inpainting model"
    if text == 1024:
        return "Stable Diffusion 2"
    expected = (unet["block_out_channels"][0], unet["in_channels"], unet["cross_attention_dim"])
    if (found := (channels, latent_channels, text)) != expected:
        words = "of another size: channels, latent channels and text width are {}, not {} as configured"
        return words.format(*(", ".join(map(str, sizes)) for sizes in (found, expected)))
    return None


def _missing_part(text_encoder: bool, vae: bool) -> str | None:
    if not text_encoder:
        return "a UNet without a text encoder"
    return None if vae else "a model without a VAE"


def size_as_float32(shapes: Shapes) -> int:
    """Computes what the weights take.

    Args:
        shapes: Of the weights.

    Returns:
        Bytes.
    """
    return 4 * sum(math.prod(shape) for shape in shapes.values())


def _broken(path: Path, what: str) -> str:
    return (
        f"{path} is broken or truncated: {what}. Download it again; an interrupted download can be resumed."
    )
