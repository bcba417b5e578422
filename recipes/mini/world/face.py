"""The head of a picture: its outline, eyes, mouth, beard, glasses and helmet.

Lengths are in head heights; the origin is the middle of the head, the chin lies at y = 0.5.
"""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, Frame, ellipse, mirrored, mixed, outline, rounded, shade
from .hair import draw_front_hair, draw_hat
from .picture import COLOURS, EYE_COLOURS, HAIR_COLOURS, SKINS, Picture

WHITE: Colour = (250, 250, 248)
LASH: Colour = (44, 30, 34)
BLACK: Colour = (24, 22, 28)
JAW = {
    "woman": outline("0.14,-0.5 0.38,-0.42 0.47,-0.08 0.44,0.2 0.27,0.41 0.07,0.54"),
    "man": outline("0.14,-0.5 0.38,-0.42 0.46,-0.08 0.46,0.24 0.38,0.46 0.2,0.56"),
}
EYE_X, EYE_Y = 0.19, 0.03


def draw_head(canvas: Canvas, head: Frame, picture: Picture, depth: float) -> None:
    """Draw the head, from the ears to the hat."""
    skin, wide = SKINS[picture.skin], picture.face.width
    for side in (-1, 1):
        canvas.polygon(head.map(ellipse(side * 0.44 * wide, 0.08, 0.09, 0.12)), shade(skin, 0.9), depth, True)
        if picture.earrings:
            canvas.polygon(head.map(ellipse(side * 0.47 * wide, 0.27, 0.07, 0.075)), (255, 206, 60), depth)
    canvas.polygon(head.map(rounded(mirrored(JAW[picture.gender] * (wide, 1)))), skin, depth, True)
    _cheeks_and_nose(canvas, head, picture, skin)
    _beard(canvas, head, picture)
    _mouth(canvas, head, picture, skin)
    for side in (-1, 1):
        _eye(canvas, head, picture, side)
        _brow(canvas, head, picture, side)
    draw_front_hair(canvas, head, picture, depth + 0.02)
    _glasses(canvas, head, picture)
    if picture.astronaut:
        _helmet(canvas, head, depth + 0.04)
    else:
        draw_hat(canvas, head, picture, depth + 0.04)


def _cheeks_and_nose(canvas: Canvas, head: Frame, picture: Picture, skin: Colour) -> None:
    blush = mixed(skin, (240, 90, 100), 0.34 if picture.gender == "woman" else 0.12)
    for side in (-1, 1):
        canvas.polygon(head.map(ellipse(side * 0.3, 0.23, 0.095, 0.065)), blush)
        if picture.freckles:
            for dx, dy in ((0.22, 0.21), (0.3, 0.18), (0.37, 0.22), (0.29, 0.26)):
                canvas.polygon(head.map(ellipse(side * dx, dy, 0.022, 0.022)), shade(skin, 0.66))
    nose = 0.055 * picture.face.nose * (0.85 if picture.gender == "woman" else 1.2)
    canvas.polygon(head.map(ellipse(0, 0.17, nose, nose * 0.8)), shade(skin, 0.82))


def _beard(canvas: Canvas, head: Frame, picture: Picture) -> None:
    colour = shade(HAIR_COLOURS[picture.hair_colour], 0.85)
    shapes = {
        "beard": rounded(
            mirrored(outline("0,0.24 0.22,0.22 0.34,0.06 0.48,-0.02 0.48,0.3 0.36,0.58 0.14,0.7")), 2
        ),
        "mustache": rounded(
            mirrored(outline("0,0.2 0.14,0.19 0.26,0.26 0.36,0.22 0.3,0.36 0.14,0.37 0,0.3"))
        ),
    }
    if picture.beard in shapes:
        canvas.polygon(head.map(shapes[picture.beard] * (picture.face.width, 1)), colour, None, True)


def _eye(canvas: Canvas, head: Frame, picture: Picture, side: int) -> None:
    woman = picture.gender == "woman"
    big = picture.face.eye_size * (1.1 if woman else 0.94) * (1.1 if picture.expression == "surprised" else 1)
    x, y = side * EYE_X * picture.face.eye_distance, EYE_Y
    for dx, rx, ry, colour in (
        (0.0, 0.112, 0.108, WHITE),
        (0.0, 0.075, 0.088, EYE_COLOURS[picture.eyes]),
        (0.0, 0.044, 0.055, BLACK),
        (0.022, 0.024, 0.024, WHITE),
    ):
        lift = -0.03 if dx else 0.0
        canvas.polygon(head.map(ellipse(x + dx, y + lift, rx * big, ry * big)), colour)
    lid = ellipse(x, y, 0.118 * big, 0.112 * big, 190, 350)
    if woman:  # a thick lid that ends in a wing
        wing = (x + side * 0.185 * big, y - 0.085 * big)
        lid = np.concatenate([lid, [wing]] if side > 0 else [[wing], lid])
    canvas.line(head.map(lid), (0.05 if woman else 0.028) * head.scale, LASH)
    if picture.expression == "crying":
        tear = ellipse(x + side * 0.05, y + 0.2, 0.05, 0.095)
        canvas.polygon(head.map(tear), (84, 176, 250))


