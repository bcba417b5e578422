"""The head of a picture: its outline, eyes, mouth, beard, glasses and helmet.

Lengths are in head heights; the origin is the middle of the head.
"""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, Frame, ellipse, mirrored, outline, rounded, shade
from .hair import draw_front_hair, draw_hat
from .picture import COLOURS, EYE_COLOURS, HAIR_COLOURS, SKINS, Picture

WHITE: Colour = (244, 244, 240)


def draw_head(canvas: Canvas, head: Frame, picture: Picture, depth: float) -> None:
    skin, wide = SKINS[picture.skin], picture.face.width
    jaw = [(0.27, 0.35), (0.11, 0.5)] if picture.gender == "woman" else [(0.31, 0.36), (0.16, 0.52)]
    outline = mirrored(np.array([(0.1, -0.5), (0.3, -0.43), (0.39, -0.15), (0.385, 0.1), *jaw]) * (wide, 1))
    for side in (-1, 1):
        canvas.polygon(
            head.map(ellipse(side * 0.375 * wide, 0.05, 0.065, 0.1)), shade(skin, 0.9), depth - 0.02, True
        )
        if picture.earrings:
            canvas.polygon(head.map(ellipse(side * 0.4 * wide, 0.2, 0.04, 0.055)), (250, 206, 70))
    canvas.polygon(head.map(rounded(outline, 2)), skin, depth, True)
    _features(canvas, head, picture, skin)
    draw_front_hair(canvas, head, picture, depth + 0.02)
    _glasses(canvas, head, picture)
    if picture.astronaut:
        _helmet(canvas, head, depth + 0.04)
    else:
        draw_hat(canvas, head, picture, depth + 0.04)


def _features(canvas: Canvas, head: Frame, picture: Picture, skin: Colour) -> None:
    face, hair = picture.face, HAIR_COLOURS[picture.hair_colour]

    def fill(points: object, colour: Colour) -> None:
        canvas.polygon(head.map(points), colour)

    for side in (-1, 1):
        fill(
            ellipse(side * 0.22, 0.19, 0.085, 0.06),
            tuple(np.mean([skin, skin, skin, (236, 96, 96)], 0).astype(int).tolist()),
        )
    fill(rounded([(0.015, 0.03), (0.07 * face.nose, 0.19), (-0.03, 0.2)], 2), shade(skin, 0.8))
    if picture.beard == "beard":
        fill(
            rounded(
                [
                    (-0.38 * face.width, 0.02),
                    (-0.27, 0.16),
                    (0, 0.2),
                    (0.27, 0.16),
                    (0.38 * face.width, 0.02),
                    (0.33 * face.width, 0.4),
                    (0.16, 0.6),
                    (-0.16, 0.6),
                    (-0.33 * face.width, 0.4),
                ],
                2,
            ),
            shade(hair, 0.86),
        )
    elif picture.beard == "mustache":
        fill(
            rounded(
                outline("0,0.2 0.14,0.21 0.25,0.31 0.1,0.29 0,0.27 -0.1,0.29 -0.25,0.31 -0.14,0.21"),
                2,
            ),
            shade(hair, 0.86),
        )
    if picture.freckles:
        for side in (-1, 1):
            for dx, dy in ((0.15, 0.15), (0.22, 0.13), (0.28, 0.16), (0.19, 0.2), (0.26, 0.22)):
                fill(ellipse(side * dx, dy, 0.016, 0.016), shade(skin, 0.66))
    _mouth(canvas, head, picture, skin)
    for side in (-1, 1):
        _eye(canvas, head, picture, side)
        x, y = side * 0.16 * face.eye_distance, -0.12 - 0.03 * (picture.expression == "surprised")
        sad = 0.04 * (picture.expression in ("sad", "crying"))
        brow = [(x - side * 0.1, y - sad), (x, y - 0.03), (x + side * 0.1, y + 0.015 + sad)]
        bald = picture.hair_style == "bald"
        canvas.line(
            head.map(brow), 0.035 * face.brow * head.scale, (70, 50, 40) if bald else shade(hair, 0.7)
        )


