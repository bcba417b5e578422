"""Explorers for a notebook: sliders over checkpoints and LoRA scales, a wipe, and a table to choose from.

A widget holds all its pictures from the start. What it is set to reaches the page as one line of CSS, so
moving a slider sends no picture, and the explorers need no scripts of their own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab import notebook, thumbnails
from sdlab.experiment import Experiment, names_of
from sdlab.images import ImageRecord, generate
from sdlab.models import checkpoint_names, resolve
from sdlab.prompts import PromptSet
from sdlab.tables import Cell, Heading, Table, table
from sdlab.templates import render

if TYPE_CHECKING:
    from PIL import Image

SCALES = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
_MAX_BYTES = 4_000_000  # of one widget's pictures; they go from the kernel to the page in one message


@dataclass(frozen=True)
class Explorer:
    """Shown by a notebook: the widget where it is alive, its table everywhere else."""

    table: Callable[[], Table]
    build: Callable[[], Any]

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        shown = self.table()
        widget = self.build() if notebook.has_widgets() else None
        return notebook.bundle(shown.html(max_bytes=60_000), repr(shown), widget)


def checkpoint_slider(
    experiment: str | Experiment, prompts: PromptSet, *, root: str | Path = "experiments", **options: Any
) -> Explorer:
    """Shows the same prompts and seed over the steps of a finished training, from its base to its end.

    Train with `checkpoints_total_limit=None` to have all its checkpoints. What is missing is generated to
    `<results>/<experiment>@step<N>/`; `options` are for `generate`, such as `seed` and `results`.
    """
    found = _find(experiment, root)
    below = resolve(found.hyperparameters.pretrained_model_name_or_path, found.root).experiment
    steps = {name: name.rpartition("@step")[2] for name in checkpoint_names(found.path, root)}
    labels = {below.name if below else "base": "0", **steps, found.name: str(found.record["steps"])}
    return _slider("step", labels, prompts, found.root, **options)


def lora_scale_slider(
    experiment: str | Experiment,
    prompts: PromptSet,
    scales: Sequence[float] = SCALES,
    *,
    root: str | Path = "experiments",
    **options: Any,
) -> Explorer:
    """Shows the same prompts and seed with more and more of a LoRA added to its base; 1 is as trained.

    What is missing is generated to `<results>/<experiment>@<scale>/`; `options` are for `generate`.
    """
    if not scales:
        raise ValueError("scales needs one value at least, got none. Usual: 0 to 1.5.")
    found = _find(experiment, root)
    labels = {f"{found.name}@{scale:g}": f"{scale:g}" for scale in scales}
    return _slider("scale", labels, prompts, found.root, **options)


def wipe(first: str | Path | ImageRecord, second: str | Path | ImageRecord) -> Explorer:
    """Lays two images (files, or records from `generate`) over each other, with a slider between them."""
    headings, cells = [], []
    for side, image in (("left", first), ("right", second)):
        file = image.path if isinstance(image, ImageRecord) else Path(image)
        if not file.is_file():
            raise ValueError(f"An image to compare must be a file, got {str(file)!r}. Generate it first.")
        heading = Heading("/".join(file.parts[-2:]))
        if isinstance(image, ImageRecord):
            heading = Heading(image.experiment, (image.prompt_name, f"seed {image.seed}"), image.prompt)
        headings.append(heading)
        alt = ": ".join(filter(None, (", ".join([heading.title, *heading.details]), heading.text)))
        cells.append(Cell(side, alt, (file,), whole=True))
    shown = Table((Heading(""),), tuple(headings), (tuple(cells),), images_per_cell=1)

    def slider(widgets: Any) -> Any:
        return widgets.IntSlider(50, 0, 100, readout=False, description="wipe")

    return _sliding(shown, slider, 400, ".{key} {{ --at: {value}% }}", "wipe.html")


def table_filter(
    experiments: Iterable[str | Experiment],
    prompts: PromptSet,
    *,
    results: str | Path = "results",
    root: str | Path = "experiments",
    images_per_cell: int = 4,
) -> Explorer:
    """Shows a table of which experiments and prompts can be ticked; a click shows a cell in full size.

    Its `table()` holds what is ticked.
    """
    names = names_of(experiments)
    options: dict[str, Any] = {"results": results, "root": root, "images_per_cell": images_per_cell}
    shown = table(names, prompts, **options)
    rows, columns = dict.fromkeys(names, True), dict.fromkeys(prompts.prompts, True)

    def current() -> Table:
        # with nothing ticked the widget shows nothing, and a table of nothing is no table
        kept = [name for name in names if rows[name]] or names
        chosen = {name: text for name, text in prompts.prompts.items() if columns[name]}
        return table(kept, PromptSet(chosen or dict(prompts.prompts), prompts.negative_prompt), **options)

    def build() -> Any:
        import ipywidgets

        key, style = f"sdlab-{secrets.token_hex(4)}", ipywidgets.HTML()  # another explorer has another key

        def follow() -> None:
            style.value = _hidden(key, rows, columns)

        follow()
        width = 160 if images_per_cell == 1 else 264  # CSS pixels: each image has more than 128
        page = render("filter.html", key=key, table=shown, pictures=_pictures(shown), width=width)
        ticks = _boxes("experiments", rows, follow), _boxes("prompts", columns, follow)
        return ipywidgets.VBox([*ticks, ipywidgets.HTML(page), style])

    return Explorer(current, build)


def _boxes(title: str, ticked: dict[str, bool], follow: Callable[[], None]) -> Any:
    """A row of boxes; what is ticked goes into `ticked`, then `follow` is called."""
    import ipywidgets

    layout = ipywidgets.Layout(width="auto", margin="2px 8px")
    boxes = [
        ipywidgets.Checkbox(on, description=name, indent=False, layout=layout) for name, on in ticked.items()
    ]

    def tick(change: dict[str, Any]) -> None:
        ticked[change["owner"].description] = change["new"]
        follow()

    for box in boxes:
        box.observe(tick, "value")
    row = ipywidgets.Layout(flex_flow="row wrap")
    return ipywidgets.Box([ipywidgets.HTML(f"<b>{title}</b>"), *boxes], layout=row)


def _slider(
    what: str,
    labels: dict[str, str],
    prompts: PromptSet,
    root: Path,
    *,
    results: str | Path = "results",
    progress: bool = True,
    **options: Any,
) -> Explorer:
    """A slider that shows one row at a time of a table of some models, an image for each prompt."""
    import tqdm.auto

    # on a page, a bar of text leaves an empty red line; without one, a widget leaves a widget
    bar = tqdm.auto.tqdm if notebook.has_widgets() else tqdm.tqdm
    options = {"images_per_prompt": 1, **options, "progress": False, "results": results, "root": root}
    base = resolve(list(labels)[-1], root).root_name
    for name in bar(labels, desc="images", unit="row", leave=False, disable=not progress):
        generate(name, prompts, base=base, **options)
    shown = table(labels, prompts, images_per_cell=1, root=root, results=results)

    def slider(widgets: Any) -> Any:
        rows = [(text, row) for row, text in enumerate(labels.values())]
        return widgets.SelectionSlider(options=rows, value=len(rows) - 1, description=what)

    css = ".{key} .frame:nth-of-type({nth}) {{ display: flex }}"
    return _sliding(shown, slider, 480, css, "frames.html", what=what, labels=[*labels.values()])


def _sliding(
    shown: Table, slider: Callable[[Any], Any], width: int, css: str, template: str, **values: Any
) -> Explorer:
    """A slider over a page of pictures, `width` CSS pixels wide; its value goes into the CSS."""

    def build() -> Any:
        import ipywidgets

        key, control = f"sdlab-{secrets.token_hex(4)}", slider(ipywidgets)
        control.layout = ipywidgets.Layout(width="100%", max_width=f"{width}px")
        page = render(template, key=key, table=shown, pictures=_pictures(shown), width=width, **values)
        style = ipywidgets.HTML()

        def follow(change: Any = None) -> None:
            style.value = f"<style>{css.format(key=key, value=control.value, nth=control.value + 1)}</style>"

        control.observe(follow, "value")
        follow()
        return ipywidgets.VBox([control, ipywidgets.HTML(page), style])

    return Explorer(lambda: shown, build)


def _hidden(key: str, rows: dict[str, bool], columns: dict[str, bool]) -> str:
    """CSS that hides what isn't ticked; the first column holds the rows' names."""
    hidden = [f".{key} tbody tr:nth-child({index})" for index, on in enumerate(rows.values(), 1) if not on]
    hidden += [f".{key} tr > :nth-child({index})" for index, on in enumerate(columns.values(), 2) if not on]
    return f"<style>{', '.join(hidden)} {{ display: none }}</style>" if hidden else ""


def _find(experiment: str | Experiment, root: str | Path) -> Experiment:
    """The experiment, if it is finished; `resolve` says what to do if it isn't."""
    found = Experiment.load(experiment.path if isinstance(experiment, Experiment) else experiment, root)
    resolve(found.path, found.root)
    return found


def _pictures(shown: Table) -> dict[Any, dict[str, Any]]:
    """For each cell's name its picture `small` and in `full` size, as large as a widget may carry them."""
    cells = [cell for row in shown.cells for cell in row]
    images = {cell.name: thumbnails.readable(cell.images) for cell in cells}
    full: dict[Any, list[str]] = {}
    for side, quality in ((768, 85), (512, 75), (384, 65), (256, 55)):
        full = {name: [_uri(image, side, quality) for image in some] for name, some in images.items()}
        if sum(len(uri) for uris in full.values() for uri in uris) < _MAX_BYTES:
            break
    pictures = {}
    for cell in cells:
        small = shown.picture(cell)
        uri = thumbnails.data_uri(small, 75) if small else ""
        pictures[cell.name] = {"cell": cell, "small": uri, "full": full[cell.name]}
    return pictures


def _uri(image: Image.Image, side: int, quality: int) -> str:
    return thumbnails.data_uri(thumbnails.fitted(image, min(side, max(image.size))), quality)
