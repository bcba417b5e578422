"""What a training takes beside its steps and validations, from the second one in a process on.

    python benchmarks/beside_steps.py [--repeats 3]

A LoRA and a DreamBooth of one step on `mini`, with the profile's settings. `whole` is `train`'s time,
`beside` what is left without the loop (its steps, validations, and saving). Processor seconds are those to
trust on a machine that other programs use too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

from one_pass import draw

from sdlab import hyperparameters, train
from sdlab.training import loop

BAR = 3.0  # seconds


class Clock:
    """Adds up the seconds and the processor's seconds of a function's calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds, self.processor = function, 0.0, 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter(), time.process_time()
        try:
            return self.function(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - start[0]
            self.processor += time.process_time() - start[1]


def main() -> None:
    """Prints a row for each method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print("| training | whole, s | beside, s | processor s beside | bar |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        photos = draw(Path("photos"))
        for method in ("lora", "dreambooth"):
            chosen = hyperparameters(
                method, instance_data_dir=str(photos), max_train_steps=1, num_class_images=8
            )
            measured = []
            for number in range(repeats + 1):
                steps = loop.train_steps = Clock(getattr(loop.train_steps, "function", loop.train_steps))
                whole = Clock(train)
                whole(f"{method}{number}", replace(chosen, seed=number), progress=False)
                beside = whole.seconds - steps.seconds, whole.processor - steps.processor
                measured.append((whole.seconds, *beside))
            seconds, beside, processor = map(statistics.median, zip(*measured[1:], strict=True))
            held = "held" if processor <= BAR else "missed"
            print(
                f"| {method} | {seconds:.1f} | {beside:.1f} | {processor:.2f} | {BAR:g} {held} |", flush=True
            )


if __name__ == "__main__":
    main()
