"""A report as parts, which README.md, report.html and report.pdf show each in its way.

templates/report.md says what stands in it. What a student writes into its marked places in README.md is kept
when the report is made again.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sdlab.files import read_text
from sdlab.reports import curves
from sdlab.reports.flags import shared_flags
from sdlab.reports.material import Material
from sdlab.reports.scan import shortened
from sdlab.scores import MEASURES
from sdlab.subject import KINDS
from sdlab.tables import Figures, Table, photo_table
from sdlab.tables.building import setting_text
from sdlab.templates import markdown_text, render
from sdlab.words import LANGUAGES, Words

MADE_BY = "<!-- made by `sdlab report`"
_HEAD = MADE_BY + ' {outside}: what you write between "edit below" and "end of" is kept -->'
_BEGIN, _END = "<!-- {key} {draft}: edit below -->", "<!-- end of {key} -->"
_MARK = re.compile(r"<!-- ([\w-]+) ([0-9a-f]{8}): edit below -->")
_PLACE = re.compile(_MARK.pattern + r"(.*?)<!-- end of (?:the )?\1 -->", re.DOTALL)

Kind = Literal["heading", "text", "place", "numbers", "pictures", "plot"]


@dataclass(frozen=True)
class Part:
    """One piece of a report.

    Args:
        kind: a place is where the student writes.
        text: Markdown of a text or place, the words of a heading, or a caption.
        key: of a heading or place, the same in all languages, or the name of a plot's file.
        content: figures, table or picture under the caption.
        draft: what the report would say in a place by itself.
    """

    kind: Kind
    text: str
    key: str = ""
    content: Any = None
    draft: str = ""

    def marked(self) -> str:
        """A place as README.md holds it, between its marks."""
        begin = _BEGIN.format(key=self.key, draft=_hash(self.draft))
        return "\n\n".join(filter(None, [begin, self.text, _END.format(key=self.key)]))


def parts_of(
    material: Material, title: str, author: str, written: dict[str, str], title_before: str = ""
) -> list[Part]:
    """Fills templates/report.md; `written` is what the student wrote, place to text."""
    words, left, counts, parts = material.words, dict(written), Counter[str](), list[Part]()

    def plain(text: str) -> str:
        return markdown_text(shortened(text))

    def put(part: Part) -> str:
        parts.append(part)
        return f"\n\n\0{len(parts) - 1}\0\n\n"

    def place(key: str, draft: str = "") -> str:
        return put(Part("place", left.pop(key, draft), key, draft=draft))

    def show(caption: str, content: Any, plot: str = "") -> str:
        if content is None:
            return ""
        if isinstance(content, Figures):
            content = content.map(lambda value: shortened(value) if isinstance(value, str) else value)
        if isinstance(content, Table):
            content = content.without_texts().with_hints(shortened)
        label = "figure_caption" if plot else "table_caption"
        counts[label] += 1
        caption = words(label, number=counts[label], text=shortened(caption))
        kind: Kind = "plot" if plot else "numbers" if isinstance(content, Figures) else "pictures"
        return put(Part(kind, caption, plot, content))

    text = render(
        "report.md",
        material=material,
        title=title,
        author=author,
        title_before=title_before,
        words=words,
        left=left,
        plain=plain,
        say=lambda key, **values: plain(words(key, **values)),
        flags=lambda some: shortened(shared_flags(some)).replace("```", "'''"),
        heading=lambda key: put(Part("heading", words(key), key)),
        place=place,
        show=show,
        photo_table=photo_table,
        curves=curves,
        setting_text=setting_text,
        MEASURES=MEASURES,
    )
    found = enumerate(re.split(r"\0(\d+)\0", text))
    made = [parts[int(piece)] if n % 2 else Part("text", _tidy(piece)) for n, piece in found]
    return [part for part in made if part.kind != "text" or part.text]


def readme_head(body: str) -> str:
    """The first line of README.md, which says who made the rest, and what it was."""
    return _HEAD.format(outside=_outside(body))


def read_places(readme: Path) -> tuple[dict[str, str], bool]:
    """Finds what a student wrote into a report, which needn't be there.

    Returns:
        Place to text, of those whose draft was changed, and whether something was changed outside of them.

    Raises:
        ValueError: `sdlab report` didn't make it, or a place has lost its end.
    """
    if not readme.is_file():
        return {}, False
    first, _, body = read_text(readme).partition("\n")
    if not first.startswith(MADE_BY):
        raise ValueError(
            f"{readme} wasn't made by `sdlab report`. Move it away, or choose another folder with --out."
        )
    found = list(_PLACE.finditer(body))
    if lost := {mark[1] for mark in _MARK.finditer(body)} - {place[1] for place in found}:
        key = min(lost)
        raise ValueError(
            f"{readme} has lost the end of the place {key!r}. Put the line {_END.format(key=key)} back "
            "behind your text, then run it again."
        )
    texts: dict[str, str] = {}
    for place in found:
        if _hash(place[3]) != place[2]:  # a place that was copied holds as many texts
            texts[place[1]] = "\n\n".join(filter(None, [texts.get(place[1]), place[3].strip()]))
    outside = re.match(re.escape(MADE_BY) + r" ([0-9a-f]{8}):", first)
    return texts, outside is not None and outside[1] != _outside(body)


def title_given(readme: Path) -> str:
    """The title and author that `sdlab report` was given before, as Markdown; empty where it made its own."""
    found = _PLACE.search(read_text(readme)) if readme.is_file() else None
    if found is None or found[1] != "title" or _hash(found[3]) != found[2]:
        return ""
    every = [(Words(language), kind) for language in LANGUAGES for kind in KINDS]
    usual = {f"# {markdown_text(words('title', kind=words.name(f'one {kind}')))}" for words, kind in every}
    return "" if found[3].strip() in usual else found[3].strip()


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _outside(body: str) -> str:
    """Fingerprint of what the student shouldn't change; line ends and empty lines don't count."""
    return _hash("\n".join(_PLACE.sub("", body).split()))


def _hash(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]
