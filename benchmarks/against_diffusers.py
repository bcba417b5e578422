"""How fast is sdlab's training beside diffusers' example scripts, on the same base, files and settings?

    git clone --depth 1 --branch v0.40.0 https://github.com/huggingface/diffusers /tmp/diffusers
    python benchmarks/against_diffusers.py --diffusers /tmp/diffusers
    python benchmarks/against_diffusers.py --diffusers /tmp/diffusers --device cuda --base-shape sd15 \\
        --mixed-precision no bf16 --compile

The checkout's `check_min_version` must not ask for more than the installed diffusers; v0.40.0 with
diffusers 0.42.1 is what was measured. Its scripts run unmodified. They import torchvision, which sdlab
doesn't need: `pip install torchvision` (the CPU build of torch has none: take the ordinary torch).

The settings are homework B's, learning rates those of the base's profile. Each program runs in a process of
its own, in turn (A B A B …), with `benchmarks/probe.py` in it. Its stopwatch is torch's hook after each
step of an optimizer: no start, no loading, no saving is in the time per step, and it needs neither the
programs' own clocks, which differ, nor the difference of two runs, in which the start's seconds drown a
short step. What start, loading and saving take is in `whole run`. diffusers' scripts decode, resize and
encode each image and each prompt in each step; sdlab does it once, before the first step.

A ratio is diffusers' time divided by that of sdlab's run next to it: above 1, sdlab is faster. The ratio of
the processor's seconds is the one to trust on a CPU that other programs use too.

Peak memory is the process's resident memory on the CPU, torch's allocated memory on a GPU. The validation
loss is one function's for both: mean squared error of the predicted noise on photos that weren't trained
on, ten timesteps each, with noise that is the same for all.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runs import Run, Task, conditions, make_task, run, settings, validation_loss
from sd15_shape import save_random_model

from sdlab import mini, profile

PRIOR = {"train_text_encoder": True, "with_prior_preservation": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "DreamBooth, text encoder, prior 1": {"method": "dreambooth", **PRIOR},
    "DreamBooth, text encoder, prior 1, 8-bit Adam": {"method": "dreambooth", **PRIOR, "use_8bit_adam": True},
    "LoRA rank 4": {"method": "lora", "rank": 4},
    "LoRA rank 32, text encoder": {"method": "lora", "rank": 32, "train_text_encoder": True},
}
# What the ratio of a step is to be, on the CPU with mini; the median of neighbours in time.
BARS = dict(zip(SETTINGS, (1.5, 1.3, 2.0, 1.8), strict=True))
HEADER = ["setting", "program", "steps/s", "ratio", "processor s per step", "ratio", "peak memory, GB"]
HEADER += ["validation loss", "whole run, s", "bar"]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--diffusers", required=True, help="a checkout of diffusers' sources")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--base-shape", choices=("mini", "sd15"), default="mini")
    parser.add_argument("--steps", type=int, default=60, help="in all")
    parser.add_argument("--warmup", type=int, default=10, help="of these, not timed")
    parser.add_argument("--repeats", type=int, default=3, help="of each program")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("--mixed-precision", nargs="+", choices=("no", "fp16", "bf16"), default=["no"])
    parser.add_argument("--compile", action="store_true", help="also with torch's inductor")
    return parser.parse_args()


def variants(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Name, what differs from homework B's common parameters, and whether to compile."""
    rates = profile(options.base_shape if options.base_shape == "mini" else "sd15-16gb")
    for name, changes in SETTINGS.items():
        rate = rates.dreambooth_learning_rate if "DreamBooth" in name else rates.lora_learning_rate
        for precision in options.mixed_precision:
            for compiled in [False, True] if options.compile else [False]:
                words = [name, *([precision] if precision != "no" else []), *(["compiled"] * compiled)]
                full = {**changes, "learning_rate": rate, "mixed_precision": precision}
                if options.only in name:
                    yield ", ".join(words), {**full, "max_train_steps": options.steps}, compiled


def measure(
    options: argparse.Namespace, task: Task, changes: dict[str, Any], compiled: bool, folder: Path
) -> dict[str, tuple[list[Run], float]]:
    """Both programs in turn: their runs, and the validation loss of the last one's result."""
    runs: dict[str, list[Run]] = {"diffusers": [], "sdlab": []}
    for repeat in range(options.repeats):
        for program, done in runs.items():
            shutil.rmtree(folder / program, ignore_errors=True)
            source = options.diffusers if program == "diffusers" else "sdlab"
            chosen = settings(task, **changes)
            ways = {"warmup": options.warmup, "device": options.device, "compiled": compiled}
            done.append(run(source, chosen, folder / program, **ways))
            print(f"  {program} {repeat + 1}: {done[-1].step_seconds:.4f} s a step", flush=True)
    return {program: (done, held_out_loss(options, task, done[-1].result)) for program, done in runs.items()}


def held_out_loss(options: argparse.Namespace, task: Task, result: Path | None) -> float:
    """The validation loss; random weights have none that says anything."""
    return validation_loss(task, result, options.device) if options.base_shape == "mini" else math.nan


def rows(name: str, measured: dict[str, tuple[list[Run], float]]) -> Iterator[list[str]]:
    """The table's two rows of one setting: medians and ranges; the ratios are of neighbours in time."""
    theirs = measured["diffusers"][0]
    for program, (done, loss) in measured.items():
        pairs = list(zip(done, theirs, strict=True))
        yield [
            name,
            program,
            spread([1 / one.step_seconds for one in done]),
            spread([other.step_seconds / one.step_seconds for one, other in pairs]),
            spread([one.step_processor for one in done]),
            spread([other.step_processor / one.step_processor for one, other in pairs]),
            f"{statistics.median(one.peak_gb for one in done):.2f}",
            f"{loss:.4f}",
            f"{statistics.median(one.whole_seconds for one in done):.1f}",
            verdict(name, [other.step_processor / one.step_processor for one, other in pairs])
            if program == "sdlab"
            else "",
        ]


def verdict(name: str, ratios: list[float]) -> str:
    """Whether the ratio of the processor's time holds the setting's bar; others have none."""
    bar = BARS.get(name)
    return "" if bar is None else f"{bar} {'held' if statistics.median(ratios) >= bar else 'missed'}"


def spread(values: list[float]) -> str:
    """Median, and the range where there is one."""
    middle, low, high = (f"{value:.3g}" for value in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def main() -> None:
    """Measure and print a Markdown table."""
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        is_mini = options.base_shape == "mini"
        base = Path(mini.path()) if is_mini else save_random_model(folder / "base")
        task = make_task(base, folder, 128 if is_mini else 512)
        before = held_out_loss(options, task, None)
        lines = [HEADER, ["---"] * len(HEADER)]
        for title, changes, compiled in variants(options):
            print(title, flush=True)
            lines += rows(title, measure(options, task, changes, compiled, folder))
        print(f"\n{conditions(options.device)}\n")
        print(
            f"{options.base_shape} at {task.resolution} px, {options.steps} steps, {options.warmup} of them "
            f"to warm up, {options.repeats} runs of each in turn; median (range). "
            f"Validation loss before training: {before:.4f}.\n"
        )
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
