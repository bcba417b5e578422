"""Single-file checkpoints, as Civitai offers them: what a file is, and what is wrong with it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch

_UNET = "model.diffusion_model."
_CONTEXT = (
    f"{_UNET}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"  # (320, width of the text encoder)
)
_HEAD = 4096  # bytes that tell a web page from weights


class NotACheckpoint(ValueError):
    """The file isn't a Stable Diffusion 1.x checkpoint; the message says what it is and what to do."""


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads a single-file checkpoint and makes sure that it is Stable Diffusion 1.x; no code in it is run.

    Args:
        path: A .safetensors or .ckpt file.

    Returns:
        Its weights under the original's names, on the CPU; mapped from the disk where the format allows.

    Raises:
        FileNotFoundError: There is no such file.
        NotACheckpoint: It is truncated, a web page, holds code, or is of another architecture.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if (text := head.lstrip()[:1]) in (b"<", b"{") or not head:
        what = "a web page" if text == b"<" else "an error message" if head else "empty"
        raise NotACheckpoint(
            f"{path} is {what} ({size:,} bytes), not weights: the download was answered with something else. "
            "Does the site ask for a token or a login? Download it again."
        )
    weights = _safetensors(path, size) if path.suffix == ".safetensors" else _pickle(path, head)
    check_architecture(weights, path)
    return weights


def _safetensors(path: Path, size: int) -> dict[str, torch.Tensor]:
    """Format: 8 bytes with the header's length, a JSON header with the tensors' places, the tensors."""
    from safetensors.torch import load_file

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise NotACheckpoint(_broken(path, "its header ends behind the file's end"))
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError) as error:
            raise NotACheckpoint(_broken(path, "its header isn't that of a safetensors file")) from error
    whole = 8 + length + max(ends, default=0)
    if size < whole:
        raise NotACheckpoint(_broken(path, f"{size:,} of {whole:,} bytes are there"))
    return load_file(path)


def _pickle(path: Path, head: bytes) -> dict[str, torch.Tensor]:
    """A .ckpt is a pickle, which may hold code; torch reads the tensors alone, and names what it refuses."""
    archive = head.startswith(b"PK")
    if archive and not zipfile.is_zipfile(path):
        raise NotACheckpoint(_broken(path, "the archive's end is missing"))
    try:
        read = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UnpicklingError as error:
        try:
            code = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:
            code = []
        if not code:
            raise NotACheckpoint(_broken(path, "it is no file of torch's")) from error
        raise NotACheckpoint(
            f"{path} holds code ({', '.join(sorted(code))}), which was not run. "
            "Take the .safetensors version of the model, which can't hold any."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise NotACheckpoint(_broken(path, str(error).splitlines()[0])) from error
    while isinstance(read, dict) and isinstance(read.get("state_dict"), dict):
        read = read["state_dict"]
    return {name: value for name, value in dict(read).items() if isinstance(value, torch.Tensor)}


def check_architecture(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Refuses what isn't a whole Stable Diffusion 1.x.

    Args:
        weights: By the original's names.
        path: For the message.

    Raises:
        NotACheckpoint: It is something else; the message says what.
    """
    found = _other_architecture(weights)
    if found:
        raise NotACheckpoint(
            f"{path} is {found}, and a Stable Diffusion 1.5 checkpoint is needed (about 2 or 4 GB). "
            "On Civitai: filter by base model 'SD 1.5' and type 'Checkpoint'."
        )


def _other_architecture(weights: dict[str, torch.Tensor]) -> str | None:
    """What the names and shapes say that it is; None for Stable Diffusion 1.x."""

    def has(*starts: str) -> bool:
        return any(name.startswith(starts) for name in weights)

    if any("lora_down" in name or "lora_A" in name for name in weights):
        return "a LoRA, an addition to a model"
    if has("conditioner.embedders."):
        return "Stable Diffusion XL"
    if has("control_model.", "controlnet_"):
        return "a ControlNet"
    if any("double_blocks" in name or "joint_blocks" in name for name in weights):
        return "a Flux or Stable Diffusion 3 model"
    if has("encoder.conv_in", "first_stage_model.") and not has(_UNET):
        return "a VAE alone"
    if not has(_UNET):
        return f"no model that is known here (its first weights: {', '.join(list(weights)[:3]) or 'none'})"
    if weights[f"{_UNET}input_blocks.0.0.weight"].shape[1] == 9:
        return "an inpainting model"
    if _CONTEXT in weights and weights[_CONTEXT].shape[1] == 1024:
        return "Stable Diffusion 2"
    if not has("cond_stage_model."):
        return "a UNet without a text encoder"
    if not has("first_stage_model."):
        return "a model without a VAE"
    return None


def _broken(path: Path, what: str) -> str:
    return (
        f"{path} is broken or truncated: {what}. Download it again; an interrupted download can be resumed."
    )
