from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdlab import mini
from sdlab.experiment import Experiment, LoRA
from sdlab.exports import export_model
from sdlab.models import SD15, load_pipeline, resolve


def test_names_and_places_resolve(tmp_path: Path) -> None:
    assert resolve("mini").source == str(mini.path())
    assert resolve(mini.path()).root_name == "mini"
    assert (resolve("sd15").kind, resolve("sd15").source) == ("hub", SD15)
    assert resolve(SD15).root_name == "sd15"
    assert resolve("someone/some-model").kind == "hub"
    (tmp_path / "civitai.safetensors").touch()
    assert resolve(tmp_path / "civitai.safetensors").kind == "file"


def test_an_unknown_base_lists_the_choices(tmp_path: Path) -> None:
    Experiment("exp1.1", tmp_path).begin(LoRA(), {})
    with pytest.raises(ValueError, match=r"'minni'. Did you mean 'mini'\? Choose from: mini, sd15, exp1\.1"):
        resolve("minni", tmp_path)
    with pytest.raises(ValueError, match="Unknown base model"):
        resolve(tmp_path / "no_such_folder")


def test_an_unfinished_experiment_is_no_base(tmp_path: Path) -> None:
    Experiment("exp1.1", tmp_path).begin(LoRA(), {})
    with pytest.raises(ValueError, match=r"'exp1\.1' is stopped.*Train it to its end first"):
        resolve("exp1.1", tmp_path)


def test_the_pipeline_is_whole_and_has_no_safety_checker() -> None:
    pipeline = load_pipeline("mini")
    assert pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels
    assert pipeline.safety_checker is None


def test_a_fingerprint_follows_the_weights_not_the_place(tmp_path: Path) -> None:
    copy = shutil.copytree(mini.path(), tmp_path / "copy")
    assert resolve(copy).fingerprint == resolve("mini").fingerprint
    weights = next((copy / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert resolve(copy).fingerprint != resolve("mini").fingerprint


def test_without_a_network_the_other_ways_to_a_base_model_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OSError, match=rf"{SD15} can't be downloaded .*download_and_convert\.sh"):
        load_pipeline("sd15")
    file = export_model("mini", tmp_path / "single.safetensors")
    with pytest.raises(OSError, match=r"holds weights alone.*once.* sdlab convert .*single\.safetensors"):
        load_pipeline(file)
