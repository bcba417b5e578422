"""Marked places in README.md: what a student writes there is kept when the report is made again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdlab.files import read_text
from sdlab.reports.blocks import Block, Section, changed
from sdlab.words import Words

MADE_BY = "<!-- made by `sdlab report`"
_HEAD = MADE_BY + ' {outside}: what you write between "edit below" and "end of" is kept -->'
_BEGIN, _END = "<!-- {key} {draft}: edit below -->", "<!-- end of {key} -->"
_MARK = re.compile(r"<!-- ([\w-]+) ([0-9a-f]{8}): edit below -->")
_PLACE = re.compile(_MARK.pattern + r"(.*?)<!-- end of (?:the )?\1 -->", re.DOTALL)


@dataclass(frozen=True)
class Kept:
    """What a README.md holds that a student wrote.

    Args:
        texts: key to text, of places whose draft was changed.
        elsewhere: whether something was changed outside of the places.
    """

    texts: dict[str, str] = field(default_factory=dict)
    elsewhere: bool = False


def marked(place: Block) -> str:
    """A place as README.md holds it, between its marks."""
    begin = _BEGIN.format(key=place.key, draft=_hash(place.draft))
    return "\n\n".join(filter(None, [begin, place.text, _END.format(key=place.key)]))


def head(body: str) -> str:
    """The first line of README.md, which says who made the rest, and what it was."""
    return _HEAD.format(outside=_outside(body))


def read_kept(readme: Path) -> Kept:
    """Finds what a student wrote into a report, which needn't be there.

    Raises:
        ValueError: `sdlab report` didn't make it, or a place has lost its end.
    """
    if not readme.is_file():
        return Kept()
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
    texts = {place[1]: place[3].strip() for place in found if _hash(place[3]) != place[2]}
    outside = re.match(re.escape(MADE_BY) + r" ([0-9a-f]{8}):", first)
    return Kept(texts, outside is not None and outside[1] != _outside(body))


def filled(sections: Iterable[Section], kept: Kept, words: Words) -> list[Section]:
    """Puts the student's texts into their places; those whose section is gone come before the last."""
    left = dict(kept.texts)

    def fill(block: Block) -> Block:
        return replace(block, text=left.pop(block.key, block.draft)) if block.kind == "place" else block

    made = changed(sections, fill)
    if lost := [Block("place", text, key) for key, text in left.items() if text]:
        made.insert(len(made) - 1, Section("left", words("left"), lost))
    return made


def _outside(body: str) -> str:
    """Fingerprint of what the student shouldn't change; line ends and empty lines don't count."""
    return _hash("\n".join(_PLACE.sub("", body).split()))


def _hash(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]
