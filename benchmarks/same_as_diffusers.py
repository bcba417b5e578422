"""Does sdlab's training do what diffusers' example scripts do? Means over seeds, on `mini`, in float32.

    python benchmarks/same_as_diffusers.py --diffusers /tmp/diffusers [--seeds 5] [--steps 80]

The two draw other random numbers, so single runs differ; what they do on average must not. For each seed both
train on the same base, files and settings (see `benchmarks/against_diffusers.py` for the checkout and what it
needs), and of each run is taken:

- loss: mean of the training loss over all steps;
- change of the UNet, and of the text encoder: ‖ΔW‖ / ‖W‖ over all weights of the part (a LoRA is added to
  them), in thousandths.

A row gives mean ± standard deviation over seeds of both programs, sdlab's mean relative to diffusers' with
the 95 % interval of that, the difference in standard errors (Welch's t), and p, the probability of so large
a difference if there is none. The interval says what difference these runs could have shown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from runs import Run, Task, conditions, load, make_task, run, settings
from scipy import stats

from sdlab import mini, profile

# A tenth of the best rate: at the best one, runs that differ in nothing but their seed end a third apart.
LORA_RATE = profile("mini").lora_learning_rate / 10
SETTINGS: dict[str, dict[str, Any]] = {
    "DreamBooth, text encoder, prior 1": {
        "method": "dreambooth",
        "train_text_encoder": True,
        "with_prior_preservation": True,
        "learning_rate": profile("mini").dreambooth_learning_rate,
    },
    "LoRA rank 4": {"method": "lora", "rank": 4, "learning_rate": LORA_RATE},
    "LoRA rank 32, text encoder": {
        "method": "lora",
        "rank": 32,
        "train_text_encoder": True,
        "learning_rate": LORA_RATE,
    },
}
HEADER = ["setting", "measured", "diffusers", "sdlab", "sdlab / diffusers", "difference, s.e.", "p"]


def measures(task: Task, done: Run) -> dict[str, float]:
    """What is compared of one run; a part that isn't trained is left out."""
    before, after = load(task.base, None), load(task.base, done.result)
    figures = {"loss": float(np.mean(done.losses))}
    for name in ("unet", "text_encoder"):
        old, new = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        change = sum(torch.dist(new[key], value).item() ** 2 for key, value in old.items()) ** 0.5
        size = sum(value.norm().item() ** 2 for value in old.values()) ** 0.5
        if change:
            figures[f"change of the {name.replace('_', ' ')}, ‰"] = 1000 * change / size
    return figures


def compare(title: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> Iterator[list[str]]:
    """The table's rows of one setting."""
    if set(ours[0]) != set(theirs[0]):
        raise RuntimeError(f"{title}: sdlab trained {list(ours[0])}, diffusers {list(theirs[0])}.")
    for name in ours[0]:
        mine, other = ([row[name] for row in rows] for rows in (ours, theirs))
        test = stats.ttest_ind(mine, other, equal_var=False)
        ratio, interval = np.mean(mine) / np.mean(other), test.confidence_interval(0.95)
        low, high = (1 + bound / np.mean(other) for bound in interval)
        texts = [f"{np.mean(rows):.4g} ± {np.std(rows, ddof=1):.2g}" for rows in (other, mine)]
        yield [title, name, *texts, f"{ratio:.3f} ({low:.3f} to {high:.3f})",
               f"{test.statistic:+.2f}", f"{test.pvalue:.2f}"]  # fmt: skip


def main() -> None:
    """Train, compare, print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--diffusers", required=True, help="a checkout of diffusers' sources")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--resolution", type=int, default=64, help="64 takes a quarter of 128's time")
    parser.add_argument("--batch", type=int, default=4, help="images of each kind in a step")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    options = parser.parse_args()
    lines = [HEADER, ["---"] * len(HEADER)]
    with tempfile.TemporaryDirectory() as name:
        task = make_task(Path(mini.path()), Path(name), options.resolution)
        for title, changes in SETTINGS.items():
            if options.only not in title:
                continue
            measured: dict[str, list[dict[str, float]]] = {"sdlab": [], options.diffusers: []}
            for seed in range(options.seeds):
                more = {"seed": seed, "max_train_steps": options.steps, "train_batch_size": options.batch}
                for number, (program, rows) in enumerate(measured.items()):
                    place = Path(name) / f"{title}, {number}, {seed}"
                    chosen = settings(task, **changes | more)
                    rows.append(measures(task, run(program, chosen, place, warmup=1, device="cpu")))
                    print(title, seed, Path(program).name, rows[-1], flush=True)
            lines += compare(title, measured["sdlab"], measured[options.diffusers])
    print(f"\n{conditions('cpu')}\n")
    chosen = f"{options.steps} steps, batch {options.batch}, {options.seeds} seeds"
    print(f"mini at {options.resolution} px, {chosen}\n")
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
