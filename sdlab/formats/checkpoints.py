"""Weights from elsewhere, one file or a diffusers folder: what they are, and what is wrong with them."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, tuple[int, ...]]
"""Names of weights to their shapes."""

CONFIGS = Path(__file__).parent / "sd15"
"""Stable Diffusion 1.5's configuration files: all that its weights don't say."""
LORA_DOWN = ("lora_down.weight", "lora_A.weight", "lora.down.weight", "lora_linear_layer.down.weight")
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
EMA = "model_ema.diffusion_model"  # here the names that follow have lost their dots
_HEAD = 4096  # bytes that tell a web page from weights
_MEANT = "a Stable Diffusion 1.5 checkpoint is needed (about 2 or 4 GB)"
_FIND = "On Civitai: filter by base model 'SD 1.5' and type 'Checkpoint'."
# What else a file may be, by patterns of names: one that is there, and one that isn't.
_OTHERS = (
    (
        "a LoRA, an addition to a model (add it to one: sd15+FILE)",
        r"lora_down|lora_A|lora\.down|hada_w1|lokr_w1",
        None,
    ),
    ("Stable Diffusion XL", r"^conditioner\.embedders\.", None),
    ("a ControlNet", r"^control_model\.|^controlnet_", None),
    ("a Flux or Stable Diffusion 3 model", r"double_blocks\.|joint_blocks\.", None),
    ("a textual inversion, an addition to a model", r"^emb_params|^string_to_param", None),
    ("a UNet alone", r"^input_blocks\.0\.0\.|^down_blocks\.0\.", f"^{UNET}"),
    ("a VAE alone", f"^encoder\\.conv_in|^{VAE}", f"^{UNET}|^{EMA}"),
)
# LyCORIS' other methods, by a part of their weights' names; diffusers loads LoRA and LoCon alone.
_LYCORIS = {
    "hada_w1": "LoHa",
    "lokr_w1": "LoKr",
    "oft_": "OFT",
    "on_input": "(IA)³",
    "lora_mid": "Tucker LoCon",
    "dora_scale": "DoRA",
    ".diff": "full-difference",
    "a1.weight": "GLoRA",
}


class NotACheckpoint(ValueError):
    """The weights aren't those of a Stable Diffusion 1.x model; the message says what they are."""


class _Ignored:
    """Takes the place of what training programs leave in their checkpoints beside the weights."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


# Stable Diffusion's own v1 .ckpt files name this class of the program that trained them.
_HARMLESS = [(_Ignored, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")]


def checkpoint_shapes(path: str | Path) -> Shapes:
    """Reads which weights a file has, by its content and not by its ending; no code in it is run."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Give a .safetensors or .ckpt file.")
    if is_safetensors(path):
        return _safetensors_shapes(path)
    return {name: tuple(value.shape) for name, value in _pickle(path).items()}


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads a file's weights as they are; no code in it is run."""
    if is_safetensors(path):
        from safetensors.torch import load_file

        _safetensors_shapes(path)
        return load_file(path)
    return _pickle(path)


def is_safetensors(path: Path) -> bool:
    """Tells safetensors from a pickle; refuses what is no file of weights, or bears the wrong ending."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head.lstrip()[:1] if b"\0" not in head else b""  # weights have zeros among the first bytes
    if text in (b"<", b"{") or not head:
        what = "a web page" if text == b"<" else "an error message" if head else "empty"
        raise NotACheckpoint(
            f"{path} is {what} ({size:,} bytes), not weights: the download was answered with something else. "
            "Take the address of the download, not of the page that describes the model, and give a token "
            "if the site asks for a login; then download it again."
        )
    named, is_one = path.suffix.lower() == ".safetensors", head[8:9] == b"{"
    if named and not is_one and head.startswith((b"PK", b"\x80")):
        raise NotACheckpoint(f"{path} is a pickle, not safetensors. Rename it to {path.stem}.ckpt.")
    return named or is_one


def _safetensors_shapes(path: Path) -> Shapes:
    """Format: 8 bytes with the header's length, a JSON header with the tensors' places, the tensors."""
    size = path.stat().st_size
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


def _pickle(path: Path) -> dict[str, torch.Tensor]:
    """A .ckpt is a pickle, which may hold code; torch reads the tensors alone, and names what it refuses."""
    import torch

    with path.open("rb") as file:
        archive = file.read(2) == b"PK"
    if archive and not zipfile.is_zipfile(path):
        raise NotACheckpoint(_broken(path, "the archive's end is missing"))
    try:
        with torch.serialization.safe_globals(_HARMLESS):
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
    return dict(_tensors(read))


def _tensors(read: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of nested dictionaries, such as A1111's embeddings have."""
    import torch

    for name, value in read.items():
        if isinstance(value, torch.Tensor):
            yield f"{start}{name}", value
        elif isinstance(value, dict):
            yield from _tensors(value, f"{start}{name}.")


def check_architecture(shapes: Shapes, path: Path, unet: Mapping[str, Any]) -> None:
    """Refuses a single file that isn't a whole model of a UNet's configuration, and says what it is."""
    if found := _what_else(shapes, unet):
        raise NotACheckpoint(f"{path} is {found.replace('FILE', str(path))}, and {_MEANT}. {_FIND}")


