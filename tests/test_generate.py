from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from sdlab import mini
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.exports import export_lora, export_model
from sdlab.images import ImageRecord, by_setting, generate, load_images
from sdlab.models import resolve
from sdlab.prompts import HOMEWORK_A, PromptSet
from sdlab.sampling import (
    choose_sampling,
    class_images,
    image_files,
    read_record,
    ready_pipeline,
    sample,
    write_image,
)
from sdlab.tables import table
from sdlab.tables.building import setting_text
from sdlab.training import train
from sdlab.words import Words

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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_inference_steps": 1000}, "at least 1 and below 1000, got 1000"),
        ({"width": 0}, "width must be at least 8, got 0"),
        ({"resolution": 0}, "width must be at least 8, got 0"),
    ],
)
def test_what_no_model_can_sample_is_refused(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose_sampling("mini", **wrong)


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


def test_another_setting_makes_room_instead_of_being_mixed(place: Path) -> None:
    results = place / "settings"
    options = {"num_inference_steps": 1, "resolution": 64, "progress": False, "results": results}
    options |= {"root": place / "experiments"}
    first = generate("lora", PROMPTS, images_per_prompt=3, **options)
    before = {record.path.name: record.path.read_bytes() for record in first}
    with pytest.warns(UserWarning, match=r"6 images in .*lora were made with another guidance_scale, seed"):
        again = generate("lora", PROMPTS, images_per_prompt=2, seed=100, guidance_scale=5, **options)
    assert load_images("lora", results=results) == again and len(again) == 4  # no third image of the other
    (setting,) = by_setting(again)
    assert (setting.first_seed, setting.guidance_scale) == (100, 5)
    with pytest.warns(UserWarning, match="made with another"):
        generate("lora", PROMPTS, images_per_prompt=3, **options)
    assert {record.path.name: record.path.read_bytes() for record in first} == before  # brought back


def test_prompts_keep_their_order_and_settings_are_told_apart(place: Path) -> None:
    prompts = PromptSet({"zebra": "a woman, desert", "apple": "a woman, moon"}, "blurry")
    options = {"num_inference_steps": 1, "resolution": 64, "progress": False}
    options |= {"root": place / "experiments", "results": place / "order"}
    generate("lora", prompts, images_per_prompt=1, **options)
    generate("lora", PromptSet({"late": "a woman"}), images_per_prompt=1, width=128, height=64, **options)
    found = load_images("lora", results=place / "order")
    assert [record.prompt_name for record in found] == ["late", "zebra", "apple"]
    newest, older = by_setting(found)
    assert (newest.width, newest.height, newest.negative_prompt) == (128, 64, "")
    assert pixels(found[0].path).shape == (64, 128, 3) and "128×64" in setting_text(newest, Words("en"))
    assert older.negative_prompt == "blurry"


def test_an_interrupted_generation_leaves_a_list_of_what_is_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def interrupted(*arguments: object, **options: object) -> list[Image.Image]:
        if made:
            raise KeyboardInterrupt
        made.append(1)
        return sample(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("sdlab.sampling.sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(
            "lora",
            PROMPTS,
            images_per_prompt=2,
            batch_size=1,
            num_inference_steps=1,
            resolution=64,
            root=place / "experiments",
            results=place / "interrupted",
            progress=False,
        )
    folder = place / "interrupted" / "lora"
    listed = json.loads((folder / "images.json").read_text())["images"]
    assert (
        [row["file"] for row in listed] == [file.name for file in image_files(folder)] == ["street_img1.png"]
    )


def test_records_of_before_there_were_width_and_height_are_read(tmp_path: Path) -> None:
    row = {"file": "p_img1.png", "experiment": "lora", "prompt_name": "p", "number": 1, "prompt": "a woman"}
    row |= {"negative_prompt": "", "seed": 3, "num_inference_steps": 1, "guidance_scale": 2.0}
    row |= {"sampler": "own", "resolution": 64, "model": "m"}
    write_image(tmp_path / "lora" / "p_img1.png", Image.new("RGB", (64, 64)), row)
    (record,) = load_images("lora", results=tmp_path)
    assert (record.width, record.height, record.setting.first_seed) == (64, 64, 3)


def test_a_base_that_was_replaced_under_a_lora_is_noticed(
    short: Callable[..., DreamBooth | LoRA], tmp_path: Path
) -> None:
    base = shutil.copytree(mini.path(), tmp_path / "base")
    train("lora", short("lora", str(base), max_train_steps=1), root=tmp_path, progress=False)
    weights = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(
        {name: weight * 1.01 for name, weight in weights.items()},
        base / "unet" / "diffusion_pytorch_model.safetensors",
        metadata={"format": "pt"},
    )
    said = "lora was trained on another .*base than the one that is there now"
    with pytest.raises(ValueError, match=said):
        generate("lora", PROMPTS, root=tmp_path, results=tmp_path / "results", progress=False)
    with pytest.raises(ValueError, match=said):
        export_model("lora", tmp_path / "out", format="diffusers", root=tmp_path)
    with pytest.warns(UserWarning, match=said):
        export_lora("lora", tmp_path / "lora.safetensors", root=tmp_path)
    assert not (tmp_path / "results").exists() and not (tmp_path / "out").exists()


def test_two_models_whose_images_would_have_one_name_are_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = shutil.copytree(mini.path(), tmp_path / str(number) / "model")
        (folder / "unet" / "note.json").write_text(str(number))  # which makes them two
    with pytest.raises(ValueError, match="are two models, and the images of both would be called model"):
        generate([tmp_path / "1" / "model", tmp_path / "2" / "model"], PROMPTS, results=tmp_path)


def test_images_of_before_a_training_anew_are_noticed(
    short: Callable[..., DreamBooth | LoRA], tmp_path: Path
) -> None:
    places = {"root": tmp_path, "results": tmp_path / "results"}
    train("lora", short("lora", max_train_steps=1), root=tmp_path, progress=False)
    generate("lora", PROMPTS, images_per_prompt=1, num_inference_steps=1, progress=False, **places)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table(["lora"], PROMPTS, **places)
    shutil.rmtree(tmp_path / "lora")
    train("lora", short("lora", max_train_steps=1, seed=9), root=tmp_path, progress=False)
    with pytest.warns(UserWarning, match="2 images of lora were made before it was trained as it is now"):
        table(["lora"], PROMPTS, **places)


def test_a_size_that_the_base_was_not_made_for_is_warned_about(place: Path) -> None:
    with pytest.warns(UserWarning, match="mini was made for images of 128×128, and 512×512 is asked for"):
        resolve("mini").check(512, 512)


def test_a_picture_of_the_users_own_is_not_overwritten(place: Path) -> None:
    folder = place / "own" / "lora"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(folder / "street_img1.png")
    mine = (folder / "street_img1.png").read_bytes()
    with pytest.warns(UserWarning, match="1 images in .*lora were made with another name or program"):
        generate(
            "lora",
            PROMPTS,
            images_per_prompt=1,
            num_inference_steps=1,
            resolution=64,
            root=place / "experiments",
            results=place / "own",
            progress=False,
        )
    assert [file.read_bytes() for file in (folder / "earlier").iterdir()] == [mine]


def test_what_is_no_image_of_its_name_makes_room(place: Path) -> None:
    results = place / "renamed"
    options = {"images_per_prompt": 1, "num_inference_steps": 1, "resolution": 64, "progress": False}
    where = {"root": place / "experiments", "results": results}
    generate("lora", PROMPTS.first(1), **options, **where)
    first, *_ = PROMPTS.prompts
    (results / f"lora/{first}_img1.png").rename(results / "lora/moon_img1.png")
    (results / f"lora/{first}_img1.png").write_text("notes of the user")
    with pytest.warns(UserWarning, match="2 images in .*lora were made with another name or program"):
        made = generate("lora", PROMPTS, **options, **where)
    assert [one.prompt_name for one in made] == list(PROMPTS.prompts)
    kept = [file.read_bytes() for file in (results / "lora/earlier").iterdir()]
    assert len(kept) == 2 and b"notes of the user" in kept
    assert len(load_images("lora", results=place / "own")) == 2
