from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdlab.config import DreamBooth, LoRA, from_dict


def test_rank_zero_is_refused_with_what_is_usual() -> None:
    with pytest.raises(ValueError, match=r"^rank must be at least 1, got 0\. Typical ranks are 4 to 128\.$"):
        LoRA(rank=0)


def test_paths_and_numpys_numbers_are_taken() -> None:
    given = {"instance_data_dir": Path("data/x"), "rank": np.int64(8), "learning_rate": np.float32(0.5)}
    chosen = LoRA(**given)
    assert chosen == LoRA(instance_data_dir="data/x", rank=8, learning_rate=0.5) and type(chosen.rank) is int
    with pytest.raises(ValueError, match=r"got 800\.0 \(float\)\. Write max_train_steps=800\."):
        LoRA(max_train_steps=800.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0"),
        ({"learning_rate": "2e-4"}, "learning_rate must be a number, got '2e-4'"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite"),
        ({"max_train_steps": 2.5}, "max_train_steps must be a whole number, got 2.5"),
        ({"train_batch_size": 0}, "train_batch_size must be at least 1, got 0"),
        ({"resolution": 500}, "resolution must be a multiple of 8, got 500. Try 496."),
        ({"lr_scheduler": "cosin"}, "Did you mean 'cosine'"),
        ({"mixed_precision": "float16"}, "Choose from: no, fp16, bf16"),
        ({"with_prior_preservation": True}, "needs a class_prompt, got none.*'a photo of woman face'"),
        ({"instance_prompt": " "}, "instance_prompt is empty"),
        ({"use_8bit_adam": "yes"}, "use_8bit_adam must be True or False"),
        ({"adam_beta2": 1.0}, "adam_beta2 must be at least 0 and below 1, got 1"),
        ({"noise_offset": -0.1}, "noise_offset must be at least 0 and below 1, got -0.1"),
        ({"optimizer": "adam"}, "Unknown optimizer: 'adam'. Did you mean 'adamw'"),
        ({"optimizer": "prodigy"}, "got 2e-06. Give 1, which is usual"),
        ({"optimizer": "adafactor", "use_8bit_adam": True}, "name two optimizers"),
        ({"text_encoder_lr": 1e-6}, "text_encoder_lr is set, but the text encoder isn't trained"),
        ({"text_encoder_steps": 10}, "text_encoder_steps is set, but the text encoder isn't trained"),
        ({"lr_warmup_steps": 10}, "'constant' has no warm-up, got lr_warmup_steps=10"),
        ({"lr_scheduler": "linear", "lr_warmup_steps": 800}, "must be below max_train_steps, got 800 of 800"),
        ({"lr_scheduler": "piecewise_constant"}, "belong together"),
        ({"lr_scheduler": "piecewise_constant", "lr_step_rules": "often"}, "must be like '1:100,0.1:300"),
        ({"lr_scheduler": "piecewise_constant", "lr_step_rules": "e:1,--"}, "must be like '1:100,0.1:300"),
        ({"class_data_dir": "data/photos/", "instance_data_dir": "data/photos"}, "are the same folder"),
    ],
)
def test_a_bad_value_is_named_with_its_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DreamBooth(**values)


@pytest.mark.parametrize(
    "chosen",
    [
        DreamBooth(with_prior_preservation=True, class_prompt="a photo of woman face", prior_loss_weight=1.2),
        LoRA(rank=96, lora_alpha=48.0, seed=31, use_dora=True, lora_targets="attention+ff"),
    ],
)
def test_hyperparameters_survive_json(chosen: DreamBooth | LoRA) -> None:
    assert from_dict(json.loads(json.dumps(chosen.as_dict()))) == chosen


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'learning_rat'\. Did you mean 'learning_rate'"):
        from_dict({"method": "lora", "learning_rat": 1e-4})
    with pytest.raises(ValueError, match=r"Unknown method: 'dreamboth'\. Did you mean 'dreambooth'"):
        from_dict({"method": "dreamboth"})
    with pytest.raises(ValueError, match="Unknown hyperparameter of dreambooth: 'rank'"):
        from_dict({"method": "dreambooth", "rank": 4})