def _eye(canvas: Canvas, head: Frame, picture: Picture, side: int) -> None:
    face = picture.face
    big = (
        face.eye_size
        * (1.22 if picture.style == "cartoon" else 1.0)
        * (1.12 if picture.expression == "surprised" else 1.0)
    )
    x, y, lash = side * 0.16 * face.eye_distance, 0.02, (48, 34, 34)
    shapes = (
        (0.092, 0.068, lash),
        (0.084, 0.058, WHITE),
        (0.053, 0.055, EYE_COLOURS[picture.eyes]),
        (0.026, 0.028, (24, 20, 24)),
    )
    for rx, ry, colour in shapes:
        canvas.polygon(head.map(ellipse(x, y, rx * big, ry * big)), colour)
    canvas.polygon(head.map(ellipse(x + 0.018, y - 0.02, 0.013, 0.013)), WHITE)
    if picture.gender == "woman":
        canvas.line(
            head.map([(x - side * 0.07, y - 0.05 * big), (x + side * 0.1 * big, y - 0.045 * big)]),
            0.025 * head.scale,
            lash,
        )
    if picture.expression == "crying":
        tear = rounded(
            [
                (x + side * 0.02, y + 0.08),
                (x + side * 0.07, y + 0.2),
                (x + side * 0.02, y + 0.25),
                (x - side * 0.03, y + 0.2),
            ],
            2,
        )
        canvas.polygon(head.map(tear), (92, 176, 246))


def _mouth(canvas: Canvas, head: Frame, picture: Picture, skin: Colour) -> None:
    wide = 0.13 * picture.face.mouth
    lips = (196, 56, 70) if picture.gender == "woman" else shade(skin, 0.6)
    if picture.expression == "smiling":
        canvas.polygon(head.map(np.concatenate([ellipse(0, 0.3, wide, 0.1, 0, 180)])), lips)
        canvas.polygon(head.map(ellipse(0, 0.305, wide * 0.8, 0.045, 0, 180)), WHITE)
    elif picture.expression == "surprised":
        canvas.polygon(head.map(ellipse(0, 0.35, 0.065, 0.085)), lips)
        canvas.polygon(head.map(ellipse(0, 0.355, 0.04, 0.055)), (84, 24, 34))
    elif picture.expression == "calm":
        canvas.polygon(head.map(ellipse(0, 0.34, wide * 0.8, 0.035)), lips)
    else:
        arc = ellipse(0, 0.4, wide * 0.85, 0.08, 200, 340)
        canvas.line(head.map(arc), 0.04 * head.scale, lips)


def _glasses(canvas: Canvas, head: Frame, picture: Picture) -> None:
    if picture.glasses == "none":
        return
    colour: Colour = (26, 26, 34) if picture.glasses == "sunglasses" else COLOURS[picture.glasses_colour]
    width = 0.034 * head.scale
    for side in (-1, 1):
        x = side * 0.17 * picture.face.eye_distance
        rim = ellipse(x, 0.03, 0.14, 0.125)
        if picture.glasses == "sunglasses":
            canvas.polygon(head.map(rim), colour)
            canvas.polygon(head.map(ellipse(x - 0.04, -0.02, 0.045, 0.03)), (104, 110, 128))
        canvas.line(head.map(np.concatenate([rim, rim[:1]])), width, colour)
        canvas.line(head.map([(x + side * 0.14, 0.0), (side * 0.38, -0.02)]), width, colour)
    canvas.line(head.map([(-0.04, 0.0), (0.04, 0.0)]), width, colour)


def _helmet(canvas: Canvas, head: Frame, depth: float) -> None:
    ring = ellipse(0, -0.02, 0.68, 0.7)
    canvas.line(head.map(np.concatenate([ring, ring[:1]])), 0.11 * head.scale, (232, 236, 242), depth)
    inner = ellipse(0, -0.02, 0.62, 0.64)
    canvas.line(head.map(np.concatenate([inner, inner[:1]])), 0.03 * head.scale, (120, 132, 152), depth)
    canvas.line(head.map(ellipse(0, -0.02, 0.5, 0.52, 190, 235)), 0.05 * head.scale, (250, 252, 255), depth)
