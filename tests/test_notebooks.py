"""The notebooks run from top to bottom on the mini model, alone, and are as short as we promise."""

from __future__ import annotations

import ast
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import torch
from diffusers import DDPMScheduler

import sdlab
from sdlab import machine
from sdlab.models import load_pipeline

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
RUSSIAN = sorted((FOLDER / "ru").glob("*.ipynb"))
MAGIC = re.compile(r"^(\s*)([%!].*)", re.MULTILINE)
# Fewer steps and images than the course takes; everything else is as it is.
FAST = """
import dataclasses
from sdlab.profiles import PROFILES
less = {"dreambooth_steps": 4, "lora_steps": 4, "num_class_images": 2, "num_inference_steps": 2}
PROFILES["mini"] = dataclasses.replace(PROFILES["mini"], **less, validation_steps=2)
"""


def cells(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def test_the_course_has_six_notebooks() -> None:
    names = ["environment", "dataset", "dreambooth", "lora_sweeps", "controlnet", "report"]
    assert [path.stem for path in NOTEBOOKS] == [f"{n:02d}_{name}" for n, name in enumerate(names)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_are_short_and_explained(path: Path) -> None:
    lengths = [len(source.splitlines()) for source in cells(path, "code")]
    assert statistics.median(lengths) <= 6 and max(lengths) <= 15
    prose = " ".join(cells(path, "markdown"))
    assert len(re.findall(r"\w+", prose)) >= 5 * sum(lengths)
    for word in ("Open in Colab", "**Goal.**", "**Needs.**", "**Takes**", "## Summary", "## Exercises"):
        assert word in prose


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_russian_notebook_has_the_same_code_and_outputs(path: Path) -> None:
    english, russian = (nbformat.read(one, 4).cells for one in (path, FOLDER / "ru" / path.name))
    assert [cell.cell_type for cell in english] == [cell.cell_type for cell in russian]
    for one, other in zip(english, russian, strict=True):
        if one.cell_type == "code":
            assert program(one.source) == program(other.source)
            assert one.outputs == other.outputs
        else:
            assert headings(one.source) == headings(other.source)
            assert re.search("[а-я]{3}", other.source)


def program(source: str) -> tuple[str, list[str]]:
    """What a cell does: its syntax tree, which has no comments, and its magics."""
    magics = [found[1] for found in MAGIC.findall(source)]
    return ast.dump(ast.parse(MAGIC.sub(r"\1pass", source))), magics


def headings(source: str) -> list[str]:
    return re.findall(r"^(#+|\d+\.) ", source, re.MULTILINE)


@pytest.mark.parametrize("path", NOTEBOOKS + RUSSIAN, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", "\n".join(cells(path, "markdown")))
    assert len(links) >= 3
    for link in links:
        if link.startswith("https://colab"):
            assert link.endswith(f"/blob/main/{path.relative_to(FOLDER.parent).as_posix()}")
        elif not link.startswith("https://"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", NOTEBOOKS + RUSSIAN, ids=lambda path: path.name)
def test_outputs_are_committed_and_small(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    assert path.stat().st_size <= 500_000
    assert "widgets" not in notebook.metadata
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len(outputs) >= 5
    assert not re.search(r"/(home|root|tmp|Users)/", str(outputs)), "a folder of the machine that ran it"
    assert not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]


def test_all_begin_with_the_same_cell_and_have_one_for_parameters() -> None:
    first = {cells(path, "code")[0] for path in NOTEBOOKS}
    assert len(first) == 1 and "google.colab" in first.pop()
    for path in NOTEBOOKS:
        parameters = cells(path, "code")[1].splitlines()
        assert parameters[0].startswith('BASE = "mini"')
        assert all("=" in line and "#" in line for line in parameters)


def test_the_first_cell_finds_the_course_from_any_folder_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MAGIC.sub(r"\1pass", cells(NOTEBOOKS[0], "code")[0])
    course = tmp_path / "project" / "course"
    for folder in (tmp_path / "elsewhere", course / "notebooks" / "ru", course / "data" / "raw_images"):
        folder.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()  # the course may lie in another project
    (course / "pyproject.toml").touch()
    (course / "notebooks" / "00_environment.ipynb").touch()
    for place, home in [
        *((course / inside, course) for inside in (".", "notebooks", "notebooks/ru", "data/raw_images")),
        (tmp_path / "elsewhere", tmp_path / "elsewhere"),
    ]:
        monkeypatch.chdir(place)
        for _ in range(2):
            exec(source, {})
            assert Path.cwd() == home
    os.chdir(tmp_path)


def test_publish_writes_the_repository_into_every_notebook(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "notebooks")
    script = tmp_path / "notebooks/publish.py"
    subprocess.run([sys.executable, script, "someone/some-course"], check=True, capture_output=True)
    for path in sorted(script.parent.rglob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        assert "OWNER" not in text and nbformat.reads(text, 4)
        place = path.relative_to(tmp_path).as_posix()
        assert f"colab.research.google.com/github/someone/some-course/blob/main/{place}" in text
        assert "git clone --quiet --depth 1 https://github.com/someone/some-course sdlab" in text


def test_dreambooths_loop_by_hand_gives_the_numbers_of_the_library(
    short: Callable[..., Any], workplace: Path
) -> None:
    first = short("dreambooth", max_train_steps=2, num_held_out_images=0, train_batch_size=2)
    trained = sdlab.train("two", first, progress=False)
    folder = sdlab.class_images(
        "mini", first.class_prompt, 2, resolution=first.resolution, progress=False
    )  # those of the training
    names: dict[str, Any] = {"BASE": "mini", "BY_HAND": 2, "first": first, "device": machine.device()}
    names |= {"torch": torch, "load_pipeline": load_pipeline, "pipeline": load_pipeline("mini")}
    names["schedule"] = DDPMScheduler.from_config(names["pipeline"].scheduler.config)
    names["profile"] = SimpleNamespace(resolution=first.resolution)
    names["dataset"] = SimpleNamespace(images=sorted(Path(first.instance_data_dir).glob("*.png")))
    names["class_files"] = sorted(folder.glob("*.png"))
    for cell in cells(FOLDER / "02_dreambooth.ipynb", "code"):
        if any(text in cell for text in ("sources = [", "by_hand = load_pipeline", "range(BY_HAND)")):
            exec(cell, names)
    row = trained.log()[-1]
    by_hand = torch.tensor(names["losses"]).mean(dim=0).tolist()
    assert by_hand == pytest.approx([row["instance_loss"], row["prior_loss"]], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run_alone_from_an_empty_folder(path: Path, workplace: Path) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.source = re.sub(r"^BY_HAND = \d+", "BY_HAND = 2", cell.source, flags=re.MULTILINE)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FAST))
    NotebookClient(
        notebook, timeout=600, startup_timeout=300, resources={"metadata": {"path": str(workplace)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    html = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert sum("sdlab" in text for text in html) >= 1
    assert all(len(text) < 1_000_000 for text in html)
    said = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert "/sdlab/" not in said, "a warning that points into our own code"
    answers = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "Not answered yet" in answers
