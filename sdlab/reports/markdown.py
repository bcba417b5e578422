"""The report as README.md for GitHub: relative pictures, and marks around what the student writes."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from sdlab import thumbnails
from sdlab.reports import places
from sdlab.reports.blocks import (
    Block,
    Flags,
    Numbers,
    Paragraph,
    Pictures,
    Place,
    Plot,
    Points,
    Section,
    shares,
)
from sdlab.reports.flags import in_lines
from sdlab.templates import markdown_text

MAX_BYTES = 700_000  # of all pictures


def render(sections: Sequence[Section]) -> tuple[str, dict[str, bytes]]:
    """Write the report as Markdown, to memory.

    Args:
        sections: the report.

    Returns:
        README.md, and path to content of its pictures.
    """
    pictures: dict[str, bytes] = {}
    share = shares(sections, MAX_BYTES)
    parts = []
    for section in sections:
        if section.title:
            parts.append(f"## {markdown_text(section.title)}")
        parts += [_block(block, share, pictures) for block in section.blocks]
    body = "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"
    return f"{places.head(body)}\n\n{body}", pictures


def linked(path: str) -> str:
    """A picture's path as README.md links to it."""
    return quote(path)


def _block(block: Block, share: dict[int, int], pictures: dict[str, bytes]) -> str:
    match block:
        case Paragraph(text):
            return markdown_text(text)
        case Points(points):
            return "\n".join(f"- {markdown_text(point)}" for point in points)
        case Flags(flags):
            return "```\n" + in_lines(flags).replace("```", "'''") + "\n```"
        case Numbers(figures, caption):
            return f"{_caption(caption)}\n\n{figures.markdown()}"
        case Plot(name, image, caption):
            path = f"pictures/{name}.webp"
            pictures[path] = thumbnails.webp(image, quality=85)
            picture = f'<img src="{linked(path)}" width="700" alt="{markdown_text(caption)}">'
            return f"{picture}\n\n{_caption(caption)}"
        case Pictures(table, caption):
            text, files = table.markdown_and_pictures(
                width=table.fitting(900, 150), max_bytes=share[id(table)], texts=False
            )
            pictures |= files
            return f"{_caption(caption)}\n\n{text}"
        case Place():
            return places.marked(block)


def _caption(text: str) -> str:
    return f"*{markdown_text(text)}*"
