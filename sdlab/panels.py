"""Explorers for a notebook: sliders over checkpoints and LoRA scales, a wipe, and a table to choose from.

A widget holds all its pictures from the start. What it is set to reaches the page as one line of CSS, so
moving a slider sends no picture, and the explorers need no scripts of their own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab import notebook, thumbnails
from sdlab.experiment import Experiment
from sdlab.images import ImageRecord, generate
from sdlab.models import checkpoint_names, resolve
from sdlab.prompts import PromptSet
from sdlab.tables import Cell, Heading, Table, table
from sdlab.templates import render

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
    experiment: str | Experiment,
    prompts: PromptSet,
    *,
    root: str | Path = "experiments",
    results: str | Path = "results",
    progress: bool = True,
    **sampling: Any,
) -> Explorer:
    """Shows the same prompts and seed over the steps of a finished training, from its base to its end.

    Train with `checkpoints_total_limit=None` to have all its checkpoints. What is missing is generated to
    `<results>/<experiment>@step<N>/`; `sampling` is for `generate`, such as `seed`.
    """
    found = _find(experiment, root)
    below = resolve(found.hyperparameters.pretrained_model_name_or_path, found.root).experiment
    between = checkpoint_names(found.path, root)
    names = [below.name if below else "base", *between, found.name]
    labels = ["0", *(name.rpartition("@step")[2] for name in between), str(found.record["steps"])]
    return _slider("step", labels, _generated(names, prompts, found.root, results, progress, sampling))


def lora_scale_slider(
    experiment: str | Experiment,
    prompts: PromptSet,
    scales: Sequence[float] = SCALES,
    *,
    root: str | Path = "experiments",
    results: str | Path = "results",
    progress: bool = True,
    **sampling: Any,
) -> Explorer:
    """Shows the same prompts and seed with more and more of a LoRA added to its base; 1 is as trained.

    What is missing is generated to `<results>/<experiment>@<scale>/`; `sampling` is for `generate`.
    """
    if not scales:
        raise ValueError("scales needs one value at least, got none. Usual: 0 to 1.5.")
    found = _find(experiment, root)
    names = [f"{found.name}@{scale:g}" for scale in scales]
    for name in names:
        resolve(name, found.root)  # raises where it is no LoRA, before anything is made
    labels = [f"{scale:g}" for scale in scales]
    return _slider("scale", labels, _generated(names, prompts, found.root, results, progress, sampling))


def wipe(first: str | Path | ImageRecord, second: str | Path | ImageRecord) -> Explorer:
    """Lays two images (files, or records from `generate`) over each other, with a slider between them."""
    headings = [_heading(image) for image in (first, second)]
    files = [image.path if isinstance(image, ImageRecord) else Path(image) for image in (first, second)]
    texts = [": ".join(filter(None, (", ".join([h.title, *h.details]), h.text))) for h in headings]
    cells = [
        Cell(*one, whole=True) for one in zip(("left", "right"), texts, [(f,) for f in files], strict=True)
    ]
    for file in files:
        if not file.is_file():
            raise ValueError(f"An image to compare must be a file, got {str(file)!r}. Generate it first.")
    shown = Table((Heading(""),), tuple(headings), (tuple(cells),), images_per_cell=1)

    def build() -> Any:
        import ipywidgets

        key, width = _key(), 400  # CSS pixels
        drawn = render(
            "wipe.html", key=key, pictures=[*_pictures(shown).values()], headings=headings, width=width
        )
        layout = ipywidgets.Layout(width="100%", max_width=f"{width}px")
        slider = ipywidgets.IntSlider(50, 0, 100, description="wipe", readout=False, layout=layout)
        style = _following(slider, lambda value: f".{key} {{ --at: {value}% }}")
        return ipywidgets.VBox([ipywidgets.HTML(drawn), slider, style])

    return Explorer(lambda: shown, build)


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
    names = [entry if isinstance(entry, str) else entry.name for entry in experiments]
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

        key = _key()
        style = ipywidgets.HTML(_hidden(key, rows, columns))

        def boxes(title: str, ticked: dict[str, bool]) -> Any:
            layout = ipywidgets.Layout(width="auto", margin="2px 8px")
            made = [
                ipywidgets.Checkbox(on, description=name, indent=False, layout=layout)
                for name, on in ticked.items()
            ]
            for box in made:
                box.observe(lambda change: tick(ticked, change), "value")
            row = ipywidgets.Layout(flex_flow="row wrap")
            return ipywidgets.Box([ipywidgets.HTML(f"<b>{title}</b>"), *made], layout=row)

        def tick(ticked: dict[str, bool], change: dict[str, Any]) -> None:
            ticked[change["owner"].description] = change["new"]
            style.value = _hidden(key, rows, columns)

        width = 160 if images_per_cell == 1 else 264  # CSS pixels: each image has more than 128
        page = render("filter.html", key=key, table=shown, pictures=_pictures(shown), width=width)
        drawn = ipywidgets.HTML(page)
        return ipywidgets.VBox([boxes("experiments", rows), boxes("prompts", columns), drawn, style])

    return Explorer(current, build)


def _slider(what: str, labels: list[str], shown: Table) -> Explorer:
    """A slider that shows one row of the table at a time."""

    def build() -> Any:
        import ipywidgets

        key, made = _key(), _pictures(shown)
        rows = [[made[cell.name] for cell in row] for row in shown.cells]
        frames = render("frames.html", key=key, rows=rows, columns=shown.columns, labels=labels, what=what)
        options = [(label, index) for index, label in enumerate(labels, 1)]
        layout = ipywidgets.Layout(width="100%", max_width="480px")
        slider = ipywidgets.SelectionSlider(
            options=options, value=len(labels), description=what, layout=layout
        )
        style = _following(slider, lambda row: f".{key} .frame:nth-of-type({row}) {{ display: flex }}")
        return ipywidgets.VBox([slider, ipywidgets.HTML(frames), style])

    return Explorer(lambda: shown, build)


def _following(slider: Any, css: Callable[[Any], str]) -> Any:
    """A widget without a picture of its own: the CSS that follows from where the slider stands."""
    import ipywidgets

    style = ipywidgets.HTML(f"<style>{css(slider.value)}</style>")
    slider.observe(lambda change: style.set_trait("value", f"<style>{css(change['new'])}</style>"), "value")
    return style


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


def _generated(
    names: list[str],
    prompts: PromptSet,
    root: Path,
    results: str | Path,
    progress: bool,
    sampling: dict[str, Any],
) -> Table:
    """One image for each name and prompt, generated as far as missing."""
    import tqdm.auto

    # on a page, a bar of text leaves an empty red line; without one, a widget leaves a widget
    bar = tqdm.auto.tqdm if notebook.has_widgets() else tqdm.tqdm
    options: dict[str, Any] = {"images_per_prompt": 1, "progress": False, **sampling}
    base = resolve(names[-1], root).root_name
    for name in bar(names, desc="images", unit="row", leave=False, disable=not progress):
        generate(name, prompts, base=base, root=root, results=results, **options)
    return table(names, prompts, images_per_cell=1, root=root, results=results)


def _heading(image: str | Path | ImageRecord) -> Heading:
    if isinstance(image, ImageRecord):
        return Heading(image.experiment, (image.prompt_name, f"seed {image.seed}"), image.prompt)
    path = Path(image)
    return Heading(f"{path.parent.name}/{path.name}" if path.parent.name else path.name)


def _key() -> str:
    """A name for an explorer's elements, so that those of another one keep theirs."""
    return f"sdlab-{secrets.token_hex(4)}"


def _pictures(shown: Table) -> dict[Any, dict[str, Any]]:
    """For each cell's name its picture `small` and in `full` size, as large as a widget may carry them."""
    cells = [cell for row in shown.cells for cell in row]
    encoded: dict[Any, dict[str, Any]] = {}
    for side, quality in ((768, 85), (512, 75), (384, 65), (256, 55)):
        encoded = {cell.name: _encoded(shown, cell, side, quality) for cell in cells}
        if sum(len(uri) for one in encoded.values() for uri in one["full"]) < _MAX_BYTES:
            break
    return encoded


def _encoded(shown: Table, cell: Cell, side: int, quality: int) -> dict[str, Any]:
    small = shown.picture(cell)
    images = [thumbnails.opened(path) for path in cell.images]
    fitted = [thumbnails.fitted(image, min(side, max(image.size))) for image in images]
    return {
        "alt": cell.alt,
        "hint": cell.hint,
        "small": thumbnails.data_uri(small, 75) if small else "",
        "full": [thumbnails.data_uri(image, quality) for image in fitted],
    }
