from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sdlab import mini
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.machine import this_machine
from sdlab.models import resolve
from sdlab.photos import prepare
from sdlab.profiles import PROFILES, for_machine, hyperparameters, profile, subject_of
from sdlab.sampling import choose_sampling, images_at_once


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


def begun(name: str, **prompts: str) -> Experiment:
    experiment = Experiment(name)
    experiment.begin(DreamBooth(**prompts), {})
    experiment.update(status="finished", base="mini")
    return experiment


def test_the_subject_comes_from_the_record(workplace: Path) -> None:
    begun("man", instance_prompt="a photo of ohwx man face")
    begun("dog", instance_prompt="a photo of sks dog", class_prompt="a photo of a dog")
    assert subject_of(["base", "man"]).phrase == subject_of(["man@0.7"]).phrase == "ohwx man"
    assert subject_of(["base"]).phrase == "sks woman"
    with pytest.raises(ValueError, match=r"different subjects: ohwx man, sks dog.*--subject"):
        subject_of(["man", "dog"])


def test_the_subject_that_the_photos_were_prepared_for_is_trained(workplace: Path) -> None:
    mini.copy_photos("man", "data/raw_images")
    prepare(resolution=128, subject_kind="sks dog", progress=False)
    chosen = hyperparameters("lora")
    assert (chosen.instance_prompt, chosen.class_prompt) == ("a photo of sks dog", "a photo of dog")
    assert subject_of([]).phrase == "sks dog"
    assert hyperparameters("lora", subject="sks man").instance_prompt == "a photo of sks man face"
    assert prepare(resolution=128, progress=False).subject_kind == "animal"  # as it was said before
    assert prepare(resolution=128, subject_kind="person", progress=False).subject == ""
    assert hyperparameters("lora").instance_prompt == "a photo of sks woman face"


def test_a_lora_on_top_of_an_experiment_learns_the_same_subject(workplace: Path) -> None:
    begun("dog", instance_prompt="a photo of ohwx dog", class_prompt="a photo of a dog")
    on_top = hyperparameters("lora", "dog")
    assert (on_top.instance_prompt, on_top.class_prompt) == ("a photo of ohwx dog", "a photo of a dog")
    assert hyperparameters("lora", "dog", subject="sks cat").instance_prompt == "a photo of sks cat"
    assert hyperparameters("dreambooth", subject="sks teapot").class_prompt == "a photo of teapot"


def test_the_base_may_be_an_object(workplace: Path) -> None:
    dog = begun("dog", instance_prompt="a photo of sks dog")
    assert hyperparameters("lora", dog).pretrained_model_name_or_path == "experiments/dog"
    assert hyperparameters("lora", dog).instance_prompt == "a photo of sks dog"
    assert hyperparameters("lora", resolve("mini")).pretrained_model_name_or_path == "mini"


def test_a_subject_without_a_rare_word_is_not_trained() -> None:
    with pytest.raises(
        ValueError, match=r"needs a rare word before its class, got 'dog'\. Name it 'sks dog'"
    ):
        hyperparameters("lora", subject="dog")


@pytest.mark.parametrize(
    ("gpu", "device", "dtype", "name", "precision", "eight_bit"),
    [
        (0, "cpu", "float32", "sd15", "no", False),
        (15.8, "cuda", "float16", "sd15-16gb", "fp16", True),  # a T4
        (8.5, "cuda", "bfloat16", "sd15-8gb", "bf16", True),  # an RTX 3070
        (12.6, "cuda", "bfloat16", "sd15-8gb", "bf16", True),  # an RTX 3060, which must save for DreamBooth
        (25.7, "cuda", "bfloat16", "sd15", "bf16", False),  # an RTX 4090
        (85.9, "cuda", "bfloat16", "sd15", "bf16", False),  # an A100
        (11.4, "mps", "float32", "sd15-8gb", "no", False),  # a Mac with 16 GB
    ],
)
def test_defaults_follow_the_hardware_and_say_why(
    gpu: float, device: str, dtype: str, name: str, precision: str, eight_bit: bool
) -> None:
    seen = replace(this_machine(), device=device, dtype=dtype, gpu_memory=int(gpu * 1e9))
    chosen = for_machine(seen)
    assert (chosen.name, chosen.mixed_precision, chosen.use_8bit_adam) == (name, precision, eight_bit)
    assert (f"{gpu:.0f} GB" if gpu else "because") in chosen.reason


@pytest.mark.parametrize(
    ("instance", "of_class"),
    [
        ("a photo of ohwx man", "a photo of man"),
        ("a photo of sks dog in a bucket", "a photo of dog in a bucket"),
        ("a picture in sks style", "a picture"),
        ("a photo of sks woman, close-up", "a photo of woman face"),
        (f"a photo of {'very ' * 80}sks woman face", "a photo of woman face"),
    ],
)
def test_the_class_prompt_follows_the_instance_prompt(instance: str, of_class: str) -> None:
    chosen = hyperparameters("dreambooth", instance_prompt=instance)
    assert chosen.class_prompt == of_class
    assert hyperparameters("lora", instance_prompt=instance, class_prompt="a man").class_prompt == "a man"


def test_a_batch_of_images_fits_into_the_free_memory() -> None:
    usual = choose_sampling("mini")
    assert images_at_once("mini", usual) == PROFILES["mini"].images_per_batch
    assert images_at_once("mini", replace(usual, width=80_000, height=80_000)) == 1
