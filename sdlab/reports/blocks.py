"""What a report is made of: sections of blocks, which README.md, report.html and report.pdf show alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from sdlab.tables import Figures, Table
from sdlab.words import Words

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["paragraph", "points", "flags", "numbers", "plot", "pictures", "place"]
CAPTIONS = {"numbers": "table_caption", "pictures": "table_caption", "plot": "figure_caption"}


@dataclass(frozen=True)
class Block:
    """One piece of a section.

    Args:
        kind: a place is where the student writes Markdown, kept when the report is made again.
        text: what it says; the caption of figures, a plot or pictures.
        key: of a place, or the name of a plot's file.
        draft: what the report would say in a place by itself.
    """

    kind: Kind
    text: str = ""
    key: str = ""
    points: Sequence[str] = ()
    figures: Figures | None = None
    image: Image.Image | None = None
    table: Table | None = None
    draft: str = ""

    @property
    def is_draft(self) -> bool:
        """Whether the text is the report's own."""
        return bool(self.draft) and self.text == self.draft


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; `key` is the same in all languages."""

    key: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, kind: Kind, text: str = "", **shown: Any) -> None:
        """Adds a block, unless there is nothing to show in it."""
        empty = [
            one
            for one in shown.values() or [text]
            if one is None or (isinstance(one, str | list) and not one)
        ]
        if kind == "place" or not empty:
            self.blocks.append(Block(kind, text, **shown))


def changed(sections: Iterable[Section], change: Callable[[Block], Block]) -> list[Section]:
    """The same sections with each block changed."""
    return [replace(section, blocks=list(map(change, section.blocks))) for section in sections]


def numbered(sections: Iterable[Section], words: Words) -> list[Section]:
    """Gives each table and each figure its number: `Table 1. …`, `Figure 1. …`."""
    counts: Counter[str] = Counter()

    def with_number(block: Block) -> Block:
        if (key := CAPTIONS.get(block.kind)) is None:
            return block
        counts[key] += 1
        return replace(block, text=words(key, number=counts[key], text=block.text))

    return changed(sections, with_number)
