"""The reader: a small classifier that says what a picture of the mini world shows, and how alike two are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

SIZE = 128
FEATURES = 128
TOGETHER = 64


class Reader(nn.Module):
    """A convolutional network with one linear head per attribute.

    Args:
        attributes: Attribute -> its classes.
    """

    def __init__(self, attributes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_layer(3, 24, stride=2),  # (n, 24, 64, 64)
            *_layer(24, 48, stride=2),  # (n, 48, 32, 32)
            *_layer(48, 48),
            *_layer(48, 96, stride=2),  # (n, 96, 16, 16)
            *_layer(96, 96),
            *_layer(96, 128, stride=2),  # (n, 128, 8, 8)
            *_layer(128, 128),
        )
        self.features = nn.Linear(256, FEATURES)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(FEATURES, len(classes)) for name, classes in attributes.items()}
        )

    def embed(self, images: Tensor) -> Tensor:
        """Images (n, 3, 128, 128) from -1 to 1 to features (n, 128)."""
        maps = self.body(images)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        return self.features(pooled)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The logits of each attribute, (n, classes)."""
        features = F.relu(self.embed(images))
        return {name: head(features) for name, head in self.heads.items()}


def weights_path() -> Path:
    """The embedded weights of the reader."""
    return Path(__file__).parent / "weights" / "reader" / "reader.safetensors"


@cache
def attributes() -> dict[str, list[str]]:
    """What the embedded reader tells apart: attribute -> its classes, in the order of its answers."""
    return dict(_description()["attributes"])


@cache
def subjects() -> dict[str, dict[str, str]]:
    """The persons that the course teaches: "woman" and "man" -> `name` and the class of attributes."""
    return dict(_description()["subjects"])


def load(path: Path | None = None) -> Reader:
    """The trained reader, in float32.

    Args:
        path: a safetensors file; None for the embedded weights.

    Raises:
        FileNotFoundError: the weights are not there.
    """
    from safetensors.torch import load_file

    path = path or weights_path()
    if not path.is_file():
        raise FileNotFoundError(
            f"the reader's weights must be at {path}, and are not. Train them with `python -m recipes.mini`."
        )
    reader = Reader(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["attributes"])
    reader.load_state_dict(
        {name: v.float() if v.is_floating_point() else v for name, v in load_file(path).items()}
    )
    return reader.eval()


def probabilities(images: Sequence[Image.Image], reader: Reader | None = None) -> dict[str, np.ndarray]:
    """How probable each class of each attribute is, per image.

    Args:
        images: pictures of the mini world, of any size.
        reader: a loaded reader; None for the embedded one.

    Returns:
        Attribute -> (n, classes), in the order of `attributes()`.
    """
    reader = reader or _embedded()
    found: dict[str, list[np.ndarray]] = {name: [] for name in reader.heads}
    with torch.no_grad():
        for start in range(0, len(images), TOGETHER):
            for name, logits in reader(_batch(images[start : start + TOGETHER])).items():
                found[name].append(logits.softmax(dim=1).numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def read(images: Sequence[Image.Image], reader: Reader | None = None) -> dict[str, np.ndarray]:
    """The most probable class of each attribute, as an index into `attributes()`: attribute -> (n,).

    Args:
        images: pictures of the mini world, of any size.
        reader: a loaded reader; None for the embedded one.
    """
    return {name: p.argmax(axis=1) for name, p in probabilities(images, reader).items()}


def features(images: Sequence[Image.Image], reader: Reader | None = None) -> np.ndarray:
    """What the reader sees in each image, as a vector of length 1; the cosine of two says how alike they are.

    Args:
        images: pictures of the mini world, of any size.
        reader: a loaded reader; None for the embedded one.

    Returns:
        (n, 128) float32.
    """
    reader = reader or _embedded()
    with torch.no_grad():
        parts = [
            F.normalize(reader.embed(_batch(images[start : start + TOGETHER]))).numpy()
            for start in range(0, len(images), TOGETHER)
        ]
    return np.concatenate(parts)


def _description() -> dict[str, Any]:
    description: dict[str, Any] = json.loads(weights_path().with_suffix(".json").read_text(encoding="utf-8"))
    return description


@cache
def _embedded() -> Reader:
    return load()


def _layer(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


def _batch(images: Sequence[Image.Image]) -> Tensor:
    """PIL images to (n, 3, 128, 128) from -1 to 1."""
    arrays = [
        np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for image in images
    ]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
