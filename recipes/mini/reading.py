"""Stage `reader`: the classifier that later judges what was generated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from recipes.mini import world
from sdlab.mini.reader import Reader, load

from .autoencoder import as_tensor, reconstruct
from .machine import Machine
from .pictures import write_array
from .progress import Progress

UNKNOWN = -100


@dataclass(frozen=True)
class Source:
    """Pictures to read, and what is true of them.

    Args:
        pictures: uint8 (n, 128, 128, 3).
        truth: attribute -> true class of each picture, UNKNOWN where it does not show: (n,).
        share: of a batch.
    """

    pictures: np.ndarray
    truth: dict[str, np.ndarray]
    share: float = 1.0


def train_reader(
    folder: Path,
    sources: Sequence[Source],
    held_out: Source,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    begin_with: Path | None = None,
    batch_size: int = 64,
) -> Reader:
    """Train the reader on drawn pictures and, so that it reads generated ones as well, on decoded ones.

    Args:
        folder: working folder of the stage.
        sources: what a batch is made of.
        held_out: drawn pictures to measure on.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles weights and order.
        begin_with: the weights of an exported reader to begin with; None for a new one.
        batch_size: pictures in a step of one process.
    """
    torch.manual_seed(seed)
    reader = load(begin_with) if begin_with else Reader(world.ATTRIBUTES)
    reader.train().to(machine.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.02, fused=True)
    progress = Progress(folder, reader, optimizer, machine, minutes=minutes, ema_decay=0.99)
    for step in progress.steps(lambda: accuracy(reader, held_out, machine)):
        rng = np.random.default_rng([seed, step, machine.rank])
        chosen = [
            (source, rng.integers(len(source.pictures), size=math.ceil(source.share * batch_size)))
            for source in sources
        ]
        pictures = np.concatenate([source.pictures[indices] for source, indices in chosen])
        truth = {
            name: np.concatenate([source.truth[name][indices] for source, indices in chosen])
            for name in world.ATTRIBUTES
        }
        images = varied(as_tensor(pictures, machine), rng)
        progress.learn(reading_loss(reader, images, truth, machine))
    progress.use_average()
    return reader.eval()


def reading_loss(reader: Reader, images: Tensor, truth: dict[str, np.ndarray], machine: Machine) -> Tensor:
    """Sum over the attributes of the cross-entropy where the attribute shows."""
    with machine.autocast():
        logits = reader(images)
    targets = {name: torch.from_numpy(truth[name]).to(machine.device) for name in logits}
    losses = [
        F.cross_entropy(logits[name].float(), targets[name], ignore_index=UNKNOWN, reduction="sum")
        / max(1, int((targets[name] != UNKNOWN).sum()))
        for name in logits
    ]
    return torch.stack(losses).sum()


def truth_of(pictures: Iterable[world.Picture]) -> dict[str, np.ndarray]:
    """The true classes of some pictures, UNKNOWN where they do not show."""
    found = [world.labels(picture) for picture in pictures]
    return {
        name: np.array([UNKNOWN if label[name] is None else label[name] for label in found])
        for name in world.ATTRIBUTES
    }


def varied(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift by some pixels, soften some batches, add a little noise: generation does so, drawing does not."""
    dy, dx = (int(v) for v in rng.integers(-5, 6, 2))
    images = F.pad(images, (5, 5, 5, 5), mode="replicate")[..., 5 + dy : 133 + dy, 5 + dx : 133 + dx]
    if rng.random() < 0.3:
        images = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    noise = torch.from_numpy(rng.standard_normal((1, 3, *images.shape[2:]), dtype=np.float32))
    return images + float(rng.uniform(0, 0.05)) * noise.to(images.device)


@torch.no_grad()
def accuracy(reader: Reader, held_out: Source, machine: Machine) -> dict[str, float]:
    """Share of pictures read rightly, per attribute, among those where it shows."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in held_out.truth}
    for start in range(0, len(held_out.pictures), 100):
        images = as_tensor(held_out.pictures[start : start + 100], machine)
        for name, logits in reader(images).items():
            found[name].append(logits.argmax(1).cpu().numpy())
    shares = {}
    for name, truth in held_out.truth.items():
        right = (np.concatenate(found[name]) == truth)[truth != UNKNOWN]
        shares[name] = float(right.mean()) if len(right) else 0.0
    return shares


@torch.no_grad()
def decode_pictures(path: Path, vae: AutoencoderKL, pictures: np.ndarray, machine: Machine) -> np.ndarray:
    """Pictures through the autoencoder, once, as a uint8 file."""
    if machine.leads and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = []
        for start in range(0, len(pictures), 20):
            decoded = reconstruct(vae, as_tensor(pictures[start : start + 20], machine), machine)
            parts.append(((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        write_array(path, np.concatenate(parts))
    machine.wait()
    return np.load(path)
