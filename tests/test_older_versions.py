"""What leaves here is read by transformers 4 and the diffusers of its time as the same model.

They lie in a folder of their own, which isn't the one that the tests run in:

    pip install --no-deps --target older transformers==4.57.1 diffusers==0.35.2 huggingface_hub==0.36.0 \
        tokenizers==0.22.1 peft==0.17.1
    SDLAB_OLDER_PACKAGES=older pytest tests/test_older_versions.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from sdlab.experiment import DreamBooth, LoRA  # noqa: E402
from sdlab.exports import export_lora, export_model  # noqa: E402
from sdlab.models import load_pipeline  # noqa: E402
from sdlab.training import train  # noqa: E402
from tests.test_formats import image  # noqa: E402

OLDER = os.environ.get("SDLAB_OLDER_PACKAGES", "")
READ = """
import sys, torch, transformers
from diffusers import StableDiffusionPipeline
assert transformers.__version__.startswith("4.")
folder, lora, out = sys.argv[1:]
pipeline = StableDiffusionPipeline.from_pretrained(folder)
if lora:
    pipeline.load_lora_weights(lora)
options = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "pt"}
made = pipeline("a photo of a woman", generator=torch.Generator().manual_seed(3), **options).images
torch.save(torch.as_tensor(made), out)
"""


def read_by_older(folder: Path, lora: Path | None, out: Path) -> torch.Tensor:
    """The image that the older versions make of a folder."""
    environment = os.environ | {"PYTHONPATH": str(Path(OLDER).resolve())}
    command = [sys.executable, "-c", READ, str(folder), str(lora or ""), str(out)]
    subprocess.run(command, check=True, env=environment, cwd=out.parent)
    return torch.load(out)


@pytest.mark.slow
@pytest.mark.skipif(not OLDER, reason="SDLAB_OLDER_PACKAGES names no folder with transformers 4")
def test_older_versions_make_the_same_images(short: Callable[..., DreamBooth | LoRA], tmp_path: Path) -> None:
    full = train("full", short("dreambooth", max_train_steps=1, with_prior_preservation=False), root=tmp_path)
    lora = train("lora", short("lora", max_train_steps=2, train_text_encoder=True), root=tmp_path)
    base = export_model("mini", tmp_path / "base", format="diffusers")
    kohya = export_lora("lora", tmp_path / "kohya.safetensors", root=tmp_path)
    cases = [(base, None, "mini"), (full.model_folder, None, "full")]
    cases += [(base, lora.lora_file, "lora"), (base, kohya, "lora")]
    for folder, file, name in cases:
        found = read_by_older(folder, file, tmp_path / "image.pt")
        ours = torch.as_tensor(image(load_pipeline(name, root=tmp_path)))
        assert float((found - ours).abs().max()) < 1e-3, (name, file)
