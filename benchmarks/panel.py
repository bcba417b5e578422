"""What the live panel costs: trainings of mini in a real kernel, with the panel and without it, in turn.

python benchmarks/panel.py --rounds 3

Prints for each training its wall-clock and processor seconds, and then the share of the training's time that
the kernel spent on the panel: in the panel's own calls, and in processor seconds by difference, which counts
the thread that sends messages too. The bar is 2 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

BAR = 0.02
PHOTOS = """
import json, time
from pathlib import Path
import sdlab, sdlab.training.loop as loop
from recipes.mini.world import SUBJECTS, draw
Path("photos").mkdir()
for number, picture in enumerate(SUBJECTS["woman"].photos()):
    draw(picture, 128).save(f"photos/{number}.png")
spent = [0.0]

def timed(function):
    def call(*arguments, **options):
        start = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[0] += time.perf_counter() - start
    return call

class Timed:  # the same panel, with a clock at each of its calls
    def __init__(self, shown):
        self.shown = shown
        self.step, self.row, self.say = timed(shown.step), timed(shown.row), timed(shown.say)
    def __enter__(self):
        timed(self.shown.__enter__)()
        return self
    def __exit__(self, *error):
        timed(self.shown.__exit__)(*error)

watch = loop.Watch
loop.Watch = lambda *arguments: Timed(watch(*arguments))
"""
TRAIN = """
chosen = sdlab.hyperparameters("lora", "mini", instance_data_dir="photos", max_train_steps={steps},
    validation_prompt="portrait of sks woman", num_validation_images=2)
spent[0], before, start = 0.0, time.process_time(), time.perf_counter()
sdlab.train("{name}", chosen, progress={progress})
figures = dict(wall=time.perf_counter() - start, processor=time.process_time() - before, panel=spent[0])
print("FIGURES", json.dumps(figures))
"""


def run(client: Any, code: str) -> dict[str, float]:
    """Runs a cell as JupyterLab does, and reads its figures."""
    found: dict[str, float] = {}

    def read(message: dict[str, Any]) -> None:
        if message["msg_type"] == "error":
            raise SystemExit("\n".join(message["content"]["traceback"]))
        for line in message["content"].get("text", "").splitlines():
            if line.startswith("FIGURES"):
                found.update(json.loads(line.removeprefix("FIGURES")))

    client.execute_interactive(code, output_hook=read, allow_stdin=True, timeout=1800)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    chosen = parser.parse_args()
    runs: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}  # of this copy of sdlab
        manager, client = start_new_kernel(cwd=folder, env=environment)
        try:
            run(client, PHOTOS)
            run(client, TRAIN.format(steps=4, name="warm", progress=False))
            for number in range(chosen.rounds):
                for progress in (True, False) if number % 2 else (False, True):
                    name = f"{number}_{progress}"
                    figures = run(client, TRAIN.format(steps=chosen.steps, name=name, progress=progress))
                    runs[progress].append(figures)
                    said = ", ".join(f"{key} {value:.2f} s" for key, value in figures.items())
                    print(f"{'with   ' if progress else 'without'} the panel: {said}", flush=True)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    own = statistics.median(one["panel"] / one["wall"] for one in runs[True])
    with_panel, without = (statistics.median(one["processor"] for one in runs[on]) for on in (True, False))
    print(f"in the panel's calls: {own:.2%} of the training's time; bar {BAR:.0%}")
    print(f"processor seconds, by difference of medians: {with_panel / without - 1:+.2%}")


if __name__ == "__main__":
    main()
