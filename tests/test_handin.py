"""`sdlab check`: what a homework lacks, with the command for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from sdlab.cli import main
from sdlab.config import DreamBooth, LoRA
from sdlab.course.handin import Step, completeness
from sdlab.experiment import Experiment
from sdlab.homeworks import homework
from sdlab.images import generate, load_images
from sdlab.prompts import PromptSet


def step(title: str, steps: list[Step]) -> Step:
    return next(one for one in steps if one.title == title)


def finished(name: str, chosen: DreamBooth | LoRA) -> None:
    experiment = Experiment(name)
    experiment.begin(chosen, {})
    experiment.update(status="finished", base="mini")


def test_an_empty_folder_lacks_every_step_and_each_names_its_command(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["check", "--json"])
    assert stop.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["title"] for one in found["steps"]] == [
        "environment", "dataset", "base model", "DreamBooth", "LoRA", "ControlNet", "report",
    ]  # fmt: skip
    said = " ".join(line for one in found["steps"] for line in one["missing"])
    for command in ("sdlab prepare`", "sdlab train dreambooth`", "sdlab sweep lora --learn", "sdlab report`"):
        assert f"`{command}" in said
    assert not found["complete"]


def test_photos_are_counted_and_measured(workplace: Path) -> None:
    Path("data/instance_images").mkdir(parents=True)
    for number in range(15):
        Image.new("RGB", (128, 128)).save(f"data/instance_images/{number:02}.png")
    assert step("dataset", completeness()).complete
    Image.new("RGB", (128, 96)).save("data/instance_images/00.png")
    (line,) = step("dataset", completeness()).missing
    assert line.startswith("00.png isn't 128×128: run `sdlab prepare`;")
    (line,) = step("dataset", completeness(base="sd15")).missing
    assert "run `sdlab prepare --base sd15`;" in line


def test_a_homework_asks_for_its_own_experiments_and_parameters(workplace: Path) -> None:
    asked = homework("B")
    finished("exp1.1", asked.dreambooths["exp1.1"])
    finished("exp2", asked.dreambooths["exp3"])  # another prior weight and rate than the homework's exp2
    lines = step("DreamBooth", completeness("B")).missing
    assert not any(line.startswith("exp1.1 ") for line in lines)
    assert any("exp2 was trained with prior_loss_weight=1.2 for 1" in line for line in lines)
    assert "exp3 isn't trained: `sdlab homework B` prints its command" in lines
    assert "images of exp1.1 for 0 of 5 prompts: `sdlab generate exp1.1`" in lines


def test_a_report_that_leaves_out_experiments_is_not_complete(workplace: Path) -> None:
    for name in ("lora_a", "lora_b"):
        finished(name, LoRA())
    head = "<!-- made by `sdlab report` 01234567: -->\n"
    Path("results/report").mkdir(parents=True)
    Path("results/report/README.md").write_text(head + "| `lora_a` |\n", encoding="utf-8")
    assert "it doesn't show lora_b: run `sdlab report`" in step("report", completeness()).missing


def test_an_image_that_its_record_does_not_make_is_named(workplace: Path) -> None:
    finished("lora", LoRA())  # so that base stands for mini
    generate(
        "base", PromptSet({"street": "a woman"}), images_per_prompt=2, num_inference_steps=2, base="mini"
    )
    assert step("made again", completeness(reproduce=2)).complete
    first = load_images("base")[0]
    kept = PngImagePlugin.PngInfo()
    with Image.open(first.path) as image:
        kept.add_text("sdlab", image.info["sdlab"])
    Image.new("RGB", (first.width, first.height), "white").save(first.path, pnginfo=kept)
    (line,) = step("made again", completeness(reproduce=2)).missing
    assert "street_img1.png isn't what its record makes: mean difference" in line
