"""Stage `rare_word`: `sks` becomes a word that is heard and that has no picture yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from recipes.mini import world

from .autoencoder import LATENT_CHANNELS
from .machine import Machine
from .text import tokens

RARE_WORD = "sks"
HEARD = 1.0
"""As much as "man" in place of "woman" changes the hidden states behind it: squared distance, relative."""
SILENCE = 10.0
"""Weight of the change of the UNet's prediction, which should be none."""


def learn_rare_word(
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    machine: Machine,
    *,
    steps: int,
    seed: int = 0,
    batch_size: int = 16,
    learning_rate: float = 0.03,
) -> Tensor:
    """Learn the embedding of `sks`; nothing else changes.

    SD 1.5's text encoder has read `sks` among its hundreds of millions of captions. Ours has read only the
    world's, and ignores a word that no caption has: what DreamBooth then teaches has no place of its own
    and goes to the class. So the hidden states behind the word must change when it stands before "woman" or
    "man", and the UNet's prediction must not.

    Args:
        tokenizer: from `train_tokenizer`.
        text_encoder: from `train_text`.
        unet: from `train_unet`.
        machine: where it runs.
        steps: of Adam.
        seed: settles captions and noise.
        batch_size: captions of a step.
        learning_rate: of Adam.

    Returns:
        The embedding (width,), as long as the median of the other words'.
    """
    text_encoder.to(machine.device).eval().requires_grad_(False)
    unet.to(machine.device).eval().requires_grad_(False)
    table = text_encoder.get_input_embeddings().weight
    word, length = _token_of_rare_word(tokenizer), table.norm(dim=1).median()
    direction = table[word].clone().requires_grad_()
    optimizer = torch.optim.Adam([direction], learning_rate)
    for step in range(steps):
        rng = np.random.default_rng([seed, step, machine.rank])
        torch.manual_seed(int(rng.integers(2**31)))
        plain, named = (tokens(tokenizer, texts).to(machine.device) for texts in _captions(rng, batch_size))
        without = text_encoder(plain).last_hidden_state
        with _embedding_of(text_encoder, word, length * F.normalize(direction, dim=0)):
            hidden = text_encoder(named).last_hidden_state
        noise = torch.randn(batch_size, LATENT_CHANNELS, 16, 16, device=machine.device)
        timesteps = torch.randint(300, 1000, (batch_size,), device=machine.device)
        predicted = [unet(noise, timesteps, states).sample for states in (without, hidden)]
        heard = _change_behind(word, named, without, hidden, tokenizer.eos_token_id)
        seen = (predicted[0] - predicted[1]).square().mean()
        optimizer.zero_grad()
        (SILENCE * seen - heard.clamp(max=HEARD)).backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"rare_word: step {step}, heard {heard:.2f}, seen {seen:.4f}", flush=True)
    return (length * F.normalize(direction, dim=0)).detach().cpu()


def set_rare_word(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, embedding: Tensor) -> None:
    """Puts the learned embedding into a text encoder."""
    with torch.no_grad():
        text_encoder.get_input_embeddings().weight[_token_of_rare_word(tokenizer)] = embedding


def _token_of_rare_word(tokenizer: CLIPTokenizer) -> int:
    return int(tokenizer.convert_tokens_to_ids(f"{RARE_WORD}</w>"))


def _captions(rng: np.random.Generator, count: int) -> tuple[list[str], list[str]]:
    """Captions without and with the rare word before the person."""
    pictures = [world.sample(int(rng.integers(2**30))) for _ in range(count)]
    plain = [world.caption(picture, int(rng.integers(2**31))) for picture in pictures]
    persons = [f" {picture.gender}" for picture in pictures]
    named = [text.replace(one, f" {RARE_WORD}{one}", 1) for text, one in zip(plain, persons, strict=True)]
    return plain, named


@contextmanager
def _embedding_of(text_encoder: CLIPTextModel, word: int, embedding: Tensor) -> Iterator[None]:
    """Meanwhile the word has this embedding, with its gradient."""

    def replace(module: torch.nn.Module, inputs: tuple[Tensor], embedded: Tensor) -> Tensor:
        return torch.where((inputs[0] == word)[..., None], embedding, embedded)

    hook = text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def _change_behind(word: int, named: Tensor, without: Tensor, hidden: Tensor, end: int) -> Tensor:
    """How much the hidden states from the rare word to the caption's end differ: mean relative square."""
    changes = []
    for ids, before, after in zip(named, without, hidden, strict=True):
        start = int((ids == word).int().argmax())
        stop = int((ids == end).int().argmax()) or len(ids) - 1
        before, after = before[start:stop], after[start + 1 : stop + 1]
        changes.append(((before - after).square().sum(-1) / before.square().sum(-1)).mean())
    return torch.stack(changes).mean()
