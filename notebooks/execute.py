"""Run notebooks from top to bottom, in order, in one folder, and keep their outputs in them.

    python notebooks/execute.py                               # all six in an empty folder, as a student does
    python notebooks/execute.py notebooks/04_controlnet.ipynb # one of them alone

The Russian notebooks have the same code, so they take the outputs of the English ones. Prints how long each
took, and what came by stderr that isn't a progress bar.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

MAX_BYTES = 500_000
WIDGETS = "application/vnd.jupyter.widget-view+json"
PROGRESS = re.compile(r"\d+%\||it/s|s/it|^\s*$")


def execute(path: Path, folder: Path) -> float:
    """Execute in place; progress bars and widget state are left out.

    Args:
        path: the notebook.
        folder: where it runs.

    Returns:
        Seconds.
    """
    notebook = nbformat.read(path, 4)
    start = time.perf_counter()
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}).execute()
    seconds = time.perf_counter() - start
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            for line in strange(cell.outputs):
                print(f"{path.name}: stderr: {line}")
            cell.outputs = [slimmed(output) for output in cell.outputs if worth_keeping(output)]
    notebook.metadata.pop("widgets", None)
    here = str(path.resolve().parent.parent) + "/"  # whose folder it was means nothing to others
    path.write_text(nbformat.writes(notebook).replace(here, "") + "\n", encoding="utf-8")
    copy_outputs(path, path.parent / "ru" / path.name)
    print(f"{path}: {seconds:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)
    return seconds


def copy_outputs(path: Path, translation: Path) -> None:
    """Give a notebook in another language the outputs of the one that was executed."""
    executed, translated = nbformat.read(path, 4), nbformat.read(translation, 4)
    for cell, other in zip(executed.cells, translated.cells, strict=True):
        if cell.cell_type == "code":
            other.outputs, other.execution_count = cell.outputs, cell.execution_count
    translation.write_text(nbformat.writes(translated) + "\n", encoding="utf-8")


def strange(outputs: list[nbformat.NotebookNode]) -> list[str]:
    """What came by stderr and is no progress bar."""
    text = "".join(output.text for output in outputs if output.get("name") == "stderr")
    return [line for line in re.split(r"[\r\n]", text) if not PROGRESS.search(line)]


def worth_keeping(output: nbformat.NotebookNode) -> bool:
    """Whether a reader gains from an output: not from progress bars, and not from a widget alone."""
    if output.output_type == "stream":
        return output.name == "stdout" and bool(output.text.strip())
    data = output.get("data", {})
    return WIDGETS not in data or bool(data.keys() - {WIDGETS, "text/plain"})


def slimmed(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output without its widget, whose state isn't kept, and each picture in its smaller form."""
    data = output.get("data", {})
    data.pop(WIDGETS, None)
    if "image/png" in data:
        data["image/png"] = with_fewer_colours(data["image/png"])
        if "image/jpeg" in data:  # Pillow sends both; one is enough
            larger = max("image/png", "image/jpeg", key=lambda kind: len(data[kind]))
            del data[larger]
    return output


def with_fewer_colours(png: str) -> str:
    """A plot in 32 colours: a quarter of the size, and the eye sees no difference."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    small = io.BytesIO()
    picture.quantize(32, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def main() -> None:
    """Run the command line."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", type=Path, nargs="*", default=sorted(here.glob("*.ipynb")))
    parser.add_argument("--folder", type=Path, help="where they run, and what is there is found; else empty")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        folder = options.folder or Path(empty)
        folder.mkdir(parents=True, exist_ok=True)
        seconds = sum(execute(path, folder) for path in options.notebooks)
    print(f"{len(options.notebooks)} notebooks: {seconds / 60:.1f} minutes")
    if large := [path.name for path in options.notebooks if path.stat().st_size > MAX_BYTES]:
        raise SystemExit(
            f"above {MAX_BYTES / 1000:.0f} kB: {', '.join(large)}. Show fewer or smaller pictures."
        )


if __name__ == "__main__":
    main()
