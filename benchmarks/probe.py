"""Runs a training as it is, with a stopwatch in its process: each step's end, each loss, peak memory.

    python benchmarks/probe.py measured.json 10 60 train_dreambooth.py --its --flags
    python benchmarks/probe.py measured.json 10 60 sdlab experiments name '{"method": "lora", ...}'

The numbers are the steps to warm up and the steps in all. The stopwatch is torch's own hook after each step
of any optimizer, so both programs are timed at the same instant of their step and neither is changed. On a
GPU it waits for the device after the warm-up and after the last step only. The losses are what the script
hands to `Accelerator.backward`, and sdlab's `dreambooth_loss` gives.
"""

from __future__ import annotations

import functools
import json
import resource
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim.optimizer import register_optimizer_step_post_hook


def main() -> None:
    """Run what the command line names, and write the measurements."""
    file, warmup, steps, *program = sys.argv[1:]
    seconds: list[float] = []
    processor: list[float] = []
    losses: list[torch.Tensor] = []

    def note_time(*_: Any) -> None:
        if torch.cuda.is_available() and len(seconds) + 1 in (int(warmup), int(steps)):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter())
        processor.append(time.process_time())

    backward = Accelerator.backward

    @functools.wraps(backward)
    def note_loss(self: Accelerator, loss: torch.Tensor, **options: Any) -> None:
        losses.append(loss.detach())
        backward(self, loss, **options)

    register_optimizer_step_post_hook(note_time)
    Accelerator.backward = note_loss
    run(program, losses)
    measured = {
        "seconds": seconds,
        "processor": processor,
        "losses": [float(loss) for loss in losses],
        "peak_gb": peak_gb(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    Path(file).write_text(json.dumps(measured))


def run(program: list[str], losses: list[torch.Tensor]) -> None:
    """sdlab's training, or a script with its flags."""
    if program[0] != "sdlab":
        sys.argv = program
        sys.path.insert(0, str(Path(program[0]).parent))
        runpy.run_path(program[0], run_name="__main__")
        return
    from sdlab.config import from_dict
    from sdlab.training import loop, train

    combine = loop.dreambooth_loss

    @functools.wraps(combine)
    def note_loss(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, parts = combine(*arguments)
        losses.append(loss.detach())
        return loss, parts

    loop.dreambooth_loss = note_loss
    root, name, values = program[1:]
    train(name, from_dict(json.loads(values)), root=root, progress=False)


def peak_gb() -> float:
    """10⁹ bytes: of the GPU's memory, else the high-water mark of this process's resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()
