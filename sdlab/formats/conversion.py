"""From a single-file checkpoint to a diffusers folder, offline."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab.files import must_be_free, write_folder
from sdlab.formats.checkpoint_file import (
    HARMLESS,
    NotACheckpoint,
    check_architecture,
    checkpoint_shapes,
    size_as_float32,
)
from sdlab.models import SD15, quiet

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

CONFIGS = Path(__file__).parent / "sd15"
"""Stable Diffusion 1.5's configuration files: all that its weights don't say."""

_TOKENIZER_FILES = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]


def convert(
    file: str | Path,
    out: str | Path = "cache_dir/models/civitai_model",
    *,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
) -> Path:
    """Converts a Stable Diffusion 1.5 checkpoint to the diffusers layout; what is there already is kept.

    Args:
        file: A .safetensors or .ckpt file, as Civitai offers it.
        out: The folder to make; it can be a `pretrained_model_name_or_path`.
        tokenizer: A folder with CLIP's tokenizer; None takes the one in `config`, else that of the hub's
            cache, else downloads it.
        config: A folder with the model's configuration files; None takes Stable Diffusion 1.5's.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: There is no such file.
        FileExistsError: `out` holds something else.
        NotACheckpoint: The file isn't a Stable Diffusion 1.5 checkpoint; the message says what it is.
        OSError: There is no tokenizer, and none can be downloaded.
        DiskFull: The disk is full.

    Source:
        diffusers' `StableDiffusionPipeline.from_single_file`.
    """
    file, out, known = Path(file), Path(out), Path(config) if config is not None else CONFIGS
    must_be_free(out)
    if not (known / "model_index.json").is_file():
        raise ValueError(f"config must be a folder with model_index.json, got {known}, which has none.")
    shapes = checkpoint_shapes(file)
    unet = json.loads((known / "unet" / "config.json").read_text(encoding="utf-8"))
    check_architecture(shapes, file, unet)
    with (
        _with_tokenizer(known, tokenizer) as configs,
        write_folder(out, needed=size_as_float32(shapes)) as folder,
        quiet(),
    ):
        _load(file, configs).save_pretrained(folder)
    return out


def _load(file: Path, configs: Path) -> StableDiffusionPipeline:
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    lacking = f"{file} lacks some of the model's weights. Take a checkpoint that holds the whole model."
    try:
        with torch.serialization.safe_globals(
            HARMLESS
        ):  # of a .ckpt, diffusers, too, reads the tensors alone
            pipeline = StableDiffusionPipeline.from_single_file(
                str(file), config=str(configs), local_files_only=True, dtype=torch.float32
            )
    except (NotImplementedError, SingleFileComponentError) as error:
        raise NotACheckpoint(lacking) from error
    if any(weight.is_meta for weight in pipeline.text_encoder.parameters()):  # made, but never filled
        raise NotACheckpoint(lacking)
    return pipeline


@contextmanager
def _with_tokenizer(known: Path, tokenizer: str | Path | None) -> Iterator[Path]:
    """A folder with the configuration files and a tokenizer."""
    own = known / "tokenizer"
    source = Path(tokenizer) if tokenizer is not None else own if own.is_dir() else _cached_tokenizer()
    if not any((source / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        raise OSError(
            f"{source} holds no tokenizer: vocab.json and merges.txt, or tokenizer.json, are needed."
        )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for file in known.rglob("*.json"):
            (folder / file.relative_to(known)).parent.mkdir(exist_ok=True)
            shutil.copy(file, folder / file.relative_to(known))
        shutil.copytree(source, folder / "tokenizer", dirs_exist_ok=True)
        yield folder


def _cached_tokenizer() -> Path:
    """Stable Diffusion 1.5's tokenizer (1.5 MB), from the hub's cache or the hub."""
    from huggingface_hub import snapshot_download

    wanted = [f"tokenizer/{name}" for name in _TOKENIZER_FILES]
    try:
        return Path(snapshot_download(SD15, allow_patterns=wanted)) / "tokenizer"
    except Exception as error:  # offline has many names: timeouts, refused connections, unknown hosts …
        raise OSError(
            f"CLIP's tokenizer isn't on this machine, and {SD15} can't be reached "
            f"({str(error).splitlines()[0]}). Give a folder that holds it, the `tokenizer` folder of any "
            "Stable Diffusion 1.5 in the diffusers layout: --tokenizer FOLDER."
        ) from error
