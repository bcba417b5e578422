"""Stages `tokenizer` and `text`: the words of the mini world, and a text encoder that has read captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from recipes.mini import world

from .machine import Machine
from .progress import Progress

LENGTH = 77
"""Tokens of a prompt, as in SD 1.5."""

WIDTH = 128
TOLD = (
    *("gender", "skin", "eyes", "hair_colour", "hair_style", "glasses", "glasses_colour", "beard"),
    *("clothes", "clothes_colour", "hat", "hat_colour", "expression", "pose", "held"),
    *("framing", "style", "scene"),
)
"""Fields of a picture that captions tell, and that the text encoder learns to read out of them."""


def train_tokenizer() -> CLIPTokenizer:
    """A byte-level BPE tokenizer in which each word of the world is one token and any other text is several.

    As in SD 1.5 a token exists for each byte, inside and at the end of a word, so that no text is unknown.

    Raises:
        ValueError: a word of the vocabulary became several tokens.
    """
    words = world.vocabulary()
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(words, trainer)
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
    for word in words:
        if len(tokenizer(word).input_ids) != 3:
            raise ValueError(
                f"each word of the world must be one token, {word!r} is {tokenizer.tokenize(word)}"
            )
    return tokenizer


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIPTextModel of three layers for the tokenizer.

    Its positions begin as sinusoids (Vaswani et al. 2017, section 3.5), so that "the word before" means the
    same all along a caption: from CLIP's random positions this takes twice as many captions to learn.
    """
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    begin_with_sinusoids(text_encoder)
    return text_encoder


@torch.no_grad()
def begin_with_sinusoids(text_encoder: nn.Module) -> None:
    """Set a CLIP text encoder's position embeddings to sinusoids, and its token embeddings to their size."""
    for name, weight in text_encoder.named_parameters():
        if name.endswith("position_embedding.weight"):
            length, width = weight.shape
            angles = torch.arange(length)[:, None] * torch.logspace(0, -2, width // 2)
            weight.copy_(0.2 * torch.cat([angles.sin(), angles.cos()], dim=1))
        elif name.endswith("token_embedding.weight"):
            weight.normal_(0, 0.2)


def tokens(tokenizer: CLIPTokenizer, captions: list[str], *, full_length: bool = True) -> Tensor:
    """Token ids of captions, cut to 77 and padded to 77, or only to the longest of them."""
    padding = "max_length" if full_length else "longest"
    return tokenizer(
        captions, padding=padding, max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


class Heads(nn.Module):
    """A text encoder with throw-away heads that read a picture's fields from its caption's last token."""

    def __init__(self, text_encoder: CLIPTextModel, classes: dict[str, list[str]]) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, len(names)) for name, names in classes.items()})

    def loss(self, ids: Tensor, truth: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy over the fields; a field that the caption leaves out teaches its frequency."""
        pooled = self.text_encoder(ids).pooler_output
        losses = [F.cross_entropy(head(pooled).float(), truth[name]) for name, head in self.heads.items()]
        return torch.stack(losses).mean()


def train_text(
    folder: Path,
    tokenizer: CLIPTokenizer,
    machine: Machine,
    *,
    pictures: int,
    minutes: float,
    seed: int = 0,
    begin_with: Path | None = None,
    batch_size: int = 64,
) -> CLIPTextModel:
    """Let the text encoder read captions, so that the UNet finds words bound together from its first step.

    "a red hat, a blue shirt" must not become "a blue hat, a red shirt": the encoder learns this from captions
    alone in minutes, and from pictures in hours. As in SD 1.5 it then stays as it is.

    Args:
        folder: working folder of the stage.
        tokenizer: from `train_tokenizer`.
        machine: where it runs.
        pictures: captions are of the seeds below this.
        minutes: time to train, earlier runs included.
        seed: settles weights, captions and their order.
        begin_with: an exported text encoder to begin with; None for a new one.
        batch_size: captions in a step of one process.
    """
    torch.manual_seed(seed)
    drawn = [world.sample(s) for s in range(min(pictures, 8000))]
    classes = {name: sorted({getattr(picture, name) for picture in drawn}) for name in TOLD}
    text_encoder = CLIPTextModel.from_pretrained(begin_with) if begin_with else new_text_encoder(tokenizer)
    model = Heads(text_encoder, classes).train().to(machine.device)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    progress = Progress(folder, model, optimizer, machine, minutes=minutes, ema_decay=0.99)
    for step in progress.steps():
        rng = np.random.default_rng([seed, step, machine.rank])
        chosen = [drawn[i] for i in rng.integers(len(drawn), size=batch_size)]
        captions = [world.caption(p, int(rng.integers(2**31))) for p in chosen]
        ids = tokens(tokenizer, captions, full_length=False)  # later tokens do not change earlier ones
        truth = {
            name: torch.tensor([names.index(getattr(p, name)) for p in chosen]).to(machine.device)
            for name, names in classes.items()
        }
        with machine.autocast(), machine.attention():
            loss = model.loss(ids.to(machine.device), truth)
        progress.learn(loss)
    progress.use_average()
    return model.text_encoder.eval()
