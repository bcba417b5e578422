from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sdlab import mini
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.exports import export_model
from sdlab.models import SD15, load_pipeline, resolve
from sdlab.training import train


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


@pytest.fixture(scope="module")
def stacked(short: Callable[..., DreamBooth | LoRA], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DreamBooth `full`, and on it a LoRA `light`."""
    root = tmp_path_factory.mktemp("stacked")
    train("full", short("dreambooth", with_prior_preservation=False, max_train_steps=1), root=root)
    train("light", short("lora", "full", max_train_steps=1, root=root), root=root)
    return root


def _tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("light", lambda root: resolve("light", root).lora.unlink(), "light trained .* There is no file"),
        ("light", lambda root: _tear(resolve("light", root).lora), "light trained .* broken or truncated"),
        ("light@step1", lambda root: _tear(resolve("light@step1", root).checkpoint), "light .* truncated"),
        ("light", lambda root: shutil.rmtree(root / "full" / "model"), "full trained .*model_index.json"),
        ("full", lambda root: _tear(next((root / "full/model/vae").glob("*.safe*"))), "full .* truncated"),
        ("light", lambda root: shutil.rmtree(root / "full"), "light was trained on full and needs it"),
    ],
)
def test_what_is_lost_of_an_experiment_is_said_before_anything_is_made(
    name: str, damage: Callable[[Path], None], message: str, stacked: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(stacked, tmp_path / "experiments")
    resolve(name, root).check()
    damage(root)
    with pytest.raises(ValueError, match=message):
        resolve(name, root).check()


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
