"""Stage `reader`: the classifier that later judges what was generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from sdlab.mini import world
from sdlab.mini.reader import Reader

from .autoencoder import as_tensor, reconstruct
from .machine import Machine
from .pictures import write_array
from .progress import Progress

UNKNOWN = -100


def train_reader(
    folder: Path,
    pictures: np.ndarray,
    decoded: np.ndarray,
    held_out: np.ndarray,
    held_out_seed: int,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    batch_size: int = 64,
) -> Reader:
    """Train the reader on drawn pictures and, so that it reads generated ones as well, on decoded ones.

    Args:
        folder: working folder of the stage.
        pictures: drawn pictures of the seeds 0, 1, …, uint8 (n, 128, 128, 3).
        decoded: the first of them through the autoencoder; a third of each batch.
        held_out: drawn pictures of the seeds from `held_out_seed` on.
        held_out_seed: see above.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles weights and order.
        batch_size: pictures in a step of one process.
    """
    torch.manual_seed(seed)
    truth = labels_of(range(len(pictures)))
    held_out_truth = labels_of(range(held_out_seed, held_out_seed + len(held_out)))
    reader = Reader().to(machine.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.02, fused=True)

    def evaluate() -> dict[str, float]:
        return accuracy(reader, held_out, held_out_truth, machine)

    progress = Progress(folder, reader, optimizer, machine, minutes=minutes, ema_decay=0.99)
    for step in progress.steps(evaluate):
        rng = np.random.default_rng([seed, step, machine.rank])
        from_decoder = rng.integers(len(decoded), size=batch_size // 3)
        chosen = rng.integers(len(pictures), size=batch_size - len(from_decoder))
        batch = np.concatenate([decoded[from_decoder], pictures[chosen]])
        images = varied(as_tensor(batch, machine), rng)
        indices = np.concatenate([from_decoder, chosen])
        progress.learn(reading_loss(reader, images, truth, indices, machine))
    progress.use_average()
    return reader.eval()


def reading_loss(
    reader: Reader, images: Tensor, truth: dict[str, np.ndarray], indices: np.ndarray, machine: Machine
) -> Tensor:
    """Sum over the attributes of the cross-entropy where the attribute shows."""
    with machine.autocast():
        logits = reader(images)
    targets = {name: torch.from_numpy(truth[name][indices]).to(machine.device) for name in logits}
    losses = [
        F.cross_entropy(logits[name].float(), targets[name], ignore_index=UNKNOWN, reduction="sum")
        / max(1, int((targets[name] != UNKNOWN).sum()))
        for name in logits
    ]
    return torch.stack(losses).sum()


def labels_of(seeds: range) -> dict[str, np.ndarray]:
    """The true classes of the pictures of some seeds, UNKNOWN where they do not show."""
    found = [world.labels(world.sample(seed)) for seed in seeds]
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
def accuracy(
    reader: Reader, pictures: np.ndarray, truth: dict[str, np.ndarray], machine: Machine
) -> dict[str, float]:
    """Share of pictures read rightly, per attribute, among those where it shows."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in truth}
    for start in range(0, len(pictures), 100):
        for name, logits in reader(as_tensor(pictures[start : start + 100], machine)).items():
            found[name].append(logits.argmax(1).cpu().numpy())
    read = {name: np.concatenate(parts) for name, parts in found.items()}
    return {
        name: float((read[name] == truth[name])[truth[name] != UNKNOWN].mean()) if len(truth[name]) else 0.0
        for name in truth
    }


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
