"""The model card: from the record alone, readable by the hub, and discreet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from sdlab.cards import model_card
from sdlab.experiment import DreamBooth, Experiment, LoRA

HUB_ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def begun(root: Path, chosen: DreamBooth | LoRA, **record: Any) -> Experiment:
    experiment = Experiment("exp1.1", root)
    experiment.begin(chosen, {"base_fingerprint": "0123456789abcdef", "instance_images": "fedcba9876543210"})
    experiment.update(**record)
    return experiment


def test_the_hub_reads_its_front_matter(tmp_path: Path) -> None:
    prompt = "a photo of sks: 'woman' | #face"
    text = model_card(begun(tmp_path, LoRA(instance_prompt=prompt, rank=96), base="sd15"))
    data = ModelCard(text).data.to_dict()
    assert data["base_model"] == HUB_ID and data["base_model_relation"] == "adapter"
    assert data["instance_prompt"] == prompt and data["library_name"] == "diffusers"
    assert data["license"] == "creativeml-openrail-m" and "lora" in data["tags"]
    assert "| rank | 96 |" in text and "fedcba9876543210" in text


@pytest.mark.parametrize(
    ("base", "license", "words"),
    [
        ("sd15", "creativeml-openrail-m", "CreativeML OpenRAIL-M"),
        ("mini", "mit", "under the MIT licence"),
        (
            "somebody/some-model",
            "unknown",
            "`somebody/some-model` is unknown here. Look it up",
        ),
        ("cache_dir/models/civitai_model", "unknown", "The licence of `civitai_model` is unknown here"),
    ],
)
def test_the_licence_is_that_of_the_base_or_unknown(
    base: str, license: str, words: str, tmp_path: Path
) -> None:
    text = model_card(begun(tmp_path, DreamBooth(pretrained_model_name_or_path=base), base=base))
    assert ModelCard(text).data.to_dict()["license"] == license
    assert words in text


def test_no_place_on_this_machine_is_in_it(tmp_path: Path) -> None:
    places = {
        "pretrained_model_name_or_path": str(tmp_path / "models" / "of_anna"),
        "instance_data_dir": str(tmp_path / "photos"),
        "class_data_dir": str(tmp_path / "class"),
    }
    text = model_card(begun(tmp_path, LoRA(**places), base=places["pretrained_model_name_or_path"]))
    assert str(tmp_path) not in text and "photos" not in text.split("## Intended use")[0]
    assert 'from_pretrained("of_anna")' in text


@pytest.mark.parametrize("base", ["exp1_v1", "experiments/exp1_v1"])
def test_a_lora_on_top_of_an_experiment_says_so(base: str, tmp_path: Path) -> None:
    root = tmp_path / "experiments"
    text = model_card(begun(root, LoRA(pretrained_model_name_or_path=base), base="sd15"))
    assert "on top of the experiment `exp1_v1`" in text
    assert "`sdlab export model exp1_v1 --format diffusers --out exp1_v1`" in text


def test_the_lines_that_load_it_run(tmp_path: Path) -> None:
    files = {"lora": None, "kohya": "a.safetensors", "folder": None, "single-file": "a.safetensors"}
    for form, file in files.items():
        text = model_card(begun(tmp_path / form, LoRA(), base="mini"), file=file, form=form)
        compile(text.split("```python\n")[1].split("```")[0], form, "exec")


@pytest.mark.parametrize("record", [{}, {"hyperparameters": None, "environment": None}, {"base": None}])
def test_missing_entries_are_left_out(record: dict[str, Any], tmp_path: Path) -> None:
    experiment = Experiment("exp1.1", tmp_path)
    experiment.update(**record)
    text = model_card(experiment)
    assert "# exp1.1" in text and "None" not in text
    assert ModelCard(text).data.to_dict()["license"] == "unknown"
    assert "# exp1.1" in model_card(Experiment("exp1.1", tmp_path / "nowhere"))
