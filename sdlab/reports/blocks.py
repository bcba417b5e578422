"""What a report is made of: sections of blocks, which README.md, report.html and report.pdf show alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from sdlab.tables import Figures, Table
from sdlab.words import Words

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Points:
    """A list of plain texts."""

    points: tuple[str, ...]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Flags:
    """Hyperparameters as the command line takes them."""

    text: str
    kind: ClassVar[str] = "flags"


@dataclass(frozen=True)
class Numbers:
    """A table of figures."""

    figures: Figures
    caption: str
    kind: ClassVar[str] = "numbers"


@dataclass(frozen=True)
class Plot:
    """A drawn figure; `name` becomes its file's name."""

    name: str
    image: Image.Image
    caption: str
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class Pictures:
    """A table of pictures."""

    table: Table
    caption: str
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Place:
    """Where the student writes Markdown, kept when the report is made again.

    Args:
        text: the draft, or what the student wrote.
        draft: what the report would say by itself.
    """

    key: str
    text: str = ""
    draft: str = ""
    kind: ClassVar[str] = "place"

    @property
    def is_draft(self) -> bool:
        """Whether the text is the report's own."""
        return bool(self.draft) and self.text == self.draft


Block = Paragraph | Points | Flags | Numbers | Plot | Pictures | Place


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; `key` is the same in all languages."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def numbered(sections: Iterable[Section], words: Words) -> Iterator[Section]:
    """Gives each table and each figure its number: `Table 1. …`, `Figure 1. …`."""
    tables = figures = 0
    for section in sections:
        blocks: list[Block] = []
        for block in section.blocks:
            if isinstance(block, Numbers | Pictures):
                tables += 1
                block = replace(block, caption=words("table_caption", number=tables, text=block.caption))
            elif isinstance(block, Plot):
                figures += 1
                block = replace(block, caption=words("figure_caption", number=figures, text=block.caption))
            blocks.append(block)
        yield replace(section, blocks=tuple(blocks))


def shares(sections: Iterable[Section], total: int) -> dict[int, int]:
    """How many bytes each table's pictures may take, by its number of cells: `id` of the table to bytes."""
    tables = [block.table for section in sections for block in section.blocks if isinstance(block, Pictures)]
    cells = {id(table): sum(map(len, table.cells)) for table in tables}
    return {key: total * count // sum(cells.values()) for key, count in cells.items()}
