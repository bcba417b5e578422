"""A table whose experiments and prompts are chosen by ticking them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdlab.experiment import Experiment
from sdlab.panels.explorer import Explorer, new_key, pictures
from sdlab.prompts import PromptSet
from sdlab.tables import table
from sdlab.templates import render


def table_filter(
    experiments: Iterable[str | Experiment],
    prompts: PromptSet,
    *,
    results: str | Path = "results",
    root: str | Path = "experiments",
    images_per_cell: int = 4,
) -> Explorer:
    """Shows a table of which experiments and prompts can be chosen; a click shows a cell in full size.

    Args:
        experiments: Names or experiments; `base` is the base model itself.
        prompts: The prompt set that the images were generated with.
        results: The folder that `generate` wrote to.
        root: The folder of all experiments.
        images_per_cell: 1, 2 or 4.

    Returns:
        The explorer; its table holds what is ticked.

    Raises:
        ValueError: No experiment, or another number of images per cell.

    Taught in: notebooks/05
    """
    names = [entry if isinstance(entry, str) else entry.name for entry in experiments]
    options: dict[str, Any] = {"results": results, "root": root, "images_per_cell": images_per_cell}
    shown = table(names, prompts, **options)
    rows, columns = [True] * len(names), [True] * len(prompts.prompts)

    def current() -> Any:
        chosen = {name: text for (name, text), on in zip(prompts.prompts.items(), columns, strict=True) if on}
        kept = [name for name, on in zip(names, rows, strict=True) if on]
        # with nothing ticked the widget shows nothing, and a table of nothing is no table
        return table(
            kept or names, PromptSet(chosen or dict(prompts.prompts), prompts.negative_prompt), **options
        )

    def build() -> Any:
        import ipywidgets

        key = new_key()
        chosen = ipywidgets.HTML(_hidden(key, rows, columns))

        def boxes(what: str, titles: Iterable[str], state: list[bool]) -> Any:
            made = [ipywidgets.HTML(f"<b>{what}</b>")]
            for index, title in enumerate(titles):
                box = ipywidgets.Checkbox(state[index], description=title, indent=False)
                box.layout.width, box.layout.margin = "auto", "2px 8px"

                def tick(change: dict[str, Any], index: int = index) -> None:
                    state[index] = change["new"]
                    chosen.value = _hidden(key, rows, columns)

                box.observe(tick, "value")
                made.append(box)
            return ipywidgets.Box(made, layout=ipywidgets.Layout(flex_flow="row wrap"))

        drawn = ipywidgets.HTML(render("filter.html", key=key, table=shown, pictures=pictures(shown)))
        ticks = [boxes("experiments", names, rows), boxes("prompts", prompts.prompts, columns)]
        return ipywidgets.VBox([*ticks, drawn, chosen])

    return Explorer(current, build)


def _hidden(key: str, rows: list[bool], columns: list[bool]) -> str:
    """CSS that hides what isn't ticked; the first column holds the rows' names."""
    hidden = [f".{key} tbody tr:nth-child({index})" for index, on in enumerate(rows, 1) if not on]
    hidden += [f".{key} tr > :nth-child({index})" for index, on in enumerate(columns, 2) if not on]
    return f"<style>{', '.join(hidden)} {{ display: none }}</style>" if hidden else ""
