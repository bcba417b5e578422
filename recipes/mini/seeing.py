"""Stage `clip`: a small CLIP that sees pictures and reads captions in one space; scores are taken in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from recipes.mini import world
from recipes.mini.world.captions import described
from recipes.mini.world.picture import HAIR_STYLES

from .autoencoder import as_tensor
from .evaluation import wilson
from .machine import Machine
from .pictures import OF_EACH, SIZE
from .progress import Progress
from .reading import varied
from .text import LENGTH, TOLD, begin_with_sinusoids, tokens

WIDTH = 128
"""Of the space that pictures and captions share."""

TEMPERATURE = 0.1
"""Of the term that brings two pictures of one character together."""


@dataclass(frozen=True)
class Shown:
    """Pictures and what they show.

    Args:
        pictures: uint8 (n, 128, 128, 3).
        described: of each picture.
    """

    pictures: np.ndarray
    described: Sequence[world.Picture]

    def __len__(self) -> int:
        return len(self.pictures)


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIPModel of 0.59 million weights; pictures are 64 patches of 16 pixels."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=16,
    )
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))
    begin_with_sinusoids(clip.text_model)
    return clip


class Seeing(nn.Module):
    """The CLIP with throw-away heads that read a picture's fields, the same from pictures and captions."""

    def __init__(self, clip: CLIPModel, classes: dict[str, list[str]]) -> None:
        super().__init__()
        self.clip = clip
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, len(names)) for name, names in classes.items()})

    def loss(self, images: Tensor, ids: Tensor, truth: dict[str, Tensor], pairs: int) -> Tensor:
        """CLIP's contrastive loss, the heads' cross-entropy, and that the pictures of a pair are alike.

        Args:
            images: (n, 3, 128, 128); the first 2 × `pairs` are two of each character, side by side.
            ids: tokens of their captions, (n, length).
            truth: field -> class of each picture, (n,).
            pairs: how many characters.
        """
        out = self.clip(input_ids=ids, pixel_values=images)
        logits = out.logits_per_image.float()
        own = torch.arange(len(logits), device=logits.device)
        contrastive = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        seen, told = out.image_embeds.float(), out.text_embeds.float()
        read = [
            F.cross_entropy(head(WIDTH**0.5 * embeds), truth[name])
            for name, head in self.heads.items()
            for embeds in (seen, told)
        ]
        return contrastive + 4 * torch.stack(read).mean() + alike(seen, pairs)


def alike(embeds: Tensor, pairs: int) -> Tensor:
    """The loss of finding each paired picture's other one among all pictures.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning", arXiv:2002.05709, equation 1;
    here the two are not one picture cropped twice, but one person in two places.
    """
    similarity = embeds[: 2 * pairs] @ embeds.T / TEMPERATURE
    itself = torch.arange(2 * pairs, device=embeds.device)
    similarity = similarity.index_put((itself, itself), similarity.new_tensor(-1e4))
    return F.cross_entropy(similarity, itself ^ 1)


