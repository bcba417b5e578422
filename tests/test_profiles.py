from __future__ import annotations

import pytest

from sdlab.experiment import LoRA
from sdlab.profiles import PROFILES, hyperparameters, profile


def test_the_base_decides_the_profile() -> None:
    assert profile("mini").resolution == 128
    assert profile("sd15").resolution == 512
    assert profile("sd15-8gb").use_8bit_adam


def test_overrides_go_before_the_profile() -> None:
    chosen = hyperparameters("lora", "mini", rank=8, learning_rate=1e-3)
    assert isinstance(chosen, LoRA)
    assert (chosen.rank, chosen.learning_rate) == (8, 1e-3)
    assert chosen.max_train_steps == PROFILES["mini"].lora_steps
    assert hyperparameters("dreambooth", "mini").with_prior_preservation


def test_a_misspelt_hyperparameter_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'max_train_steps'"):
        hyperparameters("dreambooth", "mini", max_train_step=10)


def test_the_best_rate_is_in_the_sweep() -> None:
    for chosen in PROFILES.values():
        assert chosen.lora_learning_rate in chosen.lora_learning_rates
        assert len(chosen.lora_learning_rates) == 4
