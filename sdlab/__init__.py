"""Teach Stable Diffusion one subject from twenty photos, and compare the ways to do it.

The public names below load their module on first use, so `import sdlab` takes no time and no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdlab.control import Control
    from sdlab.course.backup import sync
    from sdlab.course.demonstration import demo
    from sdlab.course.exercises import check
    from sdlab.experiment import DreamBooth, Experiment, LoRA
    from sdlab.homeworks import homework
    from sdlab.images import generate
    from sdlab.photos import prepare
    from sdlab.profiles import hyperparameters, profile
    from sdlab.prompts import HOMEWORK_A, HOMEWORK_B, PromptSet
    from sdlab.reports import report
    from sdlab.sampling import class_images
    from sdlab.scores import recommend, score
    from sdlab.sweeps import sweep
    from sdlab.tables import table
    from sdlab.training import train

__version__ = "0.1.0"

# OpenMP's threads spin while they wait for each other, which beside another program makes a step 70 times as
# slow; without any spins it takes twice as long alone. torch reads both when it is imported. A user's own
# setting stays; benchmarks/threads.py measures it.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "800")

# No module bears the name of a public function: importing it would put it in the function's place.
_MODULE_OF = {
    "HOMEWORK_A": "prompts",
    "HOMEWORK_B": "prompts",
    "PromptSet": "prompts",
    "hyperparameters": "profiles",
    "profile": "profiles",
    "homework": "homeworks",
    "DreamBooth": "config",
    "LoRA": "config",
    "Experiment": "experiment",
    "prepare": "photos",
    "train": "training",
    "Control": "control",
    "class_images": "sampling",
    "generate": "images",
    "table": "tables",
    "score": "scores",
    "recommend": "scores",
    "sweep": "sweeps",
    "report": "reports",
    "demo": "course.demonstration",
    "sync": "course.backup",
    "check": "course.exercises",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"sdlab.{_MODULE_OF[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"sdlab.{name}"):
        return importlib.import_module(f"sdlab.{name}")
    raise AttributeError(f"module 'sdlab' has no attribute {name!r}. Its names: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
