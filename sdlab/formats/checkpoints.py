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
PARTS = ("unet", "vae", "text_encoder")
"""The parts of a pipeline that have weights."""
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
LORA_DOWN = r"(\.lora_A|\.lora_down|[._]lora\.down|\.lora_linear_layer\.down)\.weight$"
"""How peft, kohya, and diffusers before them call the first matrix of a LoRA's layer."""
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
EMA = "model_ema.diffusion_model"  # here the names that follow have lost their dots
_WORDS = "embeddings.token_embedding.weight"  # of CLIP's text encoder
_HEAD = 4096  # bytes that tell a web page from weights
# What files begin with that are no weights, or none that can be read.
_MAGIC = {
    b"version https://git-lfs": "a pointer of Git LFS and not the weights. Fetch them: git lfs pull.",
    b"GGUF": "a GGUF, whose weights are quantized. Take the .safetensors version of the model.",
    b"7z\xbc\xaf": "an archive. Unpack it, and take the file in it.",
    b"Rar!": "an archive. Unpack it, and take the file in it.",
    b"\x1f\x8b": "an archive. Unpack it, and take the file in it.",
}
_NEEDED = (
    "and a Stable Diffusion 1.5 checkpoint is needed (about 2 or 4 GB) or its folder. "
    "On Civitai: filter by base model 'SD 1.5' and type 'Checkpoint'."
)
# What a file is, by patterns of names: the first of which one is there and the other isn't.
_KINDS = (
    ("a LoRA, an addition to a model (add it to one: sd15+FILE)", rf"{LORA_DOWN}|hada_w1|lokr_w1", None),
    ("Stable Diffusion XL", r"^conditioner\.embedders\.", None),
    ("a ControlNet", r"^control_model\.|^controlnet_", None),
    ("a Flux or Stable Diffusion 3 model", r"double_blocks\.|joint_blocks\.", None),
    ("a textual inversion, an addition to a model", r"^emb_params|^string_to_param", None),
    ("an AnimateDiff motion module", r"motion_modules\.", f"^{UNET}"),
    ("an IP-Adapter", r"^image_proj\.|^ip_adapter\.", None),
    ("a UNet alone", r"^input_blocks\.0\.0\.|^down_blocks\.0\.", f"^{UNET}"),
    ("a text encoder alone", r"^text_model\.", f"^{UNET}"),
    ("a VAE alone", f"^encoder\\.conv_in|^{VAE}", f"^{UNET}|^{EMA}"),
    ("no model that is known here (its first weights: NAMES)", "", f"^{UNET}|^{EMA}"),
    ("a UNet without a text encoder", "", f"^{TEXT}"),
    ("a model without a VAE", "", f"^{VAE}"),
)
_OTHER_MODELS = {1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}  # by text width
# LyCORIS' other methods, by a part of their weights' names; diffusers loads LoRA and LoCon alone.
_LYCORIS = {
    "hada_w1": "LoHa",
    "lokr_w1": "LoKr",
    "oft_": "OFT",
    "on_input": "(IA)³",
    "lora_mid": "Tucker LoCon",
    "dora_scale": "DoRA",
    ".diff.": "full-difference",
    ".diff_b.": "full-difference",
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
        what = f"{path} is a folder, not a file" if path.is_dir() else f"There is no file {path}"
        raise FileNotFoundError(f"{what}. Give a .safetensors or .ckpt file.")
    if is_safetensors(path):
        return _safetensors_shapes(path)
    return {name: tuple(value.shape) for name, value in _pickle(path).items()}


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads a file's weights as they are, and refuses those that aren't finite; no code in it is run."""
    import torch
    from safetensors.torch import load_file

    if is_safetensors(path):
        _safetensors_shapes(path)
        weights = load_file(path)
    else:
        weights = _pickle(path)
    for name, weight in weights.items():  # constants of a noise schedule have no dot, and may be infinite
        if "." in name and not torch.isfinite(weight.float()).all():
            raise NotACheckpoint(
                f"{path} holds weights that are no numbers (NaN or infinite), such as {name}: its training "
                "diverged, or the file is damaged. Take another model, or download it again."
            )
    return weights


def check_weights(file: Path) -> None:
    """Reads a file's weights for their faults alone, once as long as it is unchanged."""
    stat = file.stat()
    _check_weights(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=100)
def _check_weights(file: Path, size: int, mtime_ns: int) -> None:
    read_weights(file)


def is_safetensors(path: Path) -> bool:
    """Tells safetensors from a pickle; refuses what is no file of weights, or bears the wrong ending."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head.lstrip()[:1] if b"\0" not in head else b""  # weights have zeros among the first bytes
    if known := next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None):
        raise NotACheckpoint(f"{path} is {known}")
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
            raise _broken(path, "its header ends behind the file's end")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _broken(path, "its header isn't that of a safetensors file") from error
    if size != (whole := 8 + length + end):
        raise _broken(path, f"{size:,} of {whole:,} bytes are there")
    return shapes


def _pickle(path: Path) -> dict[str, torch.Tensor]:
    """A .ckpt is a pickle, which may hold code; torch reads the tensors alone, and names what it refuses."""
    import torch

    with path.open("rb") as file:
        archive = file.read(2) == b"PK"
    if archive and not zipfile.is_zipfile(path):
        raise _broken(path, "the archive's end is missing")
    if archive and not any(name.endswith("data.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise NotACheckpoint(f"{path} is an archive of files. Unpack it, and take the checkpoint in it.")
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
        raise _broken(path, "it is no file of torch's") from error
    if not isinstance(read, dict):
        raise NotACheckpoint(f"{path} holds a {type(read).__name__} instead of weights, {_NEEDED}")
    return dict(_tensors(read))


def _tensors(read: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of nested dictionaries; trainers put a model's into `state_dict`."""
    import torch

    for name, value in read.items():
        if isinstance(value, torch.Tensor):
            yield f"{start}{name}", value
        elif isinstance(value, dict):
            yield from _tensors(value, "" if name == "state_dict" else f"{start}{name}.")


def _broken(path: Path, what: str) -> NotACheckpoint:
    return NotACheckpoint(
        f"{path} is broken or truncated: {what}. Download it again; an interrupted download can be resumed."
    )


def check_architecture(path: Path, unet: Mapping[str, Any]) -> None:
    """Refuses a single file that isn't a whole model of a UNet's configuration, and says what it is."""
    shapes = checkpoint_shapes(path)
    lines = "\n".join(shapes)

    def has(pattern: str) -> bool:
        return re.search(pattern, lines, re.MULTILINE) is not None

    kinds = (kind for kind, there, missing in _KINDS if has(there) and not (missing and has(missing)))
    found = _other_size(shapes, unet) or next(kinds, None)
    if found:
        found = found.replace("FILE", str(path)).replace("NAMES", ", ".join(list(shapes)[:3]) or "none")
        raise NotACheckpoint(f"{path} is {found}, {_NEEDED}")


def _other_size(shapes: Shapes, unet: Mapping[str, Any]) -> str | None:
    """What the weights' sizes say that it is, where they tell and aren't those of the configuration."""
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")  # (channels, latent channels, 3, 3)
    text = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    return _other_unet((first[0], first[1], text), unet) if first else None


def _other_unet(sizes: tuple[int, ...], unet: Mapping[str, Any]) -> str | None:
    """What a UNet is by its channels, latent channels and text width, where they aren't as configured."""
    expected = _sizes(unet)
    if sizes[1] == 9:
        return "an inpainting model"
    if sizes == expected or sizes[2] in _OTHER_MODELS:
        return _OTHER_MODELS.get(sizes[2])
    ours, wanted = (", ".join(map(str, one)) for one in (sizes, expected))
    return f"of another size: channels, latent channels and text width are {ours}, not {wanted} as configured"


def _sizes(unet: Mapping[str, Any]) -> tuple[int, ...]:
    channels = unet.get("block_out_channels") or [0]
    return channels[0], unet.get("in_channels") or 0, unet.get("cross_attention_dim") or 0


def check_folder(folder: Path, *, numbers: bool = True) -> None:
    """Refuses a diffusers folder that isn't a whole Stable Diffusion 1.x, before anything is loaded.

    With `numbers` all weights are read (seconds for 4 GB), and those that aren't finite refused.
    """
    kind = read_config(folder / "model_index.json").get("_class_name", "StableDiffusionPipeline")
    unet = read_config(folder / "unet" / "config.json")
    found = f"a {kind}" if kind != "StableDiffusionPipeline" else _other_unet(_sizes(unet), unet)
    if found:
        raise NotACheckpoint(f"{folder} is {found}, {_NEEDED}")
    read_config(folder / "scheduler" / "scheduler_config.json")
    if not has_tokenizer(folder / "tokenizer"):
        raise NotACheckpoint(
            f"{folder} is no whole model: tokenizer/ holds no vocab.json and merges.txt, and no "
            "tokenizer.json. Download it again."
        )
    for part in PARTS:
        files = weight_files(folder / part)
        if not files:
            raise NotACheckpoint(f"{folder} is no whole model: {part}/ holds no weights. Download it again.")
        for file in files:
            check_weights(file) if numbers else checkpoint_shapes(file)
        names = {name for file in files for name in checkpoint_shapes(file)} if part == "text_encoder" else ()
        if names and not names & {_WORDS, f"text_model.{_WORDS}"}:
            raise NotACheckpoint(
                f"{folder} is no whole model: the weights in {part}/ aren't a CLIP text encoder's; the first "
                f"is {min(names)}. Download it again."
            )


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer, older or newer than transformers 5."""
    older = all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))
    return older or (folder / "tokenizer.json").is_file()


def weight_files(part: Path) -> list[Path]:
    """A part's files of weights: safetensors before pickles, full precision before fp16."""
    found = [file for file in sorted(part.glob("*")) if file.suffix in (".safetensors", ".bin")]
    rank = {file: (file.suffix == ".bin", ".fp16." in file.name) for file in found}
    return [file for file in found if rank[file] == min(rank.values())]


def read_config(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a diffusers folder."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NotACheckpoint(
            f"{path} is missing, so its folder is no whole model. Download it again."
        ) from None
    except (ValueError, TypeError) as error:
        raise _broken(path, "it isn't JSON") from error


def check_lora(file: Path, text_width: int) -> None:
    """Refuses a LoRA file that diffusers can't add, or that was made for another architecture.

    `text_width` is the base's cross_attention_dim: 768 in Stable Diffusion 1.5.
    """
    shapes = checkpoint_shapes(file)
    if kind := next(
        (kind for part, kind in _LYCORIS.items() if any(part in f"{name}." for name in shapes)), None
    ):
        raise NotACheckpoint(
            f"{file} is a {kind}, which can't be added here exactly. Merge it into a model with the "
            "program that made it, and take that model as base, or take a plain LoRA."
        )
    down = {name: shape for name, shape in shapes.items() if re.search(LORA_DOWN, name)}
    if not down:
        raise NotACheckpoint(f"{file} is no LoRA: none of its weights is called lora_down, lora_A or alike.")
    reads = {shape[1] for name, shape in down.items() if re.search(r"attn2[._]to_[kv]\b", name)}
    if reads and reads != {text_width}:
        width = max(reads)
        made = {768: "Stable Diffusion 1.5", **_OTHER_MODELS}.get(width, f"a model of text width {width}")
        raise NotACheckpoint(
            f"{file} was made for {made}, and the base reads texts of width {text_width}. "
            "Take a LoRA for this base, or the base that it was made for."
        )
