"""An experiment at an earlier step: the name `EXPERIMENT@stepN`, its weights and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdlab.models import checkpoint_names, load_pipeline, resolve
from sdlab.training import train


@pytest.mark.parametrize("method", ["lora", "dreambooth"])
def test_a_name_with_a_step_loads_that_checkpoints_weights(
    workplace: Path, short: Callable[..., object], method: str
) -> None:
    chosen = short(method, checkpoints_total_limit=None, train_text_encoder=True, num_held_out_images=0)
    train("one", chosen, progress=False)  # type: ignore[arg-type]
    assert checkpoint_names("one") == ["one@step2"]  # of four steps; the last is the experiment itself
    saved = load_file(workplace / "experiments/one/checkpoints/step_000002/weights.safetensors")
    last = load_file(workplace / "experiments/one/checkpoints/step_000004/weights.safetensors")
    for name, expected in (("one@step2", saved), ("one", last)):
        pipeline = load_pipeline(name)
        found = {
            f"{part}.{key}".replace(".default_0.", ".default."): value
            for part in ("unet", "text_encoder")
            for key, value in getattr(pipeline, part).named_parameters()
        }
        assert set(expected) <= set(found)
        for key, value in expected.items():
            torch.testing.assert_close(found[key].detach(), value)
    assert any(not torch.equal(saved[key], last[key]) for key in saved)
    assert resolve("one@step2").fingerprint != resolve("one").fingerprint


def test_a_step_without_a_checkpoint_is_refused_with_those_that_are_there(
    workplace: Path, short: Callable[..., object]
) -> None:
    train("one", short("lora", num_held_out_images=0), progress=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no checkpoint of step 3, but of 2, 4"):
        resolve("one@step3")
