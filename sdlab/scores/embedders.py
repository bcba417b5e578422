"""What turns pictures and prompts into features: CLIP, DINO, and the pixels themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab import machine, mini
from sdlab.files import fingerprint
from sdlab.models import quiet

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

TOGETHER = 50
PIXELS = 32


@dataclass(frozen=True)
class Embedder:
    """A model that gives each picture a row of features.

    Args:
        name: Under which its figures are known: `CLIP`, `DINO`, `pixels`, or your own.
        source: A folder or hub id; for your own function what tells it from others, such as a version.
        embed: Pictures to features (n, d); None takes the transformers model at `source`. A row of NaN says
            that a picture can't be judged, such as where a face embedder finds no face.
    """

    name: str
    source: str
    embed: Callable[[Sequence[Image.Image]], np.ndarray] | None = None

    @property
    def key(self) -> str:
        """A file name that is the same for the same weights."""
        place = Path(self.source)
        if place.is_dir():
            return f"{self.name}_{fingerprint(place.glob('*.*'))}"
        return f"{self.name}_{self.source.replace('/', '--')}"

    def images(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Gives features of pictures.

        Args:
            pictures: RGB, of any size.

        Returns:
            (n, d) float32.
        """
        import numpy as np

        embed = self.embed or _loaded(self).images
        parts = [embed(pictures[start : start + TOGETHER]) for start in range(0, len(pictures), TOGETHER)]
        return np.concatenate(parts).astype(np.float32)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Gives features of prompts in the pictures' space.

        Args:
            texts: What is longer than the model reads (77 tokens) is cut.

        Returns:
            (n, d) float32.
        """
        return _loaded(self).texts(texts)

    def record(self) -> dict[str, Any]:
        """Says which weights and preprocessing it stands for.

        Returns:
            Ready for JSON.
        """
        if self.embed is not None:
            return {"name": self.name, "source": self.source}
        return {"name": self.name, **_loaded(self).record}


CLIP = Embedder("CLIP", "openai/clip-vit-base-patch32")
DINO = Embedder("DINO", "facebook/dino-vits16")


def mini_clip() -> Embedder:
    """Gives the CLIP of the mini world, which is in the package.

    Returns:
        The embedder; it knows drawn pictures and the words of their captions only.
    """
    return Embedder("CLIP", str(mini.path().with_name("clip")))


def pixels() -> Embedder:
    """Gives the picture itself, 32 × 32 pixels with each picture's mean taken off: a cosine is a correlation.

    Returns:
        The embedder. It sees copies, whoever they show, and nothing else.
    """
    return Embedder("pixels", f"{PIXELS}x{PIXELS}", _pixels)


def embedders_for(root_name: str) -> list[Embedder]:
    """Chooses the models that judge images of a base model.

    Args:
        root_name: What it was trained from in the first place, see `basemodel.BaseModel`.

    Returns:
        For `mini` its own CLIP, else CLIP ViT-B/32 and DINO ViT-S/16. There is no mini DINO: the mini CLIP
        has learned characters besides captions, which is what DINO is there for.
    """
    return [mini_clip()] if root_name == "mini" else [CLIP, DINO]


@dataclass(frozen=True)
class _Loaded:
    """A transformers model that is ready, as functions."""

    images: Callable[[Sequence[Image.Image]], np.ndarray]
    texts: Callable[[Sequence[str]], np.ndarray]
    record: dict[str, Any]


@cache
def _loaded(embedder: Embedder) -> _Loaded:
    """Loads a model once; its kind is read from its own configuration."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    place = machine.device()
    try:
        with quiet():
            config = AutoConfig.from_pretrained(embedder.source)
            processor = AutoImageProcessor.from_pretrained(embedder.source)
            clip = config.model_type == "clip"
            options = {} if clip else {"add_pooling_layer": False}
            model = AutoModel.from_pretrained(embedder.source, dtype="float32", **options).eval().to(place)
            tokenizer = AutoTokenizer.from_pretrained(embedder.source) if clip else None
    except OSError as error:
        reason = str(error.__cause__ or error).splitlines()[0][:120]
        raise OSError(
            f"The model {embedder.source} that measures {embedder.name} isn't on this machine and can't be "
            f"downloaded ({reason}). Download it where there is a network, or give embedders=[...]."
        ) from error
    local = Path(embedder.source).is_dir()
    return _Loaded(
        images=lambda pictures: _image_features(model, processor, pictures, clip),
        texts=lambda texts: _text_features(model, tokenizer, texts),
        record={
            "source": _named(embedder.source) if local else embedder.source,
            "revision": embedder.key.rsplit("_", 1)[1] if local else getattr(config, "_commit_hash", None),
            "preprocessing": _preprocessing(processor),
        },
    )


def _named(folder: str) -> str:
    """A folder without its place on this disk."""
    return "sdlab's mini CLIP" if folder == mini_clip().source else Path(folder).name


def _image_features(model: Any, processor: Any, pictures: Sequence[Image.Image], clip: bool) -> np.ndarray:
    import torch

    with torch.inference_mode():
        values = processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(model.device)
        if clip:
            found = model.get_image_features(pixel_values=values).pooler_output
        else:
            found = model(pixel_values=values).last_hidden_state[:, 0]  # the class token
    return found.float().cpu().numpy()


def _text_features(model: Any, tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        tokens = tokenizer(
            list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).to(model.device)
        found = model.get_text_features(**tokens).pooler_output
    return found.float().cpu().numpy()


def _preprocessing(processor: Any) -> dict[str, Any]:
    """What of a processor's settings changes the pixels."""
    settings = json.loads(processor.to_json_string())
    wanted = ("size", "crop_size", "do_center_crop", "resample", "image_mean", "image_std")
    return {name: settings[name] for name in wanted if name in settings}


def _pixels(pictures: Sequence[Image.Image]) -> np.ndarray:
    import numpy as np
    from PIL import Image

    small = [picture.resize((PIXELS, PIXELS), Image.Resampling.BOX) for picture in pictures]
    values = np.stack([np.asarray(picture, np.float32).ravel() for picture in small])
    return values - values.mean(axis=1, keepdims=True)
