"""What a notebook, a terminal and a page without widgets show of trainings and comparisons."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

from sdlab import panels
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.images import generate
from sdlab.prompts import PromptSet
from sdlab.training import train
from sdlab.training.curve import draw_curve
from sdlab.training.summary import Summary

ROOT = Path(__file__).parent.parent
HOSTILE = "<img src=x onerror=alert(1)> of sks woman"
WIDGET = "application/vnd.jupyter.widget-view+json"
FEW = {"num_inference_steps": 2, "resolution": 64}


@pytest.fixture(scope="module")
def trained(short: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a LoRA of four steps that has a checkpoint at each second one, and validation images."""
    folder = tmp_path_factory.mktemp("trained")
    chosen = short(
        "lora",
        checkpoints_total_limit=None,
        validation_steps=2,
        validation_prompt=HOSTILE,
        num_validation_images=1,
    )
    before = os.getcwd()
    os.chdir(folder)
    try:
        train("lora", chosen, progress=False)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


def prompts() -> PromptSet:
    return PromptSet({"street": "sks woman on the street", "hostile": HOSTILE})


def test_the_summary_shows_figures_curves_and_images_with_text_that_stays_text(here: Path) -> None:
    experiment = Experiment("lora")
    summary = Summary(experiment, experiment.hyperparameters, 4)
    rows = experiment.log()
    assert summary.figures()["validation loss"] == f"{rows[-1]['validation_loss']:.4f}"
    page = summary.head("step 4 of 4") + summary.body()
    lowest = min((row["validation_loss"], row["step"]) for row in rows)
    assert f"(lowest {lowest[0]:.4f} at step {lowest[1]})" in page
    assert "before training" in page and "after step 4" in page and "after step 2" not in page
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert not [tag for tag in re.findall(r"<img[^>]*>", page) if 'alt="' not in tag]
    assert len(page) < 80_000


def test_the_summary_leaves_out_images_of_steps_that_were_taken_back(here: Path) -> None:
    experiment = Experiment("lora")
    assert "after step 4" not in Summary(experiment, experiment.hyperparameters, 3).body()


def test_a_validation_image_that_is_no_picture_is_left_out(here: Path) -> None:
    experiment = Experiment("lora")
    torn = experiment.validation_folder / "step_000004_img2.png"
    torn.write_bytes(b"\x89PNG\r\n")
    page = Summary(experiment, experiment.hyperparameters, 4).body()
    torn.unlink()
    assert "validation image 1, after step 4" in page and "validation image 2" not in page


@pytest.mark.parametrize("values", [{1: 0.2}, {0: 0.5, 10: 0.5}, {0: 1e-9, 10: 3e4}, {0: -1.0, 5: 1.0}])
def test_any_curve_can_be_drawn(values: dict[int, float]) -> None:
    picture = Image.open(io.BytesIO(draw_curve("loss", values, 10, "#ff0000")))
    assert picture.size == (580, 300)
    red = [x for x in range(picture.width) for y in range(300) if picture.getpixel((x, y))[:3] == (255, 0, 0)]
    assert red  # the curve itself
    assert max(red) > 540 or max(values) < 10  # the last step is at the right edge


def test_a_terminal_shows_a_bar_with_the_same_figures(short: Callable[..., Any], workplace: Path) -> None:
    chosen = short("lora", validation_steps=2)
    (workplace / "chosen.json").write_text(json.dumps(chosen.as_dict()))
    code = (
        "import json, sys, sdlab; from sdlab.config import from_dict; "
        "chosen = from_dict(json.load(open('chosen.json'))); "
        "sdlab.train(f'exp{sys.argv[1]}', chosen, progress=sys.argv[1] == '1')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown, silent = (
        subprocess.run(
            [sys.executable, "-c", code, flag], capture_output=True, text=True, env=environment, check=True
        )
        for flag in "10"
    )
    bar = shown.stderr.split("\r")[-1]
    assert "4/4" in bar
    for figure in ("loss (smoothed)=", "validation loss=", "learning rate=", "peak memory="):
        assert figure in bar
    assert "finished" not in silent.stdout + silent.stderr and "step" not in silent.stderr


