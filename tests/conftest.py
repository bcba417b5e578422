"""What several tests share: the subject's images, and hyperparameters that train for seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdlab.experiment import DreamBooth, LoRA
from sdlab.profiles import hyperparameters

RESOLUTION = 64  # half of the mini model's own side: four times as fast


@pytest.fixture(scope="session")
def instance_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn photos of the woman, as `prepare` would leave them."""
    from recipes.mini.world import SUBJECTS, draw

    folder = tmp_path_factory.mktemp("instance_images")
    for number, picture in enumerate(SUBJECTS["woman"].photos()[:6]):
        draw(picture, RESOLUTION).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory, so `experiments/`, `results/` and `data/` are in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def short(instance_images: Path) -> Callable[..., DreamBooth | LoRA]:
    """`short("lora", rank=2)`: the mini profile's hyperparameters, on small images, for four steps."""

    def make(method: str, base: str = "mini", **overrides: Any) -> DreamBooth | LoRA:
        settings = {"instance_data_dir": str(instance_images), "resolution": RESOLUTION, "max_train_steps": 4}
        settings |= {"num_class_images": 2, "checkpointing_steps": 2, "train_batch_size": 1}
        return hyperparameters(method, base, **settings | overrides)

    return make
