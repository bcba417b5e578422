"""From a single-file checkpoint to a pipeline, and from it to a folder that older programs read too."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.files import must_be_free, write_bytes, write_folder
from sdlab.formats.checkpoints import (
    CONFIGS,
    EMA,
    PARTS,
    UNET,
    NotACheckpoint,
    check_architecture,
    has_tokenizer,
    read_config,
    read_weights,
)
from sdlab.formats.names import original_names, with_text_model

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
# The homework's prompts are harmless; the checker needs 1.2 GB and blackens images at random.
WITHOUT: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
_CLIP_WORDS = 49_408
_TOKENIZER_FILES = ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]
_END = "<|endoftext|>"
# Packages that carry CLIP's merges.
_MERGES = {"open_clip": "bpe_simple_vocab_16e6.txt.gz", "clip": "bpe_simple_vocab_16e6.txt.gz"}


def convert(
    file: str | Path,
    out: str | Path = "cache_dir/models/civitai_model",
    *,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
) -> Path:
    """Converts a Stable Diffusion 1.5 checkpoint to the diffusers layout.

    Args:
        file: A .safetensors or .ckpt file, as Civitai offers it.
        out: The folder to make; it can be a `pretrained_model_name_or_path`.
        tokenizer: A folder with CLIP's tokenizer; None takes the one in `config`, else one that is on this
            machine, else downloads it.
        config: A folder with the model's configuration files; None takes Stable Diffusion 1.5's.

    Raises:
        NotACheckpoint: The file isn't a Stable Diffusion 1.5 checkpoint; the message says what it is.
    """
    file, out = Path(file).expanduser(), Path(out).expanduser()
    must_be_free(out)
    save_pipeline(load_checkpoint(file, Path(config or CONFIGS), tokenizer), out)
    return out


def load_checkpoint(
    file: Path, configs: Path = CONFIGS, tokenizer: str | Path | None = None
) -> StableDiffusionPipeline:
    """Loads a single-file checkpoint, offline if a tokenizer is at hand, in float32."""
    import diffusers
    from accelerate import init_empty_weights
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    if not (configs / "model_index.json").is_file():
        raise ValueError(f"config must be a folder with model_index.json, got {configs}, which has none.")
    unet, vae, text_encoder = (read_config(configs / part / "config.json") for part in PARTS)
    scheduler = read_config(configs / "scheduler" / "scheduler_config.json")
    check_architecture(file, unet)
    own = configs / "tokenizer"
    folder = Path(tokenizer or (own if own.is_dir() else clip_tokenizer())).expanduser()
    if not has_tokenizer(folder):
        raise OSError(
            f"{folder} holds no tokenizer: vocab.json and merges.txt, or tokenizer.json, are needed."
        )
    words = CLIPTokenizer.from_pretrained(folder)
    weights = read_weights(file)
    with init_empty_weights(include_buffers=False), quiet():
        models = {
            "unet": diffusers.UNet2DConditionModel.from_config(unet),
            "vae": diffusers.AutoencoderKL.from_config(vae),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text_encoder)),
        }
    for model in models.values():
        _fill(file, model, weights)
    words.model_max_length = models["text_encoder"].config.max_position_embeddings
    if "v_pred" in weights:  # what trainers of v-prediction models leave as a sign
        scheduler |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": "ztsnr" in weights}
    models["scheduler"] = getattr(diffusers, scheduler["_class_name"]).from_config(scheduler)
    with quiet():
        return diffusers.StableDiffusionPipeline(
            **models, tokenizer=words, **WITHOUT, requires_safety_checker=False
        )


def _fill(file: Path, part: Any, weights: dict[str, torch.Tensor]) -> None:
    """Gives a part made without memory its weights, in float32."""
    found: dict[str, torch.Tensor] = {}
    originals = original_names(part)
    for name, empty in part.state_dict().items():
        weight = _find(weights, originals[name])
        if weight is None or weight.numel() != empty.numel():
            raise NotACheckpoint(
                f"{file} lacks some of the model's weights ({name}). Take one that holds the whole model."
            )
        # the original's attention is made of 1×1 convolutions
        found[name] = weight.float().reshape(empty.shape).clone()
    part.load_state_dict(found, assign=True)
    part.eval()


def _find(weights: dict[str, torch.Tensor], name: str) -> torch.Tensor | None:
    """A weight by its original name, or by those of files from transformers 5 and of a running mean alone.

    ComfyUI's fp8 files keep it divided by a `scale_weight`, since 2025 called `weight_scale`.
    """
    names = [name, name.replace(".text_model.", ".")]
    if f"{UNET}input_blocks.0.0.weight" not in weights:  # never a mixture of both
        names.append(EMA + name.removeprefix(UNET).replace(".", ""))
    found = next((one for one in names if one in weights), name)
    start, weight = found.removesuffix("weight"), weights.get(found)
    scale = weights.get(f"{start}scale_weight", weights.get(f"{start}weight_scale"))
    if weight is None or scale is None:
        return weight
    if scale.numel() != 1:
        raise NotACheckpoint(f"{found} is quantized in blocks. Take the version of the model without: fp16.")
    return weight.float() * scale.float()


def clip_tokenizer() -> Path:
    """The folder of CLIP's tokenizer (1.5 MB): from wherever it is on this machine, else from the hub."""
    from huggingface_hub import constants, snapshot_download

    cache = Path(constants.HF_HUB_CACHE)
    places = [*cache.glob("models--*/snapshots/*/tokenizer"), *cache.glob("models--*clip*/snapshots/*")]
    places += [*Path("cache_dir/models").glob("*/tokenizer"), *Path("experiments").glob("*/model/tokenizer")]
    if found := next((place for place in places if _is_clip(place)), None):
        return found
    for package, name in _MERGES.items():
        spec = importlib.util.find_spec(package)
        if spec and spec.origin and (merges := Path(spec.origin).with_name(name)).is_file():
            return _from_merges(merges, Path("cache_dir/models/clip_tokenizer"))
    wanted = [f"tokenizer/{name}" for name in _TOKENIZER_FILES]
    try:
        return Path(snapshot_download(SD15, allow_patterns=wanted)) / "tokenizer"
    except Exception as error:  # offline has many names: timeouts, refused connections, unknown hosts …
        raise OSError(
            f"CLIP's tokenizer isn't on this machine (not in the hub's cache {cache}, cache_dir/models, "
            f"experiments or an installed {' or '.join(_MERGES)}), and {SD15} can't be reached "
            f"({str(error).splitlines()[0]}). Give a folder that holds it, the `tokenizer` folder of any "
            "Stable Diffusion 1.5 in the diffusers layout: --tokenizer FOLDER."
        ) from error