def _brow(canvas: Canvas, head: Frame, picture: Picture, side: int) -> None:
    woman, x = picture.gender == "woman", side * EYE_X * picture.face.eye_distance
    y = EYE_Y - 0.185 - 0.05 * (picture.expression == "surprised")
    sad = 0.055 * (picture.expression in ("sad", "crying"))
    brow = [
        (x - side * 0.1, y - sad),
        (x, y - (0.035 if woman else 0.015)),
        (x + side * 0.11, y + 0.015 + sad),
    ]
    dark = (84, 58, 44) if picture.hair_style == "bald" else shade(HAIR_COLOURS[picture.hair_colour], 0.62)
    canvas.line(head.map(brow), (0.03 if woman else 0.062) * picture.face.brow * head.scale, dark)


def _mouth(canvas: Canvas, head: Frame, picture: Picture, skin: Colour) -> None:
    woman, wide, y = picture.gender == "woman", 0.15 * picture.face.mouth, 0.34
    lips: Colour = (214, 40, 70) if woman else mixed(shade(skin, 0.5), (90, 30, 30), 0.5)

    def fill(points: object, colour: Colour) -> None:
        canvas.polygon(head.map(points), colour)

    if picture.expression == "smiling":
        fill(ellipse(0, y - 0.035, wide * 1.12, 0.15, 0, 180), lips)
        fill(ellipse(0, y - 0.01, wide * 0.8, 0.065, 0, 180), WHITE)
    elif picture.expression == "surprised":
        fill(ellipse(0, y + 0.04, 0.08, 0.1), lips)
        fill(ellipse(0, y + 0.045, 0.046, 0.062), (70, 20, 30))
    elif picture.expression in ("sad", "crying"):
        arc = ellipse(0, y + 0.1, wide * 0.85, 0.09, 200, 340)
        canvas.line(head.map(arc), (0.06 if woman else 0.045) * head.scale, lips)
    elif woman:
        fill(rounded(mirrored(outline("0,0.325 0.05,0.3 0.13,0.345 0.06,0.4")), 2), lips)
    else:
        canvas.line(head.map([(-wide * 0.8, y + 0.01), (wide * 0.8, y + 0.01)]), 0.045 * head.scale, lips)


def _glasses(canvas: Canvas, head: Frame, picture: Picture) -> None:
    if picture.glasses == "none":
        return
    dark = picture.glasses == "sunglasses"
    colour = BLACK if dark else COLOURS[picture.glasses_colour]
    width = 0.058 * head.scale
    for side in (-1, 1):
        x = side * 0.205 * picture.face.eye_distance
        rim = ellipse(x, EYE_Y + 0.01, 0.165, 0.155)
        if dark:
            canvas.polygon(head.map(rim), (40, 38, 50))
            canvas.polygon(head.map(ellipse(x - 0.05, EYE_Y - 0.05, 0.05, 0.032)), (130, 140, 166))
        canvas.line(head.map(np.concatenate([rim, rim[:2]])), width, colour)
        canvas.line(head.map([(x + side * 0.17, 0.0), (side * 0.46, -0.02)]), width, colour)
    canvas.line(head.map([(-0.05, EYE_Y - 0.02), (0.05, EYE_Y - 0.02)]), width, colour)


def _helmet(canvas: Canvas, head: Frame, depth: float) -> None:
    ring, inner = ellipse(0, 0, 0.68, 0.68), ellipse(0, 0, 0.61, 0.61)
    canvas.line(head.map(np.concatenate([ring, ring[:2]])), 0.13 * head.scale, (236, 240, 246), depth)
    canvas.line(head.map(np.concatenate([inner, inner[:2]])), 0.04 * head.scale, (120, 134, 160), depth)
    canvas.line(head.map(ellipse(0, 0, 0.5, 0.5, 195, 235)), 0.07 * head.scale, WHITE, depth)
