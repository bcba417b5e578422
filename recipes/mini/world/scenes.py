"""The places of the mini world: each scene paints what lies behind the figure.

Every scene is a few large shapes at fixed places, which a small model can learn: chance only shifts them a
little and turns half of the pictures left to right.

To add a scene: write a function here, enter it in `BACKGROUNDS`, add its name to `picture.SCENES` and its
words to `captions.SCENE_WORDS`, then train the weights anew.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .canvas import Canvas, Colour, ellipse, outline, rounded, shade

SKY = (0.0, 0.05)
GROUND = (0.1, 0.62)


def paint_scene(canvas: Canvas, scene: str, seed: int) -> None:
    """Paint the background of a picture.

    Args:
        canvas: to paint on; nothing is on it yet.
        scene: a key of `BACKGROUNDS`.
        seed: of the picture.
    """
    rng = np.random.default_rng([seed, 1])
    BACKGROUNDS[scene](canvas, float(rng.uniform(-0.05, 0.05)), int(rng.integers(len(STUDIO_TONES))))
    if rng.random() < 0.5:
        canvas.mirror()


def _box(
    canvas: Canvas, x0: float, y0: float, x1: float, y1: float, colour: Colour, depth: float = 0.2
) -> None:
    canvas.polygon(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), colour, depth)


def _disc(canvas: Canvas, x: float, y: float, r: float, colour: Colour, depth: float = 0.03) -> None:
    canvas.polygon(ellipse(x, y, r, r), colour, depth)


def _houses(canvas: Canvas, shift: float, wall: Colour, window: Colour) -> None:
    for x, top in ((-0.08, 0.3), (0.15, 0.12), (0.38, 0.4), (0.61, 0.22), (0.84, 0.08)):
        x += shift
        _box(canvas, x, top, x + 0.21, 0.78, shade(wall, 1.0 if top > 0.2 else 0.8), 0.16)
        for row in range(4):
            y = top + 0.07 + 0.15 * row
            for dx in (0.035, 0.125):
                if y < 0.66:
                    _box(canvas, x + dx, y, x + dx + 0.055, y + 0.08, window, 0.16)


def street(canvas: Canvas, shift: float, _: int) -> None:
    """A city street at midnight: lit windows, a street lamp, a road."""
    canvas.gradient((18, 18, 56), (84, 56, 120), 0, 0.78, depth=SKY)
    _houses(canvas, shift, (48, 44, 86), (255, 208, 96))
    canvas.gradient((62, 60, 78), (92, 88, 104), 0.78, 1, depth=GROUND)
    _box(canvas, 0, 0.89, 1, 0.915, (240, 220, 130), 0.4)
    x = 0.1 + shift
    canvas.line(np.array([(x, 0.2), (x, 0.86)]), 0.03, (24, 24, 36), 0.4)
    canvas.glow(x, 0.2, 0.24, (255, 214, 120), 0.8)
    _disc(canvas, x, 0.2, 0.055, (255, 246, 204), 0.4)


def rain(canvas: Canvas, shift: float, _: int) -> None:
    """NYC on a rainy night under a full moon."""
    canvas.gradient((30, 58, 84), (104, 138, 160), 0, 0.78, depth=SKY)
    _disc(canvas, 0.8 + shift, 0.17, 0.12, (246, 248, 236))
    _houses(canvas, shift, (56, 84, 108), (150, 186, 200))
    canvas.gradient((70, 98, 122), (110, 142, 166), 0.78, 1, depth=GROUND)
    for x, y in ((0.12, 0.1), (0.34, 0.0), (0.56, 0.12), (0.9, 0.04), (0.2, 0.4), (0.02, 0.3), (0.7, 0.42),
                 (0.94, 0.4), (0.08, 0.66), (0.86, 0.7), (0.28, 0.72), (0.62, 0.74)):  # fmt: skip
        canvas.line(np.array([(x + shift, y), (x + shift - 0.05, y + 0.16)]), 0.014, (200, 224, 240))


def desert(canvas: Canvas, shift: float, _: int) -> None:
    """Egypt: sand, pyramids, a camel, the sun."""
    canvas.gradient((110, 190, 240), (254, 232, 176), 0, 0.7, depth=SKY)
    _disc(canvas, 0.84 + shift, 0.15, 0.1, (255, 240, 120))
    for x, half in ((0.2 + shift, 0.3), (0.82 + shift, 0.24)):
        top = 0.7 - half * 1.3
        canvas.polygon(np.array([(x - half, 0.7), (x, top), (x + half, 0.7)]), (232, 178, 92), 0.16)
        canvas.polygon(np.array([(x, top), (x + half, 0.7), (x + half * 0.2, 0.7)]), (188, 132, 66), 0.16)
    canvas.gradient((244, 206, 122), (222, 172, 92), 0.68, 1, depth=GROUND)
    _camel(canvas, 0.12 + shift, 0.8, 0.17)


def _camel(canvas: Canvas, x: float, y: float, size: float) -> None:
    colour: Colour = (142, 88, 44)
    body = outline(
        "-0.6,0 -0.5,-0.5 -0.25,-0.45 -0.15,-0.85 0.05,-0.85 0.15,-0.45 0.45,-0.4 "
        "0.62,-0.75 0.68,-1 0.95,-0.98 0.95,-0.85 0.78,-0.78 0.72,-0.3 0.5,0.05"
    )
    for leg in (-0.42, 0.4):
        canvas.line(np.array([(leg, -0.1), (leg, 0.55)]) * size + (x, y), 0.16 * size, colour, 0.3)
    canvas.polygon(rounded(body, 1) * size + (x, y), colour, 0.3)


def dragons(canvas: Canvas, shift: float, _: int) -> None:
    """A cold land of snow mountains with dragons in the sky."""
    canvas.gradient((88, 108, 164), (214, 224, 240), 0, 0.74, depth=SKY)
    for x, height in ((0.04 + shift, 0.42), (0.5 + shift, 0.5), (0.94 + shift, 0.4)):
        peak = 0.74 - height
        canvas.polygon(np.array([(x - 0.34, 0.74), (x, peak), (x + 0.34, 0.74)]), (104, 118, 156), 0.14)
        canvas.polygon(
            np.array([(x - 0.12, peak + 0.35 * height), (x, peak), (x + 0.12, peak + 0.35 * height)]),
            (252, 252, 255),
            0.14,
        )
    canvas.gradient((224, 232, 246), (250, 252, 255), 0.72, 1, depth=GROUND)
    for x, y, size in ((0.16, 0.2, 0.2), (-0.86, 0.3, 0.16)):  # a negative place: seen from the other side
        way = np.sign(x)
        body = outline(
            "-0.9,0.3 -0.4,0.1 0.1,-0.12 0.4,-0.34 0.55,-0.56 1,-0.46 0.78,-0.2 0.55,-0.06 0.2,0.26 -0.3,0.34"
        )
        wing = outline("-0.15,0 -0.85,-0.8 -0.35,-0.6 -0.1,-0.98 0.15,-0.6 0.5,-0.85 0.3,-0.05")
        for shape, tone in ((body, (176, 34, 44)), (wing, (120, 20, 40))):
            canvas.polygon(shape * (way * size, size) + (abs(x) + shift, y), tone, 0.2)


def castle(canvas: Canvas, shift: float, _: int) -> None:
    """A princess castle on a green hill under a rainbow."""
    canvas.gradient((120, 196, 250), (228, 242, 254), 0, 0.76, depth=SKY)
    for i, colour in enumerate(
        ((232, 66, 70), (255, 176, 60), (255, 234, 90), (90, 196, 100), (84, 136, 236))
    ):
        r = 0.52 - 0.04 * i
        canvas.line(ellipse(0.5 + shift, 0.62, r, r, 180, 360), 0.044, colour, 0.05)
    wall, roof = (244, 214, 230), (214, 84, 156)
    for x, top in ((0.05, 0.4), (0.79, 0.34)):
        x += shift
        _box(canvas, x, top, x + 0.16, 0.78, wall, 0.18)
        canvas.polygon(np.array([(x - 0.03, top), (x + 0.08, top - 0.22), (x + 0.19, top)]), roof, 0.18)
        canvas.polygon(ellipse(x + 0.08, top + 0.13, 0.035, 0.055), (126, 92, 150))
    _box(canvas, 0.1 + shift, 0.6, 0.88 + shift, 0.78, shade(wall, 0.92), 0.17)
    canvas.gradient((130, 204, 100), (84, 168, 80), 0.74, 1, depth=GROUND)


def moon(canvas: Canvas, shift: float, _: int) -> None:
    """The surface of the moon, black space, the earth."""
    canvas.gradient((8, 8, 24), (28, 24, 66), 0, 0.74, depth=(0.0, 0.0))
    for x, y in (
        (0.08, 0.5),
        (0.24, 0.08),
        (0.4, 0.24),
        (0.56, 0.06),
        (0.9, 0.4),
        (0.72, 0.56),
        (0.3, 0.44),
        (0.95, 0.1),
    ):
        _disc(canvas, x + shift, y, 0.013, (255, 252, 220), 0.0)
    _disc(canvas, 0.15 + shift, 0.23, 0.15, (50, 124, 228))
    for dx, dy, r in ((-0.04, -0.04, 0.06), (0.06, 0.05, 0.055)):
        canvas.polygon(ellipse(0.15 + shift + dx, 0.23 + dy, r, r * 0.8), (88, 186, 100))
    canvas.gradient((136, 136, 150), (192, 192, 204), 0.72, 1, depth=GROUND)
    for x, y in ((0.12, 0.8), (0.88, 0.79), (0.3, 0.94), (0.74, 0.93)):
        canvas.polygon(ellipse(x + shift, y, 0.09, 0.03), (112, 112, 130))


def forest(canvas: Canvas, shift: float, _: int) -> None:
    """Green trees, trunks, moss."""
    canvas.gradient((172, 224, 176), (112, 180, 116), 0, 0.8, depth=(0.0, 0.1))
    for x, top in ((0.3, 0.14), (0.72, 0.1), (0.08, 0.02), (0.95, 0.04)):
        x += shift
        _box(canvas, x - 0.03, 0.6, x + 0.03, 0.82, (104, 68, 42), 0.2)
        for k in range(3):
            y, half = top + 0.19 * k, 0.12 + 0.045 * k
            tree = np.array([(x - half, y + 0.27), (x, y), (x + half, y + 0.27)])
            canvas.polygon(tree, shade((52, 138, 70), 0.72 + 0.14 * k), 0.2)
    canvas.gradient((86, 140, 66), (60, 106, 54), 0.8, 1, depth=GROUND)


def kitchen(canvas: Canvas, shift: float, _: int) -> None:
    """A kitchen: cupboards, a window, a counter with a pot."""
    wood: Colour = (178, 110, 62)
    canvas.gradient((254, 236, 198), (246, 222, 176), 0, 1, depth=(0.15, 0.15))
    for x in (-0.02, 0.8):
        _box(canvas, x + shift, 0, x + 0.22 + shift, 0.32, wood, 0.22)
        _box(canvas, x + 0.105 + shift, 0, x + 0.115 + shift, 0.32, shade(wood, 0.7), 0.22)
    _box(canvas, 0.3 + shift, 0.04, 0.7 + shift, 0.4, (255, 255, 255), 0.15)
    _box(canvas, 0.33 + shift, 0.07, 0.67 + shift, 0.37, (150, 212, 250), 0.1)
    _box(canvas, 0, 0.64, 1, 0.69, (240, 240, 244), 0.34)
    _box(canvas, 0, 0.69, 1, 0.92, wood, 0.32)
    for x in (0.25, 0.5, 0.75):
        _box(canvas, x + shift - 0.008, 0.69, x + shift + 0.008, 0.92, shade(wood, 0.7), 0.32)
    x = 0.12 + shift
    canvas.polygon(
        np.array([(x - 0.1, 0.5), (x + 0.1, 0.5), (x + 0.085, 0.64), (x - 0.085, 0.64)]), (220, 56, 54), 0.36
    )
    canvas.gradient((206, 184, 154), (222, 202, 172), 0.92, 1, depth=(0.5, 0.62))


def beach(canvas: Canvas, shift: float, _: int) -> None:
    """Sea, sand, a palm and a parasol."""
    canvas.gradient((92, 186, 250), (214, 240, 254), 0, 0.5, depth=(0.0, 0.02))
    canvas.gradient((24, 118, 200), (84, 206, 216), 0.48, 0.74, depth=(0.05, 0.2))
    canvas.gradient((254, 232, 172), (244, 208, 138), 0.72, 1, depth=GROUND)
    x, y = 0.13 + shift, 0.26
    canvas.line(np.array([(x - 0.02, 0.84), (x + 0.02, 0.54), (x, y)]), 0.05, (142, 96, 54), 0.35)
    for angle in np.radians((160, 205, 250, 290, 335, 20)):
        canvas.line(
            np.array([(x, y), (x + 0.21 * np.cos(angle), y + 0.16 * np.sin(angle))]),
            0.06,
            (46, 156, 76),
            0.35,
        )
    x = 0.87 + shift
    _box(canvas, x - 0.01, 0.5, x + 0.01, 0.84, (244, 244, 244), 0.3)
    canvas.polygon(ellipse(x, 0.56, 0.19, 0.17, 180, 360), (240, 66, 76), 0.3)


STUDIO_TONES: tuple[Colour, ...] = (
    (206, 208, 216), (240, 206, 184), (176, 206, 240), (214, 190, 236), (186, 226, 196), (246, 230, 180),
)  # fmt: skip


def studio(canvas: Canvas, _: float, tone: int) -> None:
    """A plain backdrop of one colour with a soft light behind the figure."""
    colour = STUDIO_TONES[tone]
    canvas.gradient(colour, shade(colour, 0.84), 0, 1, depth=(0.1, 0.12))
    canvas.glow(0.5, 0.42, 0.62, shade(colour, 1.6), 0.8)
    canvas.gradient(shade(colour, 0.76), shade(colour, 0.9), 0.88, 1, depth=(0.12, 0.6))


BACKGROUNDS: dict[str, Callable[[Canvas, float, int], None]] = {
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
