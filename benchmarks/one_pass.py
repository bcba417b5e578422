"""How long LoRAs take in one pass, beside the sum of their single trainings, in one run.

    python benchmarks/one_pass.py [--settings demo seven] [--steps 40] [--repeats 3]

`demo` are the demo's six LoRAs at batch 4, `seven` is a sweep of seven ranks at batch 1. Both ways take the
same photos, steps and validations; a first short training that isn't counted pays for imports and caches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

from sdlab import hyperparameters, profile
from sdlab.config import DreamBooth, LoRA
from sdlab.experiment import Experiment
from sdlab.machine import this_machine
from sdlab.sweeps import plan, train_planned

BARS = {"demo": 0.5, "seven": 0.45}


def planned(setting: str, photos: Path, steps: int) -> dict[str, DreamBooth | LoRA]:
    """The LoRAs of a setting."""
    chosen = profile("mini")
    common = hyperparameters("lora", instance_data_dir=str(photos), max_train_steps=steps)
    if setting == "seven":
        return plan(replace(common, train_batch_size=1), rank=[1, 2, 3, 4, 6, 8, 16])
    rates = plan(common, learning_rate=list(chosen.lora_learning_rates))
    return rates | plan(common, rank=sorted(chosen.lora_ranks))


def seconds(trainings: dict[str, DreamBooth | LoRA], root: str, *, one_pass: bool) -> tuple[float, float]:
    """The time of all trainings, and of their steps alone."""
    start = time.perf_counter()
    train_planned(trainings, root=root, one_pass=one_pass, progress=False)
    whole = time.perf_counter() - start
    return whole, sum(Experiment(name, Path(root)).record["seconds"] for name in trainings)


def main() -> None:
    """Prints a row for each setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", choices=list(BARS), default=list(BARS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--photos", type=Path, help="prepared photos; drawn ones if left out")
    options = parser.parse_args()
    here = this_machine()
    print(f"{here.processor}, {here.cores} cores, {here.device}; load average {os.getloadavg()[0]:.1f}")
    print("| setting | one by one, s | in one pass, s | ratio | of the steps alone | bar |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        photos = options.photos.resolve() if options.photos else draw(Path("photos"))
        for setting in options.settings:
            trainings = planned(setting, photos, options.steps)
            train_planned(
                {f"first_{setting}": replace(next(iter(trainings.values())), max_train_steps=2)},
                progress=False,
            )
            both = [
                [seconds(trainings, f"{setting}{turn}{way}", one_pass=way) for way in (False, True)]
                for turn in range(options.repeats)
            ]
            single, together = ([turn[way] for turn in both] for way in (0, 1))
            ratios = [[b / a for a, b in zip(*turn, strict=True)] for turn in both]
            print(
                f"| {setting}: {len(trainings)} LoRAs | {statistics.median(one[0] for one in single):.1f} | "
                f"{statistics.median(one[0] for one in together):.1f} | "
                f"{statistics.median(one[0] for one in ratios):.2f} | "
                f"{statistics.median(one[1] for one in ratios):.2f} | {BARS[setting]} |",
                flush=True,
            )


def draw(folder: Path) -> Path:
    """Photos of the mini world's subject."""
    from recipes.mini.world import SUBJECTS, draw

    folder.mkdir()
    for number, picture in enumerate(SUBJECTS["woman"].photos()[:18]):
        draw(picture, 128).save(folder / f"{number:02d}.png")
    return folder


if __name__ == "__main__":
    main()
