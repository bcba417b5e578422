"""The places of the mini world: each scene paints what lies behind the figure, some also weather.

To add a scene: write a function here, enter it in `BACKGROUNDS`, add its name to `picture.SCENES` and its
words to `captions.SCENE_WORDS`, then train the weights anew.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .canvas import Canvas, Colour, ellipse, outline, rounded, shade

Random = np.random.Generator


def _vary(rng: Random, colour: Colour, amount: float = 0.09) -> Colour:
    return tuple(int(v) for v in (np.array(colour) * rng.uniform(1 - amount, 1 + amount, 3)).clip(0, 255))  # type: ignore[return-value]


def _ground(canvas: Canvas, rng: Random, horizon: float, far: Colour, near: Colour) -> None:
    canvas.gradient(_vary(rng, far), _vary(rng, near), horizon, 1.0, depth=(0.1, 0.62))


def _skyline(canvas: Canvas, rng: Random, wall: Colour, base: float, windows: Colour) -> None:
    x = -0.04
    while x < 1.0:
        width, top = rng.uniform(0.12, 0.2), base - rng.uniform(0.3, 0.62)
        canvas.polygon(
            np.array([(x, top), (x + width, top), (x + width, base), (x, base)]), _vary(rng, wall, 0.2), 0.16
        )
        for wy in np.arange(top + 0.04, base - 0.05, 0.085):
            for wx in np.arange(x + 0.025, x + width - 0.03, 0.058):
                if rng.random() < 0.62:
                    canvas.polygon(
                        np.array([(wx, wy), (wx + 0.03, wy), (wx + 0.03, wy + 0.045), (wx, wy + 0.045)]),
                        _vary(rng, windows, 0.12),
                    )
        x += width + 0.01


def _disc(canvas: Canvas, x: float, y: float, r: float, colour: Colour, depth: float = 0.03) -> None:
    canvas.polygon(ellipse(x, y, r, r), colour, depth)


def _stars(canvas: Canvas, rng: Random, count: int, below: float) -> None:
    for x, y, r in zip(
        rng.uniform(0, 1, count), rng.uniform(0, below, count), rng.uniform(0.004, 0.009, count), strict=True
    ):
        _disc(canvas, x, y, r, (255, 252, 230))


def street(canvas: Canvas, rng: Random) -> None:
    """A city street at midnight: lit windows, street lamps, a road."""
    canvas.gradient(_vary(rng, (14, 14, 44)), _vary(rng, (62, 44, 92)), 0, 0.75, depth=(0.0, 0.05))
    _skyline(canvas, rng, (40, 38, 66), 0.74, (255, 206, 96))
    _ground(canvas, rng, 0.74, (52, 50, 64), (78, 74, 86))
    for x in np.arange(0.06, 1, 0.22):
        canvas.polygon(
            np.array([(x, 0.87), (x + 0.1, 0.87), (x + 0.09, 0.895), (x - 0.01, 0.895)]), (236, 214, 120)
        )
    for x in (rng.uniform(0.04, 0.16), rng.uniform(0.84, 0.96)):
        canvas.line(np.array([(x, 0.2), (x, 0.82)]), 0.018, (22, 22, 30), 0.4)
        canvas.glow(x, 0.19, 0.2, (255, 214, 120), 0.75)
        _disc(canvas, x, 0.19, 0.038, (255, 246, 204), 0.4)


def rain(canvas: Canvas, rng: Random) -> None:
    """NYC on a rainy night under a full moon; the rain itself falls in front of the figure."""
    canvas.gradient(_vary(rng, (26, 40, 62)), _vary(rng, (84, 104, 128)), 0, 0.78, depth=(0.0, 0.05))
    x = rng.choice([rng.uniform(0.1, 0.28), rng.uniform(0.72, 0.9)])
    y = rng.uniform(0.12, 0.22)
    canvas.glow(x, y, 0.24, (214, 226, 240), 0.7)
    _disc(canvas, x, y, 0.1, (244, 246, 236))
    _skyline(canvas, rng, (48, 60, 80), 0.78, (158, 186, 206))
    _ground(canvas, rng, 0.78, (58, 74, 94), (92, 112, 136))
    for x, y in zip(rng.uniform(0, 1, 6), rng.uniform(0.84, 0.98, 6), strict=True):
        canvas.polygon(ellipse(x, y, 0.09, 0.014), (146, 170, 194))


def rainfall(canvas: Canvas, rng: Random) -> None:
    """Slanted streaks of rain over everything."""
    for x, y in zip(rng.uniform(-0.05, 1.05, 34), rng.uniform(-0.1, 1, 34), strict=True):
        canvas.line(np.array([(x, y), (x - 0.022, y + 0.085)]), 0.008, (184, 206, 226))


def desert(canvas: Canvas, rng: Random) -> None:
    """Egypt: sand, pyramids, a camel, the sun."""
    canvas.gradient(_vary(rng, (96, 176, 232)), _vary(rng, (250, 226, 168)), 0, 0.66, depth=(0.0, 0.05))
    _disc(
        canvas,
        rng.choice([rng.uniform(0.08, 0.25), rng.uniform(0.75, 0.92)]),
        rng.uniform(0.1, 0.2),
        0.085,
        (255, 240, 130),
    )
    _ground(canvas, rng, 0.64, (236, 196, 116), (214, 164, 88))
    for x, half in (
        (rng.uniform(0.06, 0.24), rng.uniform(0.2, 0.28)),
        (rng.uniform(0.74, 0.96), rng.uniform(0.16, 0.26)),
    ):
        top = 0.66 - half * 1.25
        canvas.polygon(np.array([(x - half, 0.68), (x, top), (x + half, 0.68)]), (222, 170, 92), 0.16)
        canvas.polygon(np.array([(x, top), (x + half, 0.68), (x + half * 0.25, 0.68)]), (176, 126, 66), 0.16)
    _camel(canvas, rng.choice([rng.uniform(0.08, 0.2), rng.uniform(0.78, 0.9)]), rng.uniform(0.74, 0.8), 0.16)


def _camel(canvas: Canvas, x: float, y: float, s: float) -> None:
    colour: Colour = (138, 88, 46)
    body = outline(
        "-0.6,0 -0.5,-0.5 -0.25,-0.45 -0.15,-0.85 0.05,-0.85 0.15,-0.45 0.45,-0.4 "
        "0.62,-0.75 0.68,-1 0.95,-0.98 0.95,-0.85 0.78,-0.78 0.72,-0.3 0.5,0.05"
    )
    for leg in (-0.45, -0.3, 0.25, 0.42):
        canvas.line(np.array([(x + leg * s, y), (x + leg * s, y + 0.55 * s)]), 0.1 * s, colour, 0.3)
    canvas.polygon(rounded(np.array(body) * s + (x, y), 1), colour, 0.3)


def dragons(canvas: Canvas, rng: Random) -> None:
    """A cold land of snow mountains with dragons in the sky."""
    canvas.gradient(_vary(rng, (92, 112, 156)), _vary(rng, (206, 216, 232)), 0, 0.72, depth=(0.0, 0.05))
    for x in (rng.uniform(-0.02, 0.15), rng.uniform(0.35, 0.6), rng.uniform(0.82, 1.02)):
        h = rng.uniform(0.34, 0.5)
        canvas.polygon(np.array([(x - 0.32, 0.74), (x, 0.74 - h), (x + 0.32, 0.74)]), (104, 116, 142), 0.14)
        canvas.polygon(
            np.array(
                [
                    (x - 0.11, 0.74 - 0.66 * h),
                    (x, 0.74 - h),
                    (x + 0.11, 0.74 - 0.66 * h),
                    (x + 0.03, 0.74 - 0.58 * h),
                    (x - 0.04, 0.74 - 0.68 * h),
                ]
            ),
            (250, 250, 255),
            0.14,
        )
    _ground(canvas, rng, 0.72, (226, 232, 242), (248, 250, 255))
    for x, flip in ((rng.uniform(0.1, 0.22), 1), (rng.uniform(0.78, 0.9), -1)):
        _dragon(
            canvas, x, rng.uniform(0.14, 0.36), rng.uniform(0.17, 0.23), flip, _vary(rng, (150, 36, 40), 0.2)
        )


def _dragon(canvas: Canvas, x: float, y: float, s: float, flip: int, colour: Colour) -> None:
    body = outline(
        "-0.9,0.25 -0.4,0.1 0.1,-0.1 0.4,-0.3 0.55,-0.5 0.95,-0.42 0.75,-0.25 0.55,-0.1 0.2,0.2 -0.3,0.3"
    )
    wing = outline("-0.1,0 -0.75,-0.75 -0.3,-0.55 -0.1,-0.85 0.1,-0.55 0.4,-0.75 0.25,-0.05")
    for shape, tone in ((body, colour), (wing, shade(colour, 0.7))):
        canvas.polygon(shape * (flip * s, s) + (x, y), tone, 0.2)


def castle(canvas: Canvas, rng: Random) -> None:
    """A princess castle on a green hill under a rainbow."""
    canvas.gradient(_vary(rng, (126, 196, 246)), _vary(rng, (226, 240, 252)), 0, 0.74, depth=(0.0, 0.05))
    cx = rng.uniform(0.35, 0.65)
    colours = ((228, 70, 70), (244, 160, 60), (250, 226, 84), (92, 190, 96), (80, 130, 226), (150, 90, 200))
    for i, colour in enumerate(colours):
        r = 0.5 - 0.028 * i
        canvas.line(ellipse(cx, 0.6, r, r * 1.02, 180, 360), 0.031, colour, 0.05)
    wall, roof = _vary(rng, (240, 214, 226)), _vary(rng, (206, 92, 150))
    for x, w, top in ((0.06, 0.12, 0.36), (0.22, 0.1, 0.46), (0.7, 0.1, 0.44), (0.84, 0.13, 0.34)):
        canvas.polygon(np.array([(x, top), (x + w, top), (x + w, 0.76), (x, 0.76)]), wall, 0.18)
        canvas.polygon(
            np.array([(x - 0.015, top), (x + w / 2, top - 0.17), (x + w + 0.015, top)]), roof, 0.18
        )
        canvas.polygon(ellipse(x + w / 2, top + 0.1, 0.02, 0.035), (112, 84, 130))
    canvas.polygon(outline("0.06,0.58 0.97,0.58 0.97,0.76 0.06,0.76"), shade(wall, 0.93), 0.17)
    _ground(canvas, rng, 0.72, (126, 196, 100), (84, 162, 80))


def moon(canvas: Canvas, rng: Random) -> None:
    """The surface of the moon, black space, the earth."""
    canvas.gradient((6, 6, 18), (20, 18, 46), 0, 0.72, depth=(0.0, 0.0))
    _stars(canvas, rng, 26, 0.66)
    x, y = rng.choice([rng.uniform(0.12, 0.26), rng.uniform(0.74, 0.88)]), rng.uniform(0.14, 0.28)
    _disc(canvas, x, y, 0.115, (58, 120, 216))
    for dx, dy, rx, ry in (
        (-0.03, -0.035, 0.05, 0.035),
        (0.04, 0.03, 0.045, 0.04),
        (-0.05, 0.045, 0.025, 0.02),
    ):
        canvas.polygon(ellipse(x + dx, y + dy, rx, ry), (84, 172, 96))
    _ground(canvas, rng, 0.7, (128, 128, 140), (184, 184, 194))
    for cx, cy in zip(rng.uniform(0, 1, 6), np.linspace(0.75, 0.97, 6), strict=True):
        r = 0.03 + 0.12 * (cy - 0.7)
        canvas.polygon(ellipse(cx, cy, r * 1.6, r * 0.5), (112, 112, 126))


def forest(canvas: Canvas, rng: Random) -> None:
    """Green trees, trunks, moss."""
    canvas.gradient(_vary(rng, (148, 204, 160)), _vary(rng, (92, 156, 100)), 0, 0.78, depth=(0.0, 0.1))
    for x in np.linspace(0.02, 0.98, 6) + rng.uniform(-0.05, 0.05, 6):
        tone, top = _vary(rng, (44, 112, 60), 0.2), rng.uniform(0.02, 0.2)
        canvas.line(np.array([(x, 0.5), (x, 0.82)]), 0.045, _vary(rng, (92, 62, 40)), 0.2)
        for k in range(3):
            y = top + 0.17 * k
            half = 0.09 + 0.035 * k
            canvas.polygon(
                np.array([(x - half, y + 0.24), (x, y), (x + half, y + 0.24)]),
                shade(tone, 0.85 + 0.12 * k),
                0.2,
            )
    _ground(canvas, rng, 0.78, (70, 116, 62), (54, 96, 52))


def kitchen(canvas: Canvas, rng: Random) -> None:
    """A kitchen: tiles, cupboards, a window, a stove with a pot."""
    wall = _vary(rng, (250, 232, 196))
    canvas.gradient(wall, wall, 0, 0.8, depth=(0.15, 0.15))
    for y in np.arange(0.36, 0.62, 0.085):
        canvas.line(np.array([(0, y), (1, y)]), 0.008, shade(wall, 0.86))
    wood = _vary(rng, (168, 106, 62))
    for x in (0.03, 0.76):
        for k in range(2):
            left = x + 0.105 * k
            canvas.polygon(
                np.array([(left, 0.03), (left + 0.1, 0.03), (left + 0.1, 0.29), (left, 0.29)]), wood, 0.22
            )
            _disc(canvas, left + 0.05, 0.25, 0.011, (244, 220, 150), 0.22)
    canvas.polygon(outline("0.36,0.05 0.64,0.05 0.64,0.33 0.36,0.33"), (250, 250, 250), 0.15)
    canvas.polygon(outline("0.38,0.07 0.62,0.07 0.62,0.31 0.38,0.31"), (164, 214, 246), 0.1)
    canvas.polygon(outline("0,0.62 1,0.62 1,0.66 0,0.66"), (236, 236, 240), 0.34)
    canvas.polygon(outline("0,0.66 1,0.66 1,0.9 0,0.9"), shade(wood, 0.92), 0.32)
    for x in np.arange(0.0, 1.0, 0.2):
        canvas.line(np.array([(x, 0.68), (x, 0.89)]), 0.01, shade(wood, 0.7))
    x = rng.choice([0.12, 0.84])
    canvas.polygon(
        np.array([(x - 0.08, 0.52), (x + 0.08, 0.52), (x + 0.07, 0.62), (x - 0.07, 0.62)]),
        _vary(rng, (206, 60, 56)),
        0.36,
    )
    _ground(canvas, rng, 0.9, (196, 176, 150), (214, 196, 170))


def beach(canvas: Canvas, rng: Random) -> None:
    """Sea, sand, a palm and a parasol."""
    canvas.gradient(_vary(rng, (84, 176, 240)), _vary(rng, (206, 236, 250)), 0, 0.5, depth=(0.0, 0.02))
    canvas.gradient(_vary(rng, (28, 116, 190)), _vary(rng, (84, 196, 212)), 0.48, 0.72, depth=(0.05, 0.2))
    for y in (0.54, 0.6, 0.66):
        x = rng.uniform(0, 0.7)
        canvas.line(np.array([(x, y), (x + 0.24, y)]), 0.01, (226, 246, 250))
    _ground(canvas, rng, 0.7, (250, 226, 170), (240, 206, 142))
    left = rng.random() < 0.5
    x, px = (0.12, 0.88) if left else (0.88, 0.12)
    canvas.line(np.array([(x, 0.8), (x + 0.03, 0.5), (x, 0.24)]), 0.035, (134, 92, 54), 0.35)
    for angle in np.radians((200, 240, 300, 340, 20, 160)):
        tip = (x + 0.2 * np.cos(angle), 0.24 + 0.15 * np.sin(angle))
        canvas.line(np.array([(x, 0.24), tip]), 0.04, (52, 146, 74), 0.35)
    canvas.line(np.array([(px, 0.5), (px, 0.82)]), 0.015, (240, 240, 240), 0.3)
    canvas.polygon(ellipse(px, 0.52, 0.16, 0.13, 180, 360), _vary(rng, (230, 70, 76)), 0.3)


def studio(canvas: Canvas, rng: Random) -> None:
    """A plain backdrop of one colour with a soft light behind the figure."""
    tone = rng.choice(
        [(206, 206, 212), (226, 206, 190), (190, 208, 226), (208, 196, 222), (196, 218, 200), (236, 226, 206)]
    )
    colour = _vary(rng, (int(tone[0]), int(tone[1]), int(tone[2])))
    canvas.gradient(colour, shade(colour, 0.86), 0, 1, depth=(0.1, 0.12))
    canvas.glow(0.5, 0.42, 0.62, shade(colour, 1.6), 0.8)
    canvas.gradient(shade(colour, 0.8), shade(colour, 0.95), 0.88, 1, depth=(0.12, 0.6))


BACKGROUNDS: dict[str, Callable[[Canvas, Random], None]] = {
    "street": street,
    "rain": rain,
    "desert": desert,
    "dragons": dragons,
    "castle": castle,
    "moon": moon,
    "forest": forest,
    "kitchen": kitchen,
    "beach": beach,
    "studio": studio,
}
FOREGROUNDS: dict[str, Callable[[Canvas, Random], None]] = {"rain": rainfall}
