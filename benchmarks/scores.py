"""How long do scores take, and what do they say of the experiments in a folder?

    python benchmarks/scores.py [--images 1000]     # time of the first and second call, on drawn pictures
    python benchmarks/scores.py --work DIR          # the scores of all experiments in DIR, as Markdown

The second call is a process of its own, as on the next day: it finds the features in the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from recipes.mini import world
from sdlab import recommend, score
from sdlab.experiment import find
from sdlab.images import load_images

CALL = "import sdlab; sdlab.score('base', photos='photos', root='experiments')"


def draw(count: int) -> None:
    """Photos, an experiment's record and `count` images of prompts with `sks`, in the working directory."""
    world.photograph("woman", Path("photos"), 128)
    record = {
        "name": "one",
        "method": "lora",
        "status": "finished",
        "hyperparameters": {"method": "lora", "class_prompt": "a photo of woman face"},
    }
    Path("experiments/one").mkdir(parents=True)
    Path("experiments/one/experiment.json").write_text(json.dumps(record))
    folder = Path("results/base")
    folder.mkdir(parents=True)
    rows = []
    for number in range(1, count + 1):
        file = f"p_img{number}.png"
        world.draw(world.sample(number)).save(folder / file)
        prompt = "portrait of sks woman, in the desert"
        rows.append(
            {
                "file": file, "experiment": "base", "prompt_name": "p", "number": number, "prompt": prompt,
                "negative_prompt": "", "seed": number, "num_inference_steps": 1, "guidance_scale": 1.0,
                "sampler": "own", "resolution": 128, "model": "drawn",
            }
        )  # fmt: skip
    (folder / "images.json").write_text(json.dumps({"images": rows}))


def timed() -> tuple[float, float]:
    """Seconds on the clock and of the processor that a new process takes to score."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", CALL], check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    if options.work is None:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            draw(options.images)
            for call in ("first", "second"):
                clock, processor = timed()
                print(f"{call} call, {options.images} images: {clock:.1f} s, {processor:.1f} s of processor")
        return
    with chdir(options.work):
        there = [path.parent.name for path in sorted(Path("results").glob("*/images.json"))]
        known = {one.name for one in find() if one.status == "finished"}
        names = ["base", *(n for n in there if n.split("@")[0] in known and load_images(n))]
        scores = score(names)
        print(scores.table().markdown())
        print(recommend(scores))


if __name__ == "__main__":
    main()
