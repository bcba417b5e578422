from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.images import (
    ImageRecord,
    choose_sampling,
    class_images,
    generate,
    image_files,
    load_images,
    read_record,
    ready_pipeline,
    sample,
)
from sdlab.prompts import HOMEWORK_A, PromptSet
from sdlab.training import train

PROMPTS = PromptSet(
    {"street": "portrait of sks woman, on the street", "moon": "a face of sks woman, moon"}, "blurry"
)


@pytest.fixture(scope="module")
def place(short: Callable[..., DreamBooth | LoRA], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one trained experiment, `lora`."""
    folder = tmp_path_factory.mktemp("place")
    train("lora", short("lora", learning_rate=1e-2), root=folder / "experiments", progress=False)
    return folder


def run(
    place: Path, experiments: list[str], prompts: PromptSet = PROMPTS, images: int = 2
) -> list[ImageRecord]:
    return generate(
        experiments,
        prompts,
        images_per_prompt=images,
        num_inference_steps=2,
        resolution=64,
        seed=7,
        root=place / "experiments",
        results=place / "results",
        progress=False,
    )


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"), dtype=int)


def times(place: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (place / "results" / "lora").glob("*.png")}


def test_images_are_there_described_and_differ_between_experiments(place: Path) -> None:
    records = run(place, ["base", "lora"])
    names = ["street_img1.png", "street_img2.png", "moon_img1.png", "moon_img2.png"]
    assert [record.path.name for record in records] == names * 2
    assert [record.seed for record in records] == [7, 8] * 4  # the same seeds in every experiment
    assert load_images("lora", results=place / "results") == records[4:]
    listed = json.loads((place / "results/lora/images.json").read_text())["images"]
    assert listed[0] == read_record(records[4].path) == records[4].as_dict()
    assert listed[0]["negative_prompt"] == "blurry"
    base, tuned = pixels(records[0].path), pixels(records[4].path)
    assert base.shape == (64, 64, 3) and not np.array_equal(base, tuned)


def test_finished_images_are_kept_and_changed_ones_made_anew(place: Path) -> None:
    run(place, ["lora"])
    before = times(place)
    run(place, ["lora"])
    assert times(place) == before
    run(place, ["lora"], PromptSet(PROMPTS.prompts | {"moon": "a face of sks woman, desert"}, "blurry"))
    after = times(place)
    assert {name for name in after if after[name] != before[name]} == {"moon_img1.png", "moon_img2.png"}


def test_a_deleted_or_broken_image_is_made_again_as_it_was(place: Path) -> None:
    records = run(place, ["lora"])
    first, second = (record.path for record in records[:2])
    before = [pixels(first), pixels(second)]
    first.unlink()
    second.write_bytes(b"torn")
    run(place, ["lora"])
    assert all(
        np.abs(now - then).max() <= 1 for now, then in zip(map(pixels, (first, second)), before, strict=True)
    )


def test_an_image_does_not_depend_on_its_batch() -> None:
    sampling = choose_sampling("mini", num_inference_steps=2, resolution=64)
    pipeline = ready_pipeline("mini", sampling)
    together = sample(pipeline, ["a woman", "a man"], [1, 2], sampling)
    alone = sample(pipeline, ["a man"], [2], sampling)
    difference = np.abs(np.asarray(together[1], dtype=int) - np.asarray(alone[0], dtype=int))
    assert difference.max() <= 1  # rounding: other batch sizes add up in another order


def test_a_prompt_that_is_too_long_is_named_with_what_is_cut(place: Path) -> None:
    prompts = PromptSet({"long": "woman " * 75 + "with a green hat"})
    with pytest.warns(UserWarning, match=r"75 are read\. Not read: 'with a green hat'"):
        run(place, ["lora"], prompts, images=1)


def test_bad_requests_are_refused_before_anything_is_made(place: Path) -> None:
    with pytest.raises(ValueError, match=r"still holds {subject}\. Fill it in"):
        run(place, ["lora"], HOMEWORK_A)
    with pytest.raises(ValueError, match=r"'lara'\. Did you mean 'lora'"):
        run(place, ["lara"])
    with pytest.raises(ValueError, match="images_per_prompt must be at least 1, got 0"):
        run(place, ["lora"], images=0)
    Experiment("unfinished", place / "experiments").begin(LoRA(), {"base_fingerprint": None})
    with pytest.raises(ValueError, match="'unfinished' is stopped"):
        run(place, ["unfinished"])


def test_class_images_go_on_where_they_stopped(workplace: Path) -> None:
    options = {"num_inference_steps": 1, "resolution": 64, "progress": False}
    folder = class_images("mini", "a photo of woman face", 2, **options)
    before = {file.name: file.stat().st_mtime_ns for file in image_files(folder)}
    assert class_images("mini", "a photo of woman face", 3, **options) == folder
    after = {file.name: file.stat().st_mtime_ns for file in image_files(folder)}
    assert len(after) == 3 and after | before == after
    assert class_images("mini", "a photo of man face", 1, **options) != folder
