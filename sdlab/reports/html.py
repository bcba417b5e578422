"""The report as report.html: one file that needs no other and prints well."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sdlab import thumbnails
from sdlab.reports import prose
from sdlab.reports.blocks import Place, Section, shares
from sdlab.templates import render
from sdlab.words import Words

MAX_BYTES = 1_000_000  # of all pictures, as base64


def render_page(sections: Sequence[Section], folder: Path, say: Words) -> str:
    """Write the report as HTML, to memory.

    Args:
        sections: the report.
        folder: of README.md, where the student's own pictures lie.
        say: the language.

    Returns:
        The page.
    """
    return render(
        "report.html",
        title=title_of(sections),
        sections=sections,
        share=shares(sections, MAX_BYTES),
        identity=id,
        width=lambda table: table.fitting(1112, 160),
        picture=partial(thumbnails.data_uri, quality=85),
        prose=partial(prose.html, folder=folder),
        say=say,
    )


def title_of(sections: Sequence[Section]) -> str:
    """The report's title, as the student may have changed it."""
    texts = [block.text for block in sections[0].blocks if isinstance(block, Place)]
    return prose.title(texts[0])[0] or "sdlab"
