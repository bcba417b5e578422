"""Two images over each other, with a slider that wipes from one to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdlab.images import ImageRecord
from sdlab.panels.explorer import Explorer, new_key, pictures
from sdlab.tables import Cell, Heading, Table
from sdlab.templates import render

_WIDTH = 400  # CSS pixels


def wipe(first: str | Path | ImageRecord, second: str | Path | ImageRecord) -> Explorer:
    """Lays two images over each other, and wipes from one to the other by a slider.

    Args:
        first: A picture's file, or the record of an image, as `generate` returns it; on the left.
        second: The other one, on the right.

    Returns:
        The explorer; its table shows the two beside each other.

    Raises:
        ValueError: There is no such file.

    Taught in: notebooks/04
    """
    headings, cells = [], []
    for place, image in (("left", first), ("right", second)):
        path = image.path if isinstance(image, ImageRecord) else Path(image)
        if not path.is_file():
            raise ValueError(f"An image to compare must be a file, got {str(path)!r}. Generate it first.")
        heading = _heading(image)
        headings.append(heading)
        alt = ": ".join(part for part in (", ".join([heading.title, *heading.details]), heading.text) if part)
        cells.append(Cell(place, alt, (path,), whole=True))
    shown = Table((Heading(""),), tuple(headings), (tuple(cells),), images_per_cell=1)

    def build() -> Any:
        import ipywidgets

        key = new_key()
        chosen = ipywidgets.HTML()
        slider = ipywidgets.IntSlider(
            50,
            0,
            100,
            description="wipe",
            readout=False,
            layout=ipywidgets.Layout(width="100%", max_width=f"{_WIDTH}px"),
        )

        def choose(change: object = None) -> None:
            chosen.value = f"<style>.{key} {{ --at: {slider.value}% }}</style>"

        slider.observe(choose, "value")
        choose()
        made = list(pictures(shown).values())
        drawn = render("wipe.html", key=key, pictures=made, headings=headings, width=_WIDTH)
        return ipywidgets.VBox([ipywidgets.HTML(drawn), slider, chosen])

    return Explorer(lambda: shown, build)


def _heading(image: str | Path | ImageRecord) -> Heading:
    if isinstance(image, ImageRecord):
        return Heading(image.experiment, (image.prompt_name, f"seed {image.seed}"), image.prompt)
    path = Path(image)
    return Heading(f"{path.parent.name}/{path.name}" if path.parent.name else path.name)
