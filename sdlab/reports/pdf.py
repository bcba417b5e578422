"""The report as report.pdf: A4 pages with numbers; no table is wider than its page, no picture is cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdlab.paper import Paper
from sdlab.reports import prose
from sdlab.reports.blocks import Block, Flags, Numbers, Paragraph, Pictures, Place, Plot, Points, Section
from sdlab.reports.flags import in_lines
from sdlab.reports.html import title_of
from sdlab.tables.paged import put_figures, put_table
from sdlab.words import Words


def render(sections: Sequence[Section], folder: Path, say: Words) -> bytes:
    """Write the report as PDF, to memory.

    Args:
        sections: the report.
        folder: of README.md, where the student's own pictures lie.
        say: the language.

    Returns:
        The file's bytes.
    """
    title = title_of(sections)
    paper = Paper(title, say.language)
    paper.heading(title)
    for section in sections:
        if section.title:
            paper.heading(section.title, level=2)
        for block in section.blocks:
            _put(paper, block, folder)
    return paper.pdf()


def _put(paper: Paper, block: Block, folder: Path) -> None:
    match block:
        case Paragraph(text):
            paper.paragraph(text)
        case Points(points):
            paper.points(points)
        case Flags(flags):
            paper.code(in_lines(flags))
        case Numbers(figures, caption):
            put_figures(paper, figures, caption)
        case Plot(_, image, caption):
            paper.picture(image, caption=caption)
        case Pictures(table, caption):
            put_table(paper, table, caption)
        case Place(key, text):
            rest = prose.title(text)[1] if key == "title" else text
            if rest:
                paper.html(prose.html(rest, folder))