def _is_clip(folder: Path) -> bool:
    """Whether a folder holds CLIP's words, not those of another model such as `mini`."""
    try:
        words = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        return len(words) == _CLIP_WORDS and (folder / "merges.txt").is_file()
    except (OSError, ValueError):
        return False


def _from_merges(file: Path, folder: Path) -> Path:
    """Makes CLIP's tokenizer from the list of merges that open_clip and OpenAI's clip carry.

    Source:
        OpenAI CLIP, `simple_tokenizer.py`: the words are 256 bytes, the same at a word's end, one for each of
        the first 48,894 merges, and the two special ones.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : _CLIP_WORDS - 512 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(line.split()) for line in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", _END])}
    _write_slow_tokenizer(folder, vocabulary, merges)
    return folder


def _write_slow_tokenizer(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    """The files of transformers' older CLIPTokenizer, which other programs read alone."""
    special = {"bos_token": "<|startoftext|>", "eos_token": _END, "pad_token": _END, "unk_token": _END}
    write_bytes(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False).encode())
    write_bytes(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]).encode())
    write_bytes(folder / "special_tokens_map.json", json.dumps(special, indent=2).encode())
    if not (settings := folder / "tokenizer_config.json").is_file():
        values = {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
        write_bytes(settings, json.dumps(values, indent=2).encode())


def pipeline_bytes(pipeline: StableDiffusionPipeline) -> int:
    """What the weights take on the disk."""
    parts = (pipeline.unet, pipeline.text_encoder, pipeline.vae)
    return sum(weight.nbytes for part in parts for weight in part.parameters())


def save_pipeline(pipeline: StableDiffusionPipeline, out: Path, card: str = "") -> None:
    """Saves a pipeline in the diffusers layout so that other programs and older versions read the same.

    transformers 4 knows the text encoder's weights with `text_model.` alone, and the slow tokenizer; a
    scheduler made from the config must not clip samples, as Stable Diffusion 1.5's own says.
    """
    from safetensors.torch import load_file, save_file

    pipeline.scheduler.register_to_config(clip_sample=False)
    with write_folder(out, needed=pipeline_bytes(pipeline)) as folder:
        with quiet():
            pipeline.save_pretrained(folder)
        file = folder / "text_encoder" / "model.safetensors"
        weights = {with_text_model(name): weight for name, weight in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})
        words = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = words["model"]["vocab"] | {one["content"]: one["id"] for one in words["added_tokens"]}
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in words["model"]["merges"]]
        _write_slow_tokenizer(folder / "tokenizer", vocabulary, merges)
        if card:
            (folder / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps diffusers and transformers from telling of every file that they load, while the block runs."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        diffusers_logging.enable_progress_bar()
        if bars:
            transformers_logging.enable_progress_bar()
