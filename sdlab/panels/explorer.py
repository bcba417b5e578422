"""What all explorers are: a table, and a widget that shows its pictures in another way.

A widget holds all its pictures from the start. What it is set to reaches the page as one line of CSS, so
moving a slider sends no picture, and the explorers need no scripts of their own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sdlab import notebook, thumbnails
from sdlab.tables import Cell, Table

_MAX_BYTES = 4_000_000  # of one widget's pictures; they go from the kernel to the page in one message


@dataclass(frozen=True)
class Explorer:
    """Shown by a notebook: the widget where it is alive, its table everywhere else.

    Args:
        current: Gives the table.
        build: Makes the widget.
    """

    current: Callable[[], Table]
    build: Callable[[], Any]

    def table(self) -> Table:
        """The same pictures side by side, without a widget.

        Returns:
            The table.
        """
        return self.current()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        table = self.table()
        widget = self.build() if notebook.has_widgets() else None
        return notebook.bundle(table.html(max_bytes=60_000), repr(table), widget)


def new_key() -> str:
    """A name for an explorer's elements, so that those of another one keep theirs."""
    return f"sdlab-{secrets.token_hex(4)}"


def pictures(table: Table) -> dict[str, dict[str, Any]]:
    """The pictures of a table's cells, small and in full size.

    Args:
        table: With images in its cells.

    Returns:
        For each cell's name: `small`, `full` (a list), and what they show in words.
    """
    cells = [cell for row in table.cells for cell in row]
    encoded: dict[str, dict[str, Any]] = {}
    for side, quality in ((768, 85), (512, 75), (384, 65), (256, 55)):
        encoded = {cell.name: _encoded(table, cell, side, quality) for cell in cells}
        if sum(len(uri) for one in encoded.values() for uri in one["full"]) < _MAX_BYTES:
            break
    return encoded


def _encoded(table: Table, cell: Cell, side: int, quality: int) -> dict[str, Any]:
    small = table.picture(cell)
    images = [thumbnails.opened(path) for path in cell.images]
    return {
        "alt": cell.alt,
        "hint": cell.hint,
        "small": thumbnails.data_uri(small, 75) if small else "",
        "full": [thumbnails.data_uri(_at_most(image, side), quality) for image in images],
    }


def _at_most(image: Any, side: int) -> Any:
    return thumbnails.fitted(image, min(side, max(image.size)))
