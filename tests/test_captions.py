"""Images with captions of their own are trained with these, the others with the instance prompt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from sdlab.experiment import Experiment
from sdlab.photos import prepare, read_captions
from sdlab.sampling import image_files
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
        seen = training.model.prompts.embeddings([SimpleNamespace(images=[[0, 1], [0, 1]])])
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


def test_captions_of_taggers_and_kohya_are_read_beside_the_images(
    instance_images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "captioned"
    shutil.copytree(instance_images, folder)
    (folder / "1.txt").write_text("sks woman,\n forest\n")
    (folder / "2.caption").write_bytes("\ufeffsks woman, ночь".encode("utf-16-le"))
    (folder / "3.txt").write_text("sks woman, beach")
    (folder / "captions.txt").write_text("3.png: sks woman, street\n")
    (folder / "notes.txt").write_text("of no image")
    assert read_captions(folder) == {
        "1.png": "sks woman, forest",
        "2.png": "sks woman, ночь",
        "3.png": "sks woman, street",
    }


def test_captions_beside_raw_photos_come_along(instance_images: Path, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(instance_images, raw)
    (raw / "1.txt").write_text("sks woman, forest")
    dataset = prepare(raw, out, 64, progress=False)
    assert read_captions(out) == {"1.png": "sks woman, forest"} and dataset.ignored == ()
    (out / "captions.txt").write_text("1.png: sks woman, street\n")
    prepare(raw, out, 64, progress=False)
    assert read_captions(out) == {"1.png": "sks woman, street"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1.png: one\n2.png: two\n1.png: three\n", r"line 3 of .* gives 1\.png another caption"),
        ("1.png: one\n\nphoto_2.png: two\n", r"line 3 of .* names photo_2\.png, which isn't in"),
        ("1.jpg: one\n", r"names 1\.jpg, .* Did you mean 1\.png\?"),
    ],
)
def test_a_caption_that_would_be_lost_is_an_error(
    lines: str, said: str, instance_images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "captioned"
    shutil.copytree(instance_images, folder)
    (folder / "captions.txt").write_text(lines)
    with pytest.raises(ValueError, match=said):
        read_captions(folder)


def test_captions_of_dropped_photos_wait_for_them(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    Image.effect_noise((90, 90), 90).convert("RGB").save(raw / "sharp.png")
    Image.new("RGB", (90, 90), "grey").save(raw / "flat.png")
    prepare(raw, out, 64, captions="a photo of sks woman", progress=False)
    prepare(raw, out, 64, drop=["blurry"], progress=False)
    assert set(read_captions(out)) == {"sharp.png", "flat.png"} and not (out / "flat.png").exists()


def test_captions_of_photos_and_images_that_are_gone_wait_for_them(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for name in "abc":
        Image.effect_noise((90, 90), 90).convert("RGB").save(raw / f"{name}.png")
    prepare(raw, out, 64, captions="a photo of sks woman", progress=False)
    kept = (raw / "a.png").rename(tmp_path / "a.png")
    for _ in range(2):
        prepare(raw, out, 64, captions="a photo of sks woman", progress=False)
        assert not (out / "a.png").exists() and {"b.png", "c.png"} <= set(read_captions(out))
    (out / "b.png").unlink()
    assert "c.png" in read_captions(out)
    kept.rename(raw / "a.png")
    prepare(raw, out, 64, progress=False)
    assert set(read_captions(out)) == {"a.png", "b.png", "c.png"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_captions_saved_on_windows_are_read(encoding: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "captions.txt").write_bytes("a.png: a photo of sks woman face, café\r\n".encode(encoding))
    assert read_captions(tmp_path) == {"a.png": "a photo of sks woman face, café"}
    (tmp_path / "captions.txt").write_bytes("a.png: женщина\n".encode("cp1251"))
    with pytest.raises(ValueError, match=r"captions\.txt isn't text in UTF-8\. Save it as UTF-8"):
        read_captions(tmp_path)
