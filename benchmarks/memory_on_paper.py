"""What each profile's trainings would take on a GPU, reckoned without one: the table of docs/speed.md.

    python benchmarks/memory_on_paper.py

The bytes are counted in a step on tensors without contents (`sdlab.training.reckoning`), under CUDA's rules of
mixed precision. A card fits where the peak and 1 GB for CUDA and its libraries leave a tenth of it free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sdlab.config import DreamBooth, LoRA
from sdlab.profiles import hyperparameters
from sdlab.training.reckoning import configurations, reckon

CARDS = (8, 12, 16, 24, 40, 80)
HEADER = ["training", "weights", "gradients", "states", "activations", "step", "validation image", "peak"]


def trainings() -> Iterator[tuple[str, DreamBooth | LoRA]]:
    """What is shown: DreamBooth from the homework's settings down to the smallest, and LoRA."""
    full = hyperparameters("dreambooth", "sd15", profile="sd15", mixed_precision="no")
    yield "DreamBooth, float32, AdamW", full
    yield "DreamBooth, float32, 8-bit Adam (homework B)", replace(full, use_8bit_adam=True)
    yield "DreamBooth, half, AdamW (profile sd15)", replace(full, mixed_precision="bf16")
    half = replace(full, mixed_precision="fp16", use_8bit_adam=True)
    yield "DreamBooth, half, 8-bit Adam (profile sd15-16gb)", half
    small = replace(half, gradient_checkpointing=True)
    yield "DreamBooth, half, 8-bit Adam, checkpointing (profile sd15-8gb)", small
    yield "the same without text encoder", replace(small, train_text_encoder=False)
    for rank in (4, 128):
        lora = hyperparameters("lora", "sd15", profile="sd15", rank=rank, mixed_precision="bf16")
        yield f"LoRA rank {rank}, half", lora
        yield f"LoRA rank {rank}, half, checkpointing", replace(lora, gradient_checkpointing=True)


def main() -> None:
    """Prints the table, in 10⁹ bytes."""
    configs = configurations()
    print("| " + " | ".join([*HEADER, *(f"{card} GB" for card in CARDS)]) + " |")
    print("| " + " | ".join(["---"] * (len(HEADER) + len(CARDS))) + " |")
    for name, chosen in trainings():
        found = reckon(configs, chosen)
        parts = (found.weights, found.gradients, found.states, found.activations, found.step, found.decoding)
        cells = [f"{size / 1e9:.2f}" for size in (*parts, found.peak)]
        fits = ["yes" if found.peak / 1e9 + 1 <= 0.9 * card else "no" for card in CARDS]
        print(f"| {' | '.join([name, *cells, *fits])} |", flush=True)


if __name__ == "__main__":
    main()
