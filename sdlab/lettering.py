"""Text broken into lines for a picture that Pillow draws."""

from __future__ import annotations

import re
from collections.abc import Callable

from sdlab.typeset import font, printable

__all__ = ["broken", "font"]


def broken(measure: Callable[[str], float], text: str, width: float) -> list[str]:
    """Text broken at spaces and underscores, and within a word that is too long for a line of `width`."""
    lines, line = [], ""
    for piece in re.sub(r"( |_)", "\\1\0", " ".join(printable(text).split())).split("\0"):
        if line and measure((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
        while len(line) > 1 and measure(line.rstrip()) > width:
            cut = next((n for n in range(len(line) - 1, 1, -1) if measure(line[:n]) <= width), 1)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() else lines
