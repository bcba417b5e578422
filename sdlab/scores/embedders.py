"""What turns pictures and prompts into features (CLIP, DINO, the pixels), computed once for each content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from safetensors.numpy import load_file, save

from sdlab import machine, mini, thumbnails
from sdlab.files import file_sha256, fingerprint, write_bytes
from sdlab.models import quiet
from sdlab.photos.faces import SFACE, WEIGHTS_FOLDER, YUNET, face_features, face_weights

if TYPE_CHECKING:
    from PIL import Image

CACHE = Path("cache_dir/features")
TOGETHER = 50  # pictures in memory at once
PIXELS = 32
PREPROCESSING = ("size", "crop_size", "do_center_crop", "resample", "image_mean", "image_std")


@dataclass(frozen=True)
class Embedder:
    """A model that gives each picture a row of features.

    Args:
        name: Under which its figures are known: `CLIP`, `DINO`, `face`, `pixels`, or your own.
        source: A folder or hub id; for your own function what tells it from others, such as a version.
        embed: Pictures to features (n, d); None takes the transformers model at `source`. A row of NaN says
            that a picture can't be judged, such as where a face embedder finds no face.
    """

    name: str
    source: str
    embed: Callable[[Sequence[Image.Image]], np.ndarray] | None = None

    @property
    def version(self) -> str:
        """The same for the same weights."""
        place = Path(self.source)
        return fingerprint(place.glob("*.*")) if place.is_dir() else self.source.replace("/", "--")

    def images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Features (n, d) of RGB pictures of any size."""
        if self.embed is not None:
            return np.asarray(self.embed(pictures), np.float32)
        import torch

        model, processor, tokenizer = _loaded(self)
        values = processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(model.device)
        with torch.inference_mode():
            if tokenizer is None:
                found = model(pixel_values=values).last_hidden_state[:, 0]
            else:
                found = model.get_image_features(pixel_values=values).pooler_output
        return np.asarray(found.float().cpu())

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Features (n, d) of prompts in the pictures' space; what is longer than 77 tokens is cut."""
        import torch

        model, _, tokenizer = _loaded(self)
        options = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
        with torch.inference_mode():
            found = model.get_text_features(**tokenizer(list(texts), **options).to(model.device))
        return np.asarray(found.pooler_output.float().cpu())

    def record(self) -> dict[str, Any]:
        """Which weights and preprocessing it stands for, without the model being loaded."""
        if self.embed is not None:
            return {"name": self.name, "source": self.source}
        from huggingface_hub import try_to_load_from_cache

        source, file = self.source, Path(self.source) / "preprocessor_config.json"
        if file.parent.is_dir():  # it is named without its place on this disk
            source, revision = "sdlab's mini CLIP" if self == mini_clip() else file.parent.name, self.version
        else:
            file = Path(str(try_to_load_from_cache(source, file.name)))
            revision = file.parent.name
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        preprocessing = {name: settings[name] for name in PREPROCESSING if name in settings}
        return {"name": self.name, "source": source, "revision": revision, "preprocessing": preprocessing}


CLIP = Embedder("CLIP", "openai/clip-vit-base-patch32")
DINO = Embedder("DINO", "facebook/dino-vits16")


def mini_clip() -> Embedder:
    """The CLIP of the mini world, which knows drawn pictures and the words of their captions only."""
    return Embedder("CLIP", str(mini.path().with_name("clip")))


def pixels() -> Embedder:
    """The picture itself, 32 × 32, each picture's mean taken off: a cosine is a correlation, 1 is a copy."""
    return Embedder("pixels", f"{PIXELS}x{PIXELS}", _pixels)


def face_embedder() -> Embedder | None:
    """SFace, where its weights (37 MB) are here or can be downloaded; else None, and one line says so."""
    yunet, sface = face_weights(YUNET), face_weights(SFACE)
    if yunet is None or sface is None:
        print(
            f"face: not measured, since SFace's weights ({SFACE}, 37 MB) can't be downloaded now; "
            f"score again when online, or put the file into {WEIGHTS_FOLDER.as_posix()}"
        )
        return None
    return Embedder("face", "sface_2021dec", partial(face_features, yunet=yunet, sface=sface))


def image_features(embedder: Embedder, files: Sequence[Path]) -> np.ndarray:
    """Features (n, d) of image files; those of a content that was seen before come from the cache."""
    keys = [file_sha256(file) for file in files]
    return _cached(embedder, keys, files, lambda some: embedder.images([thumbnails.opened(f) for f in some]))


def text_features(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Features (n, d) of prompts, from the cache where they are there."""
    keys = [hashlib.sha256(b"text:" + text.encode()).hexdigest() for text in texts]
    return _cached(embedder, keys, texts, embedder.texts)


def _cached(
    embedder: Embedder, keys: Sequence[str], items: Sequence[Any], embed: Callable[[list[Any]], np.ndarray]
) -> np.ndarray:
    """The features of all items, `embed` being given those whose key isn't in the cache."""
    path = CACHE / f"{embedder.name}_{embedder.version}.safetensors"
    known = load_file(path) if path.is_file() else {}
    missing = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
    if missing:
        new = list(missing.values())
        parts = [embed(new[start : start + TOGETHER]) for start in range(0, len(new), TOGETHER)]
        known |= dict(zip(missing, np.concatenate(parts), strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # others may have added theirs meanwhile
            write_bytes(path, save((load_file(path) if path.is_file() else {}) | known))
    return np.stack([known[key] for key in keys])


@cache
def _loaded(embedder: Embedder) -> tuple[Any, Any, Any]:
    """Model, image processor and tokenizer; its kind is read from its own configuration."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    source = embedder.source
    try:
        with quiet():
            clip = AutoConfig.from_pretrained(source).model_type == "clip"
            processor = AutoImageProcessor.from_pretrained(source)
            options = {} if clip else {"add_pooling_layer": False}
            model = AutoModel.from_pretrained(source, dtype="float32", **options).eval()
            tokenizer = AutoTokenizer.from_pretrained(source) if clip else None
    except OSError as error:
        reason = str(error.__cause__ or error).splitlines()[0][:120]
        raise OSError(
            f"The model {source} that measures {embedder.name} isn't on this machine and can't be "
            f"downloaded ({reason}). Download it where there is a network, or give embedders=[...]."
        ) from error
    return model.to(machine.device()), processor, tokenizer


def _pixels(pictures: Sequence[Image.Image]) -> np.ndarray:
    from PIL import Image

    small = [picture.resize((PIXELS, PIXELS), Image.Resampling.BOX) for picture in pictures]
    values = np.stack([np.asarray(picture, np.float32).ravel() for picture in small])
    return values - values.mean(axis=1, keepdims=True)
