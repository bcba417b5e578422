"""The notebooks run from top to bottom on the mini model, and are as short as we promise."""

from __future__ import annotations

import statistics
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
# Fewer steps and images than the course takes; everything else is as it is.
FAST = """
import dataclasses
from sdlab.profiles import PROFILES
less = {"dreambooth_steps": 4, "lora_steps": 4, "num_class_images": 2, "num_inference_steps": 2}
PROFILES["mini"] = dataclasses.replace(PROFILES["mini"], **less)
"""


def cells(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_are_short_and_explained(path: Path) -> None:
    lengths = [len(source.splitlines()) for source in cells(path, "code")]
    assert statistics.median(lengths) <= 6 and max(lengths) <= 15
    prose = " ".join(cells(path, "markdown"))
    for word in ("**Goal.**", "**Needs.**", "**Takes**", "## Summary", "## Exercises"):
        assert word in prose
    assert path.stat().st_size <= 500_000
    assert "widgets" not in nbformat.read(path, 4).metadata


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run_from_an_empty_folder(path: Path, workplace: Path) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FAST))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(workplace)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    html = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert sum("sdlab-table" in text for text in html) >= 2
    assert all(len(text) < 1_000_000 for text in html)
