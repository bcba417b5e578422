"""Class images: shared by base, prompt and sampling, filled up by seed, and a folder of one's own is used."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sdlab.cli import main
from sdlab.sampling import class_images, image_files, read_record

OPTIONS = {"num_inference_steps": 1, "resolution": 64, "progress": False}
PROMPT = "a photo of woman face"


def test_another_first_seed_shares_what_is_there(workplace: Path) -> None:
    folder = class_images("mini", PROMPT, 2, **OPTIONS)
    before = {file.name: file.stat().st_mtime_ns for file in image_files(folder)}
    assert class_images("mini", PROMPT, 4, seed=1, **OPTIONS) == folder
    after = {file.name: file.stat().st_mtime_ns for file in image_files(folder)}
    assert len(after) == 4 and after | before == after
    seeds = [read_record(file)["seed"] for file in image_files(folder)]
    assert len(set(seeds)) == 4
    other = class_images("mini", PROMPT, 1, negative_prompt="blurry", **OPTIONS)
    assert other != folder


def test_a_folder_of_ones_own_is_filled_up(workplace: Path) -> None:
    (workplace / "mine").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(f"mine/{number}.jpg")
    before = {file: file.read_bytes() for file in (workplace / "mine").iterdir()}
    assert class_images("mini", PROMPT, 4, folder="mine", **OPTIONS) == Path("mine")
    assert len(image_files("mine")) == 4
    assert all(file.read_bytes() == content for file, content in before.items())


def test_the_command_takes_diffusers_and_short_names(workplace: Path) -> None:
    (workplace / "mine").mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(f"mine/{number}.jpg")
    main(["class-images", "--class-prompt", PROMPT, "--num", "2", "--class_data_dir", "mine"])
    assert len(image_files("mine")) == 2  # they are enough


def test_a_folder_of_another_prompt_is_refused(workplace: Path) -> None:
    folder = class_images("mini", PROMPT, 1, folder="mine", **OPTIONS)
    with pytest.raises(
        ValueError, match=r"mine holds 1 class images of 'a photo of woman face', and 'a photo"
    ):
        class_images("mini", "a photo of man face", 1, folder=folder, **OPTIONS)


def test_nothing_is_written_where_nothing_is_missing(workplace: Path) -> None:
    folder = class_images("mini", PROMPT, 1, folder="mine", **OPTIONS)
    (folder / ".lock").unlink(missing_ok=True)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    class_images("mini", PROMPT, 1, folder=folder, **OPTIONS)
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
