"""Images with captions of their own are trained with these, the others with the instance prompt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdlab.experiment import Experiment
from sdlab.images import image_files
from sdlab.training import train
from sdlab.training.setup import set_up


@pytest.mark.parametrize("trained", [False, True])
def test_a_caption_takes_the_place_of_the_instance_prompt(
    trained: bool, short: Callable[..., Any], instance_images: Path, workplace: Path
) -> None:
    shutil.copytree(instance_images, "captioned")
    (workplace / "captioned/captions.txt").write_text("1.png: a photo of sks woman face, forest\n")
    chosen = short("dreambooth", instance_data_dir="captioned", train_text_encoder=trained)
    files = image_files("captioned")
    training = set_up(Experiment("exp1"), chosen, [files, files[:2]], lambda text: None)
    with torch.no_grad():
        seen = training.model.prompts.embeddings([[[0, 1], [0, 1]]])
        for row, text in enumerate(
            [
                chosen.instance_prompt,
                "a photo of sks woman face, forest",
                chosen.class_prompt,
                chosen.class_prompt,
            ]
        ):
            tokens = training.model.pipeline.tokenizer(
                text, padding="max_length", return_tensors="pt"
            ).input_ids
            assert torch.allclose(seen[row], training.model.pipeline.text_encoder(tokens)[0][0], atol=1e-5)


def test_an_experiment_goes_on_with_its_captions_only(
    short: Callable[..., Any], instance_images: Path, workplace: Path
) -> None:
    shutil.copytree(instance_images, "captioned")
    chosen = short("lora", instance_data_dir="captioned", max_train_steps=1)
    assert train("lora", chosen, progress=False).status == "finished"
    (workplace / "captioned/captions.txt").write_text("1.png: a photo of sks woman face, forest\n")
    with pytest.raises(ValueError, match="captions was 'none'"):
        train("lora", chosen, progress=False)
