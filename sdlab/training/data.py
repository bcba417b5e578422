"""What a training step reads: latents, prompt embeddings, and randomness that the step alone decides.

Order, noise, timesteps and the latents' sample of a step come from generators that are seeded with
(seed, step, stream). There is no state to store: a run that is killed and continued draws what it would
have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from sdlab.training import processes
from sdlab.training.latents import Source, on_device


def generator(seed: int, step: int, stream: str) -> torch.Generator:
    """Gives the random numbers of one step for one purpose, on the CPU so that all devices draw the same."""
    digest = hashlib.sha256(f"{seed}/{step}/{stream}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:4], "little"))


def order(count: int, batch_size: int, step: int, seed: int, stream: str) -> list[int]:
    """Chooses the images of a step: each epoch has each image once, in an order of its own."""
    chosen = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, count)
        shuffled = torch.randperm(count, generator=generator(seed, epoch, f"order of {stream}"))
        chosen.append(int(shuffled[place]))
    return chosen


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads; the instance images come first, then as many class images.

    Args:
        latents: (batch, channels, height / 8, width / 8).
        noise: The same shape.
        timesteps: (batch,), 0 to 999.
        images: For each source, which of its images.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    images: list[list[int]]


def draw_batch(
    sources: Sequence[Source],
    batch_size: int,
    step: int,
    seed: int,
    num_timesteps: int,
    *,
    noise_offset: float = 0.0,
) -> Batch:
    """Draws the batch of one step, or with gradient accumulation the batch of that number.

    Args:
        sources: The instance images, and with prior preservation the class images.
        batch_size: Images from each source.
        step: Counted from 0.
        noise_offset: Shifts each channel's noise as a whole by this times a random number.

    Source:
        N. Guttenberg, "Diffusion with offset noise", 2023 (noise_offset).
    """
    names = ("instance", "class")[: len(sources)]
    images = [
        order(len(source), batch_size, step, seed, name) for name, source in zip(names, sources, strict=True)
    ]
    latents = torch.cat(
        [
            source.sample(chosen, generator(seed, step, f"latents of {name}"))
            for name, source, chosen in zip(names, sources, images, strict=True)
        ]
    )
    noise = torch.randn(latents.shape, generator=generator(seed, step, "noise"))
    if noise_offset:
        shift = torch.randn(*latents.shape[:2], 1, 1, generator=generator(seed, step, "noise offset"))
        noise = noise + noise_offset * shift
    timesteps = torch.randint(num_timesteps, (len(latents),), generator=generator(seed, step, "timesteps"))
    device = latents.device
    return Batch(latents, on_device(noise, device), on_device(timesteps, device), images)


def share(batch: Batch, batch_size: int) -> Batch:
    """Gives this process's share of a batch: of each source's images every COUNT-th."""
    if processes.COUNT == 1:
        return batch
    own = range(processes.RANK, batch_size, processes.COUNT)
    rows = [source * batch_size + place for source in range(len(batch.images)) for place in own]
    images = [[chosen[place] for place in own] for chosen in batch.images]
    return Batch(batch.latents[rows], batch.noise[rows], batch.timesteps[rows], images)


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str], device: torch.device) -> torch.Tensor:
    """Gives the prompts' token ids, (prompts, 77); longer prompts are cut, as diffusers does."""
    length = tokenizer.model_max_length
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids.to(device)


def prompts_of_images(
    files: Sequence[Sequence[Path]], prompts: Sequence[str], captions: Mapping[str, str]
) -> tuple[list[str], list[list[int]]]:
    """Gives each image its text: its own caption, or else the prompt of its source.

    Args:
        files: The instance images, and with prior preservation the class images.
        prompts: One for each source.
        captions: File names of instance images to captions.

    Returns:
        All different texts, and for each source which of them each of its images has.
    """
    instance = [captions.get(file.name, prompts[0]) for file in files[0]]
    others = ([prompt] * len(group) for prompt, group in zip(prompts[1:], files[1:], strict=True))
    wanted = [instance, *others]
    texts = list(dict.fromkeys(text for group in wanted for text in group))
    return texts, [[texts.index(text) for text in group] for group in wanted]


class Prompts:
    """The training prompts' embeddings: computed once where the text encoder is frozen, else in each step.

    Args:
        text_encoder: The base model's.
        input_ids: From `tokenize`, (prompts, 77).
        of_image: For each source, which of the prompts each of its images has.
        trained: Whether the text encoder is trained.
    """

    def __init__(
        self,
        text_encoder: CLIPTextModel,
        input_ids: torch.Tensor,
        of_image: Sequence[Sequence[int]],
        *,
        trained: bool,
    ) -> None:
        self._text_encoder, self._input_ids, self._of_image = text_encoder, input_ids, of_image
        self._cached: torch.Tensor | None = None
        if not trained:
            self.freeze()

    @torch.no_grad()
    def freeze(self) -> None:
        """Encodes all prompts once; the text encoder isn't trained any more."""
        was_training = self._text_encoder.training
        self._text_encoder.eval()  # without a LoRA's dropout
        self._cached = self._text_encoder(self._input_ids)[0]
        self._text_encoder.train(was_training)

    def embeddings(self, batches: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
        """Gives the images' embeddings, (images of all batches, 77, dim).

        Each prompt is encoded once for a training's batch, however many of its images have it.

        Args:
            batches: For each training that is computed in this pass, and each source, indices of its images.
        """
        prompts = [
            [self._of_image[source][image] for source, images in enumerate(batch) for image in images]
            for batch in batches
        ]
        if self._cached is not None:
            return self._cached[[prompt for wanted in prompts for prompt in wanted]]
        different = list(dict.fromkeys(prompt for wanted in prompts for prompt in wanted))
        encoded = self._text_encoder(self._input_ids[different].repeat(len(batches), 1))[0]
        rows = [
            training * len(different) + different.index(prompt)  # each training's own text encoder
            for training, wanted in enumerate(prompts)
            for prompt in wanted
        ]
        return encoded[rows]
