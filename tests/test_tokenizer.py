"""CLIP's tokenizer is taken from wherever it already is on this machine."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from transformers import CLIPTokenizer

from sdlab.formats.conversion import clip_tokenizer

ROOT = Path(__file__).parent.parent
CLIP = next((place for up in ROOT.parents[:2] if (place := up / "shared/data/clip_tokenizer").is_dir()), None)
TEXT = "a photo of sks woman's face, Обь, 3 cats"


@pytest.fixture
def clip(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CLIP's real tokenizer, and a machine without network and cache."""
    if CLIP is None:
        pytest.skip("shared/data/clip_tokenizer isn't there")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(workplace / "cache"))
    return CLIP


@pytest.mark.parametrize(
    "place",
    [
        "cache/models--somebody--some-model/snapshots/0123/tokenizer",
        "cache/models--openai--clip-vit-large-patch14/snapshots/0123",
        "cache_dir/models/other/tokenizer",
        "experiments/full/model/tokenizer",
    ],
)
def test_another_models_tokenizer_is_taken(place: str, clip: Path, workplace: Path) -> None:
    with pytest.raises(OSError, match="--tokenizer FOLDER"):
        clip_tokenizer()
    shutil.copytree(clip, workplace / place)
    assert clip_tokenizer().resolve() == workplace / place


def test_it_is_made_from_the_merges_of_an_installed_package(
    clip: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merges = (clip / "merges.txt").read_text(encoding="utf-8").splitlines()
    package = workplace / "packages" / "open_clip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    more = "\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *merges[1:], "more merges", "than used"])
    (package / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(more.encode()))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    made = clip_tokenizer()
    assert json.loads((made / "vocab.json").read_text()) == json.loads((clip / "vocab.json").read_text())
    ours, theirs = CLIPTokenizer.from_pretrained(made), CLIPTokenizer.from_pretrained(clip)
    assert ours(TEXT).input_ids == theirs(TEXT).input_ids
    assert ours.model_max_length == 77