@pytest.mark.slow
def test_a_notebook_without_a_reader_keeps_html_and_no_widgets(
    short: Callable[..., Any], workplace: Path
) -> None:
    from nbclient import NotebookClient
    from traitlets.config import Config

    chosen = short("lora", validation_steps=2, checkpoints_total_limit=None, validation_prompt=HOSTILE)
    (workplace / "chosen.json").write_text(json.dumps(chosen.as_dict()))
    cells = [
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\nimport json, sdlab\nfrom sdlab import panels\n"
        "from sdlab.config import from_dict\nchosen = from_dict(json.load(open('chosen.json')))\n"
        f"prompts = sdlab.PromptSet({prompts().prompts!r})",
        "sdlab.sweep(chosen, rank=[2, 4]);",
        f"panels.checkpoint_slider('lora_rank2_lr5e-3', prompts, **{FEW!r})",
        "panels.wipe(*[one.path for one in sdlab.generate('base', prompts, images_per_prompt=1, "
        f"**{FEW!r})])",
        "panels.table_filter(['base', 'lora_rank2_lr5e-3'], prompts, images_per_cell=1)",
        "sdlab.train('quiet', chosen, progress=False);",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    # sockets of its own: a port may be taken by another program before the kernel has started
    own = Config({"KernelManager": {"transport": "ipc"}})
    patience = {"timeout": 900, "startup_timeout": 300}  # seconds
    place = {"metadata": {"path": str(workplace)}}
    NotebookClient(notebook, config=own, resources=place, **patience).execute()
    shown = [
        [output.data for output in cell.outputs if "data" in output and "text/html" in output.data]
        for cell in notebook.cells
    ]
    assert [len(one) for one in shown] == [0, 2, 1, 1, 1, 0]  # a summary of each training, and the tables
    assert all("sdlab-panel" in data["text/html"] for data in shown[1])
    assert all("sdlab-table" in one[0]["text/html"] for one in shown[2:5])
    for data in (data for one in shown for data in one):
        assert WIDGET not in data and len(data["text/html"]) < 80_000
        assert "<img src=x" not in data["text/html"]


def test_the_checkpoint_slider_has_a_row_for_the_base_and_each_checkpoint(here: Path) -> None:
    shown = panels.checkpoint_slider("lora", prompts(), progress=False, **FEW).table()
    assert [heading.title for heading in shown.rows] == ["base model", "lora@step2", "lora"]
    assert all(cell.images and not cell.hint for row in shown.cells for cell in row)


def test_an_experiment_brings_its_own_root(trained: Path, workplace: Path) -> None:
    experiment = Experiment("lora", trained / "experiments")
    shown = panels.lora_scale_slider(experiment, prompts(), (1,), progress=False, **FEW)
    assert all(cell.images for cell in shown.table().cells[0])


def test_the_scale_slider_generates_what_is_missing_under_its_names(here: Path) -> None:
    generate("lora@0.5", prompts(), images_per_prompt=1, progress=False, **FEW)
    kept = Path("results/lora@0.5/street_img1.png")
    before = kept.stat().st_mtime_ns
    shown = panels.lora_scale_slider("lora", prompts(), (0, 0.5, 1.5), progress=False, **FEW)
    assert [heading.title for heading in shown.table().rows] == ["lora@0", "lora@0.5", "lora@1.5"]
    assert kept.stat().st_mtime_ns == before
    assert Path("results/lora@0/street_img1.png").read_bytes() != kept.read_bytes()


def test_a_wipe_takes_files_and_records(here: Path) -> None:
    street, hostile = generate("base", prompts(), images_per_prompt=1, progress=False, **FEW)
    shown = panels.wipe(street, hostile.path).table()
    assert [cell.images for cell in shown.cells[0]] == [(street.path,), (hostile.path,)]
    assert shown.columns[0].details == ("street", "seed 0")
    with pytest.raises(ValueError, match=r"must be a file, got 'nowhere\.png'"):
        panels.wipe(street, "nowhere.png")


def test_the_widgets_carry_full_size_pictures_and_escaped_prompts(here: Path) -> None:
    explorer = panels.checkpoint_slider("lora", prompts(), progress=False, **FEW)
    slider, frames, style = explorer.build().children
    assert "<img src=x" not in frames.value and "&lt;img src=x" in frames.value
    pictures = [base64.b64decode(found) for found in re.findall(r"image/webp;base64,([^\"]+)", frames.value)]
    widths = [Image.open(io.BytesIO(picture)).width for picture in pictures]
    assert widths.count(64) == 6  # three rows of two prompts, as they were generated
    slider.value = 0
    assert "nth-of-type(1)" in style.value


def test_the_filter_s_table_holds_what_is_ticked(here: Path) -> None:
    generate(["base", "lora"], prompts(), images_per_prompt=1, progress=False, **FEW)
    explorer = panels.table_filter(["base", "lora"], prompts(), images_per_cell=1)
    experiments, columns, _, style = explorer.build().children
    next(box for box in experiments.children if getattr(box, "description", "") == "base").value = False
    next(box for box in columns.children if getattr(box, "description", "") == "hostile").value = False
    shown = explorer.table()
    assert [row.title for row in shown.rows] == ["lora"] and [one.title for one in shown.columns] == [
        "street"
    ]
    assert "tr:nth-child(1)" in style.value and ":nth-child(3)" in style.value


def test_explorers_refuse_what_they_cannot_show(short: Callable[..., DreamBooth | LoRA], here: Path) -> None:
    with pytest.raises(ValueError, match="nobody"):
        panels.checkpoint_slider("nobody", prompts())
    with pytest.raises(ValueError, match="scales needs one value at least"):
        panels.lora_scale_slider("lora", prompts(), ())
    with pytest.raises(ValueError, match="scale must be a number from 0 on, got '-1'"):
        panels.lora_scale_slider("lora", prompts(), (0, -1))