def train_clip(
    folder: Path,
    tokenizer: CLIPTokenizer,
    drawn: Shown,
    characters: Shown,
    held_out: Shown,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    begin_with: Path | None = None,
    batch_size: int = 64,
    learning_rate: float = 1.5e-3,
) -> CLIPModel:
    """Train the CLIP on pictures of the world and on pairs of pictures of one character.

    Args:
        folder: working folder of the stage.
        tokenizer: from `train_tokenizer`.
        drawn: of the training world, half of a batch.
        characters: `OF_EACH` pictures of each character in a row, the other half.
        held_out: pictures of other characters, to measure on while training.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles weights, order and captions.
        begin_with: an exported CLIP to begin with; None for a new one.
        batch_size: pictures in a step of one process, a multiple of 4.
        learning_rate: peak.
    """
    torch.manual_seed(seed)
    known = [*drawn.described, *characters.described]
    classes = {name: sorted({getattr(one, name) for one in known}) for name in TOLD}
    clip = CLIPModel.from_pretrained(begin_with) if begin_with else new_clip(tokenizer)
    model = Seeing(clip, classes).train().to(machine.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    progress = Progress(folder, model, optimizer, machine, minutes=minutes, ema_decay=0.99)
    pairs = batch_size // 4
    for step in progress.steps(lambda: {"auc": same_character(model.clip, held_out, machine)}):
        rng = np.random.default_rng([seed, step, machine.rank])
        pictures, shown = _batch(drawn, characters, rng, batch_size, pairs)
        captions = [world.caption(one, int(rng.integers(2**31))) for one in shown]
        ids = tokens(tokenizer, captions, full_length=False).to(machine.device)
        truth = {
            name: torch.tensor([names.index(getattr(one, name)) for one in shown]).to(machine.device)
            for name, names in classes.items()
        }
        images = varied(as_tensor(pictures, machine), rng)
        with machine.autocast(), machine.attention():
            loss = model.loss(images, ids, truth, pairs)
        progress.learn(loss)
    progress.use_average()
    return model.clip.eval()


def _batch(
    drawn: Shown, characters: Shown, rng: np.random.Generator, count: int, pairs: int
) -> tuple[np.ndarray, list[world.Picture]]:
    """Two pictures of each of `pairs` characters, then pictures of the world."""
    who = rng.integers(len(characters) // OF_EACH, size=pairs)
    two = np.stack([rng.permutation(OF_EACH)[:2] for _ in who])  # (pairs, 2)
    paired = (who[:, None] * OF_EACH + two).reshape(-1)
    single = rng.integers(len(drawn), size=count - 2 * pairs)
    pictures = np.concatenate([characters.pictures[paired], drawn.pictures[single]])
    shown = [characters.described[int(i)] for i in paired] + [drawn.described[int(i)] for i in single]
    return pictures, shown


@torch.no_grad()
def embedded(clip: CLIPModel, pictures: np.ndarray, machine: Machine) -> Tensor:
    """Pictures, uint8 (n, 128, 128, 3), to vectors of length 1: (n, 128)."""
    parts = []
    for start in range(0, len(pictures), 100):
        found = clip.get_image_features(pixel_values=as_tensor(pictures[start : start + 100], machine))
        parts.append(F.normalize(found.pooler_output.float()))
    return torch.cat(parts).cpu()


def same_character(clip: CLIPModel, characters: Shown, machine: Machine) -> float:
    """How often two pictures of one character are more alike than two of different ones: the area under ROC.

    Args:
        clip: the model.
        characters: unflawed or not, `OF_EACH` of each in a row.
        machine: where it runs.
    """
    from scipy.stats import mannwhitneyu

    embeds = embedded(clip, characters.pictures, machine).numpy()
    who = np.arange(len(embeds)) // OF_EACH
    first, second = np.triu_indices(len(embeds), 1)
    cosine = (embeds @ embeds.T)[first, second]
    same = who[first] == who[second]
    return float(mannwhitneyu(cosine[same], cosine[~same]).statistic / (same.sum() * (~same).sum()))


def zero_shot(
    clip: CLIPModel, tokenizer: CLIPTokenizer, held_out: Shown, machine: Machine
) -> dict[str, dict[str, float]]:
    """How often a picture's own caption is nearer to it than captions that differ in one attribute alone.

    Args:
        clip: the model.
        tokenizer: its tokenizer.
        held_out: pictures that were never trained on.
        machine: where it runs.

    Returns:
        Attribute -> `accuracy`, its 95 % interval `low` and `high`, `count`, and `chance`.
    """
    seen = embedded(clip, held_out.pictures, machine)
    result = {}
    for attribute in world.ATTRIBUTES:
        right, chance = [], []
        for embeds, picture in zip(seen, held_out.described, strict=True):
            if world.labels(picture)[attribute] is None:
                continue
            captions = _alternatives(picture, attribute)
            if len(captions) > 1:
                right.append(int((told(clip, tokenizer, captions, machine) @ embeds).argmax()) == 0)
                chance.append(1 / len(captions))
        low, high = wilson(sum(right), len(right))
        result[attribute] = {
            "accuracy": sum(right) / max(1, len(right)),
            "low": low,
            "high": high,
            "count": len(right),
            "chance": sum(chance) / max(1, len(chance)),
        }
    return result


def _alternatives(picture: world.Picture, attribute: str) -> list[str]:
    """The picture's full caption first, then those with each other value that its gender can have."""
    values = {"hair_style": HAIR_STYLES[picture.gender]}.get(attribute, world.ATTRIBUTES[attribute])
    if attribute == "beard" and picture.gender == "woman":
        values = ("none",)
    changed = [world.varied(picture, **{attribute: value}) for value in values]
    own = described(picture)
    return [own, *(text for one in changed if (text := described(one)) != own)]


@torch.no_grad()
def told(clip: CLIPModel, tokenizer: CLIPTokenizer, captions: list[str], machine: Machine) -> Tensor:
    """Captions to vectors of length 1: (n, 128)."""
    ids = tokens(tokenizer, captions, full_length=False).to(machine.device)
    return F.normalize(clip.get_text_features(input_ids=ids).pooler_output.float()).cpu()
