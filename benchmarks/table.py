"""How long does a table of 10 experiments × 5 prompts × 4 images take, and how large is it in a notebook?

    python benchmarks/table.py [--side 128] [--runs 3]

The images are drawn by the mini world, at `mini`'s size; `--side 512` is Stable Diffusion's. Each run is a
process of its own, as in a notebook that was just opened: it reads 200 files and gives the cell's HTML.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from recipes.mini import world

EXPERIMENTS, PROMPTS, IMAGES = 10, 5, 4
CALL = """
import time
start = time.perf_counter()
from sdlab import PromptSet, table
prompts = PromptSet({f"prompt{k}": "portrait of sks woman, on the street" for k in range(1, %d + 1)})
html = table([f"lora_{e}" for e in range(%d)], prompts).html()
seconds, busy = time.perf_counter() - start, time.process_time()
print(f"{seconds:.2f} s ({busy:.2f} s of processor time), {len(html.encode()):,} bytes")
"""


def draw(side: int) -> None:
    """The images, in the working directory."""
    number = 0
    for e in range(EXPERIMENTS):
        folder = Path(f"results/lora_{e}")
        folder.mkdir(parents=True)
        for k in range(1, PROMPTS + 1):
            for n in range(1, IMAGES + 1):
                number += 1
                world.draw(world.sample(number), side).save(folder / f"prompt{k}_img{n}.png")


def main() -> None:
    """Draws, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        draw(chosen.side)
        print(
            f"{EXPERIMENTS * PROMPTS * IMAGES} images of {chosen.side} × {chosen.side}, one process per run:"
        )
        for _ in range(chosen.runs):
            subprocess.run([sys.executable, "-c", CALL % (PROMPTS, EXPERIMENTS)], check=True)


if __name__ == "__main__":
    main()
