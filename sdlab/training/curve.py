"""Loss curves that are drawn in milliseconds, while a training runs."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

SMOOTHED = 0.85  # weight of what came before: noise of single batches hides the course of the loss
_INK = "#858b94"  # read on white and on black: the picture has no background
WIDTH = 290  # CSS pixels on the page; drawn twice as large, so that it is sharp on fine screens
_HEIGHT = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 14, 44, 40  # margins
_LETTERS = 21


def smoothed(values: Sequence[float], weight: float = SMOOTHED) -> list[float]:
    """Gives the exponential mean without the pull towards zero at the start.

    Source: Kingma and Ba 2014, arXiv:1412.6980, section 3 (bias correction).
    """
    mean, out = 0.0, []
    for index, value in enumerate(values, 1):
        mean = weight * mean + (1 - weight) * value
        out.append(mean / (1 - weight**index))
    return out


def draw_curve(title: str, values: Mapping[int, float], last: int, colour: str) -> bytes:
    """Draws one curve over the steps up to `last` as a WebP that is readable on white and on black."""
    from PIL import Image, ImageDraw

    from sdlab.typeset import font

    picture = Image.new("RGBA", (2 * WIDTH, _HEIGHT), (128, 128, 128, 0))
    drawing = ImageDraw.Draw(picture)
    ticks = _ticks(min(values.values()), max(values.values()))
    left, right, top, bottom = _LEFT, 2 * WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM

    def place(step: float, value: float) -> tuple[float, float]:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return left + (right - left) * step / max(last, 1), bottom - (bottom - top) * share

    drawing.text((left, 4), title, _INK, font(_LETTERS, bold=True))
    for tick in ticks:
        _, y = place(0, tick)
        drawing.line((left, y, right, y), fill=(128, 128, 128, 70), width=1)
        drawing.text((left - 10, y), f"{tick:.3g}", _INK, font(_LETTERS), anchor="rm")
    for text, edge, anchor in (("0", left, "lt"), (f"step {last}", right, "rt")):
        drawing.text((edge, bottom + 10), text, _INK, font(_LETTERS), anchor=anchor)
    points = [place(step, value) for step, value in values.items()]
    drawing.line(points, fill=colour, width=4, joint="curve")
    x, y = points[-1]
    drawing.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, method=2)  # half of PNG's size in a third of its time
    return buffer.getvalue()


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers around the values."""
    span = max(high - low, abs(high) * 0.02, 1e-9)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * size for size in (0.2, 0.5, 1, 2, 5) if span / (power * size) <= 4)
    first = math.floor(low / step)
    return [index * step for index in range(first, max(math.ceil(high / step), first + 1) + 1)]
