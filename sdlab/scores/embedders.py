"""What turns pictures and prompts into features (CLIP, DINO, the pixels), computed once for each content."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from sdlab import machine, mini, thumbnails
from sdlab.files import file_sha256, fingerprint, write_bytes
from sdlab.models import quiet

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

CACHE = Path("cache_dir/features")
TOGETHER = 50  # pictures in memory at once
PIXELS = 32


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
    def cache_file(self) -> Path:
        """Where its features are kept; the same for the same weights."""
        place = Path(self.source)
        version = fingerprint(place.glob("*.*")) if place.is_dir() else self.source.replace("/", "--")
        return CACHE / f"{self.name}_{version}.npz"

    def images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Features (n, d) of RGB pictures of any size."""
        import numpy as np

        embed = self.embed or _loaded(self).images
        return np.asarray(embed(pictures), np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Features (n, d) of prompts in the pictures' space; what is longer than 77 tokens is cut."""
        return _loaded(self).texts(texts)

    def record(self) -> dict[str, Any]:
        """Which weights and preprocessing it stands for; the model isn't loaded where the cache knows it."""
        if self.embed is not None:
            return {"name": self.name, "source": self.source}
        return _read(self.cache_file)[1] or {"name": self.name, **_loaded(self).record}


CLIP = Embedder("CLIP", "openai/clip-vit-base-patch32")
DINO = Embedder("DINO", "facebook/dino-vits16")


def mini_clip() -> Embedder:
    """The CLIP of the mini world, which knows drawn pictures and the words of their captions only."""
    return Embedder("CLIP", str(mini.path().with_name("clip")))


def pixels() -> Embedder:
    """The picture itself, 32 × 32, each picture's mean taken off: a cosine is a correlation, 1 is a copy."""
    return Embedder("pixels", f"{PIXELS}x{PIXELS}", _pixels)


def image_features(embedder: Embedder, files: Sequence[Path]) -> np.ndarray:
    """Features (n, d) of image files; those of a content that was seen before come from the cache."""

    def compute(some: Sequence[int]) -> np.ndarray:
        return embedder.images([thumbnails.opened(files[index]) for index in some])

    return _cached(embedder, [file_sha256(file) for file in files], compute)


def text_features(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Features (n, d) of prompts, from the cache where they are there."""
    keys = [hashlib.sha256(b"text:" + text.encode()).hexdigest() for text in texts]
    return _cached(embedder, keys, lambda some: embedder.texts([texts[index] for index in some]))


def _cached(
    embedder: Embedder, keys: Sequence[str], compute: Callable[[Sequence[int]], np.ndarray]
) -> np.ndarray:
    """The features of all keys; `compute` is given the indices of those that aren't in the cache."""
    import numpy as np

    path = embedder.cache_file
    known, _ = _read(path)
    missing = {key: index for index, key in enumerate(keys) if key not in known}
    if missing:
        indices = list(missing.values())
        parts = [compute(indices[start : start + TOGETHER]) for start in range(0, len(indices), TOGETHER)]
        known |= dict(zip(missing, np.concatenate(parts), strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            _write(path, _read(path)[0] | known, embedder.record())  # others may have added theirs meanwhile
    return np.stack([known[key] for key in keys])


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import numpy as np

    if not path.is_file():
        return {}, {}
    with np.load(path) as file:
        features = dict(zip(file["keys"].tolist(), file["features"], strict=True))
        return features, json.loads(str(file["record"]))


def _write(path: Path, features: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    import numpy as np

    data, rows = io.BytesIO(), np.stack(list(features.values()))
    np.savez(data, keys=np.array(list(features)), features=rows, record=np.array(json.dumps(record)))
    write_bytes(path, data.getvalue())


class _Loaded(NamedTuple):
    """A transformers model with what prepares its inputs."""

    model: Any
    processor: Any
    tokenizer: Any
    record: dict[str, Any]

    def images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            values = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]
            if self.tokenizer is None:
                found = self.model(pixel_values=values.to(self.model.device)).last_hidden_state[:, 0]
            else:
                found = self.model.get_image_features(pixel_values=values.to(self.model.device)).pooler_output
        return found.float().cpu().numpy()

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        options = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
        with torch.inference_mode():
            tokens = self.tokenizer(list(texts), **options).to(self.model.device)
            found = self.model.get_text_features(**tokens).pooler_output
        return found.float().cpu().numpy()


@cache
def _loaded(embedder: Embedder) -> _Loaded:
    """Loads a model once; its kind is read from its own configuration."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    source = embedder.source
    try:
        with quiet():
            config = AutoConfig.from_pretrained(source)
            processor = AutoImageProcessor.from_pretrained(source)
            clip = config.model_type == "clip"
            options = {} if clip else {"add_pooling_layer": False}
            model = AutoModel.from_pretrained(source, dtype="float32", **options).eval()
            tokenizer = AutoTokenizer.from_pretrained(source) if clip else None
    except OSError as error:
        reason = str(error.__cause__ or error).splitlines()[0][:120]
        raise OSError(
            f"The model {source} that measures {embedder.name} isn't on this machine and can't be "
            f"downloaded ({reason}). Download it where there is a network, or give embedders=[...]."
        ) from error
    record = _record(embedder, config, json.loads(processor.to_json_string()))
    return _Loaded(model.to(machine.device()), processor, tokenizer, record)


def _record(embedder: Embedder, config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Source, revision, and the processor's settings that change the pixels."""
    source, revision = embedder.source, getattr(config, "_commit_hash", None)
    if Path(source).is_dir():  # named without its place on this disk
        source = "sdlab's mini CLIP" if source == mini_clip().source else Path(source).name
        revision = embedder.cache_file.stem.rsplit("_", 1)[1]
    wanted = ("size", "crop_size", "do_center_crop", "resample", "image_mean", "image_std")
    preprocessing = {name: settings[name] for name in wanted if name in settings}
    return {"source": source, "revision": revision, "preprocessing": preprocessing}


def _pixels(pictures: Sequence[Image.Image]) -> np.ndarray:
    import numpy as np
    from PIL import Image

    small = [picture.resize((PIXELS, PIXELS), Image.Resampling.BOX) for picture in pictures]
    values = np.stack([np.asarray(picture, np.float32).ravel() for picture in small])
    return values - values.mean(axis=1, keepdims=True)
