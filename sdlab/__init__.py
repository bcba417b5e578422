"""Teach Stable Diffusion one person from twenty photos, and compare the ways to do it.

The public names below load their module on first use, so `import sdlab` takes no time and no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdlab.control import Control
    from sdlab.demo import demo
    from sdlab.exercises import check
    from sdlab.experiment import DreamBooth, Experiment, LoRA
    from sdlab.generate import class_images, generate
    from sdlab.homework import homework
    from sdlab.keeping import keep
    from sdlab.photos import prepare
    from sdlab.profiles import hyperparameters, profile
    from sdlab.prompts import HOMEWORK_A, HOMEWORK_B, PromptSet
    from sdlab.report import report
    from sdlab.scores import recommend, score
    from sdlab.sweep import sweep
    from sdlab.table import table
    from sdlab.training import train

__version__ = "0.1.0"

__all__ = [
    "HOMEWORK_A",
    "HOMEWORK_B",
    "Control",
    "DreamBooth",
    "Experiment",
    "LoRA",
    "PromptSet",
    "check",
    "class_images",
    "demo",
    "generate",
    "homework",
    "hyperparameters",
    "keep",
    "prepare",
    "profile",
    "recommend",
    "report",
    "score",
    "sweep",
    "table",
    "train",
]

_MODULE_OF = {
    "HOMEWORK_A": "sdlab.prompts",
    "HOMEWORK_B": "sdlab.prompts",
    "PromptSet": "sdlab.prompts",
    "hyperparameters": "sdlab.profiles",
    "profile": "sdlab.profiles",
    "DreamBooth": "sdlab.experiment",
    "Experiment": "sdlab.experiment",
    "LoRA": "sdlab.experiment",
    "prepare": "sdlab.photos",
    "train": "sdlab.training",
    "Control": "sdlab.control",
    "class_images": "sdlab.generate",
    "generate": "sdlab.generate",
    "table": "sdlab.table",
    "score": "sdlab.scores",
    "recommend": "sdlab.scores",
    "sweep": "sdlab.sweep",
    "report": "sdlab.report",
    "demo": "sdlab.demo",
    "homework": "sdlab.homework",
    "keep": "sdlab.keeping",
    "check": "sdlab.exercises",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sdlab' has no attribute {name!r}. Its names: {', '.join(__all__)}.")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `sdlab.generate` the function once the module of the same name is imported.

    The import system binds every submodule to its package, which would put the module `sdlab.generate`
    in the place of the public function. The module stays importable: `from sdlab.generate import ...`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _MODULE_OF.get(name) == value.__name__:
            value = getattr(value, name, value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