def _what_else(shapes: Shapes, unet: Mapping[str, Any]) -> str | None:
    """What the names and shapes say that it is; None where they fit the configuration."""

    def has(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in shapes)

    for what, pattern, without in _OTHERS:
        if has(pattern) and not (without and has(without)):
            return what
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")  # (channels, latent channels, 3, 3)
    if first:
        text = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
        if other := _other_unet((first[0], first[1], text), unet):
            return other
    elif not has(f"^{EMA}"):  # whose names have no dots and tell nothing of the shapes' places
        return f"no model that is known here (its first weights: {', '.join(list(shapes)[:3]) or 'none'})"
    if not has(f"^{TEXT}"):
        return "a UNet without a text encoder"
    return None if has(f"^{VAE}") else "a model without a VAE"


def _other_unet(sizes: tuple[int, int, int], unet: Mapping[str, Any]) -> str | None:
    """What a UNet's sizes say that it is: channels, latent channels and text width."""
    if sizes[1] == 9:
        return "an inpainting model"
    if sizes[2] == 1024:
        return "Stable Diffusion 2"
    if sizes != (expected := _sizes(unet)):
        words = "of another size: channels, latent channels and text width are {}, not {} as configured"
        return words.format(*(", ".join(map(str, one)) for one in (sizes, expected)))
    return None


def _sizes(unet: Mapping[str, Any]) -> tuple[int, int, int]:
    channels = unet.get("block_out_channels") or [0]
    return channels[0], unet.get("in_channels") or 0, unet.get("cross_attention_dim") or 0


def check_folder(folder: Path, *, numbers: bool = True) -> None:
    """Refuses a diffusers folder that isn't a whole Stable Diffusion 1.x, before anything is loaded.

    With `numbers` the weights are read, too (seconds for 4 GB), and those that aren't finite refused.
    """
    index, unet = _json(folder / "model_index.json"), _json(folder / "unet" / "config.json")
    kind = index.get("_class_name", "StableDiffusionPipeline")
    found = f"a {kind}" if kind != "StableDiffusionPipeline" else _other_unet(_sizes(unet), unet)
    if found:
        raise NotACheckpoint(f"{folder} is {found}, and {_MEANT} or its folder. {_FIND}")
    for part in ("unet", "vae", "text_encoder"):
        files = weight_files(folder / part)
        if not files:
            raise NotACheckpoint(f"{folder} is no whole model: {part}/ holds no weights. Download it again.")
        for file in files if numbers else []:
            check_numbers(file)


def weight_files(part: Path) -> list[Path]:
    """A part's files of weights: safetensors before pickles, full precision before fp16."""
    found = [file for file in sorted(part.glob("*")) if file.suffix in (".safetensors", ".bin")]
    rank = {file: (file.suffix == ".bin", ".fp16." in file.name) for file in found}
    return [file for file in found if rank[file] == min(rank.values())]


def check_numbers(file: Path) -> None:
    """Refuses a file that is truncated or holds weights that aren't finite."""
    stat = file.stat()
    if bad := _not_finite(file, stat.st_size, stat.st_mtime_ns):
        raise no_numbers(file, bad)


def no_numbers(file: Path, name: str) -> NotACheckpoint:
    """What is said of a file whose weight of that name is NaN or infinite."""
    return NotACheckpoint(
        f"{file} holds weights that are no numbers (NaN or infinite), such as {name}: its training "
        "diverged, or the file is damaged. Take another model, or download it again."
    )


@lru_cache(maxsize=100)
def _not_finite(file: Path, size: int, mtime_ns: int) -> str | None:
    import torch

    weights = read_weights(file).items()
    return next((name for name, value in weights if not torch.isfinite(value.float()).all()), None)


def check_lora(file: Path, text_width: int) -> None:
    """Refuses a LoRA file that diffusers can't add, or that was made for another architecture.

    `text_width` is the base's cross_attention_dim: 768 in Stable Diffusion 1.5.
    """
    shapes = checkpoint_shapes(file)
    for part, kind in _LYCORIS.items():
        if any(part in name for name in shapes):
            raise NotACheckpoint(
                f"{file} is a {kind}, which can't be added here exactly. Merge it into a model with the "
                "program that made it, and take that model as base, or take a plain LoRA."
            )
    down = {name: shape for name, shape in shapes.items() if name.endswith(LORA_DOWN)}
    if not down:
        raise NotACheckpoint(f"{file} is no LoRA: none of its weights is called {', '.join(LORA_DOWN)}.")
    reads = {shape[1] for name, shape in down.items() if re.search(r"attn2[._]to_[kv]\b", name)}
    if reads and reads != {text_width}:
        known = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
        made = known.get(width := max(reads), f"a model of text width {width}")
        raise NotACheckpoint(
            f"{file} was made for {made}, and the base reads texts of width {text_width}. "
            "Take a LoRA for this base, or the base that it was made for."
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NotACheckpoint(
            f"{path} is missing, so its folder is no whole model. Download it again."
        ) from None
    except (ValueError, TypeError) as error:
        raise NotACheckpoint(_broken(path, "it isn't JSON")) from error


def _broken(path: Path, what: str) -> str:
    return (
        f"{path} is broken or truncated: {what}. Download it again; an interrupted download can be resumed."
    )
