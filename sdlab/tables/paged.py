"""Tables on paper: one that is too wide is turned, then split, its row headings repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdlab.paper import A4, MARGIN, Box, Line, Paper, Way
from sdlab.tables.figures import Figures

if TYPE_CHECKING:
    from sdlab.tables.captions import Heading
    from sdlab.tables.contents import Cell, Table

NARROWEST, WIDEST, HEAD = 22.0, 52.0, 27.0  # mm: of a column of pictures, and of the row headings


def put_table(paper: Paper, table: Table, caption: str = "") -> None:
    """Puts a table of pictures on paper.

    Args:
        paper: where it goes.
        table: the table.
        caption: a line above it.
    """
    head = 0.0 if table.bare else HEAD
    count = len(table.columns)
    paper.turn(way_of(table))
    most = max(1, int((paper.width - head) // NARROWEST))
    parts = -(-count // most)
    step = -(-count // parts)
    width = min(WIDEST, (paper.width - head) / step)
    for start in range(0, count, step):
        shown = range(start, min(start + step, count))
        _put_columns(paper, table, shown, head, width, "" if start else caption)


def way_of(table: Table) -> Way:
    """How the page lies that a table needs.

    Args:
        table: the table.

    Returns:
        "portrait" where its columns are wide enough so.
    """
    head = 0.0 if table.bare else HEAD
    return "portrait" if (A4[0] - 2 * MARGIN - head) / len(table.columns) >= NARROWEST else "landscape"


def _put_columns(paper: Paper, table: Table, shown: range, head: float, width: float, caption: str) -> None:
    first = [] if table.bare else [head]
    columns = [_heading(table.columns[index], 4) for index in shown]
    titled = any(box.lines for box in columns)
    rows = [
        [*([] if table.bare else [_heading(heading, 9)]), *(_box(table, cells[index]) for index in shown)]
        for heading, cells in zip(table.rows, table.cells, strict=True)
    ]
    above = [*([] if table.bare else [Box()]), *columns] if titled else []
    paper.grid([*first, *(width for _ in shown)], above, rows, 6.8, caption)


def _heading(heading: Heading, lines: int) -> Box:
    """Title, details, and the beginning of the prompt."""
    title = (Line(heading.title, bold=True),) if heading.title else ()
    text = (Line(heading.text, quiet=True, most=lines),) if heading.text else ()
    return Box((*title, *(Line(detail, quiet=True) for detail in heading.details), *text))


def _box(table: Table, cell: Cell) -> Box:
    hint = (Line(cell.hint, quiet=True),) if cell.hint else ()
    height = 0.5 if table.images_per_cell == 2 else 1.0
    return Box(hint, table.shown(cell), empty=height if cell.hint else 0.0)


def put_figures(paper: Paper, figures: Figures, caption: str = "") -> None:
    """Puts a table of figures on paper, in letters that let it fit.

    Args:
        paper: where it goes.
        figures: the figures.
        caption: a line above them.
    """
    paper.turn()
    figures = figures.written()
    if not len(figures.columns):
        return
    for size, folded in ((8.0, False), (7.0, False), (6.2, False), (7.0, True), (6.0, True)):
        widths = {name: _natural(paper, figures, name, size, folded=folded) for name in figures.columns}
        if sum(widths.values()) <= paper.width:
            break
    for index, columns in enumerate(_parts(widths, paper.width)):
        head = [Box((Line(name.replace("_", " "), bold=True),)) for name in columns]
        rows = [
            [Box((Line(row.get(name, ""), bold=name == columns[0]),)) for name in columns]
            for row in figures.to_dict("records")
        ]
        paper.grid([widths[name] for name in columns], head, rows, size, "" if index else caption)


def _parts(widths: Mapping[str, float], total: float) -> list[list[str]]:
    """Columns that fit beside each other, the first column in each part."""
    first, *others = widths
    parts = [[first]]
    for name in others:
        if sum(widths[one] for one in parts[-1]) + widths[name] > total:
            parts.append([first])
        parts[-1].append(name)
    return parts


def _natural(paper: Paper, figures: Figures, name: str, size: float, *, folded: bool) -> float:
    """A column's width where its name takes two lines at most, and values one, or two where folded."""
    first = name == figures.columns[0]
    names = _folded(paper, name.replace("_", " "), size, bold=True)
    if folded and not first:
        values = [_folded(paper, row.get(name, ""), size) for row in figures.to_dict("records")]
    else:
        values = [paper.measure(row.get(name, ""), size, bold=first) for row in figures.to_dict("records")]
    return min(max([names, *values]), 70.0) + 2.4


def _folded(paper: Paper, text: str, size: float, *, bold: bool = False) -> float:
    """The width of a text in two lines."""
    words = text.split() or [""]
    halves = [(" ".join(words[:n]), " ".join(words[n:])) for n in range(1, len(words) + 1)]
    return min(max(paper.measure(half, size, bold=bold) for half in both) for both in halves)
