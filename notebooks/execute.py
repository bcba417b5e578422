"""Run a notebook from top to bottom in an empty folder and keep its outputs in it.

python notebooks/execute.py notebooks/02_dreambooth.ipynb
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

MAX_BYTES = 500_000


def execute(path: Path) -> None:
    """Execute in place; progress bars, warnings of the kernel and widget state are left out.

    Args:
        path: the notebook.
    """
    notebook = nbformat.read(path, 4)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if worth_keeping(output)]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)
    print(f"{path}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1000:.0f} kB")
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path} is larger than {MAX_BYTES / 1000:.0f} kB. Show fewer or smaller pictures.")


def worth_keeping(output: nbformat.NotebookNode) -> bool:
    """Whether a reader gains from an output: not from progress bars, which come by stderr or as widgets."""
    if output.output_type == "stream":
        return output.name == "stdout" and bool(output.text.strip())
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
        return False
    if "image/jpeg" in output.get("data", {}):  # Pillow sends both; the smaller one is enough
        output.data.pop("image/png", None)
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", type=Path, nargs="+")
    for notebook in parser.parse_args().notebooks:
        execute(notebook)
