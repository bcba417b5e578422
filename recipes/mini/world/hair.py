"""Hair and hats: what lies behind the head, and what lies over it."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, Frame, ellipse, mirrored, mixed, outline, rounded, shade
from .picture import COLOURS, HAIR_COLOURS, SKINS, Picture

BAND: Colour = (236, 60, 96)
CURLS = {  # gender -> radius of a curl, and their middles
    "woman": (0.235, [(0.5 * np.cos(a), 0.48 * np.sin(a)) for a in np.radians(np.linspace(140, 400, 10))]),
    "man": (
        0.19,
        [(0.44 * np.cos(a), -0.1 + 0.44 * np.sin(a)) for a in np.radians(np.linspace(178, 362, 7))],
    ),
}
CAPS = {  # what covers the skull in front, from the left ear over the top to the right one and back
    "fringe": "-0.48,0.2 -0.52,-0.2 -0.38,-0.56 0,-0.66 0.38,-0.56 0.52,-0.2 0.48,0.2 0.4,0.06 0.37,-0.13 "
    "0.1,-0.2 -0.14,-0.32 -0.3,-0.18 -0.4,0.06",
    "sides": "-0.5,0.46 -0.56,-0.1 -0.4,-0.56 0,-0.67 0.4,-0.56 0.56,-0.1 0.5,0.46 0.4,0.4 0.38,-0.11 "
    "0.12,-0.2 -0.12,-0.33 -0.3,-0.18 -0.38,-0.05 -0.4,0.4",
    "short": "-0.47,0 -0.52,-0.28 -0.4,-0.62 0.1,-0.76 0.44,-0.62 0.52,-0.28 0.47,0 0.42,-0.17 0.28,-0.31 "
    "-0.1,-0.27 -0.36,-0.32 -0.42,-0.14",
    "spiky": "-0.46,0 -0.52,-0.3 -0.66,-0.58 -0.4,-0.56 -0.32,-0.86 -0.1,-0.62 0.06,-0.92 0.2,-0.62 "
    "0.46,-0.82 0.44,-0.5 0.66,-0.5 0.5,-0.24 0.46,0 0.41,-0.16 0.26,-0.3 0,-0.22 -0.26,-0.3 -0.41,-0.16",
    "buzz": "-0.46,-0.06 -0.47,-0.3 -0.3,-0.52 0,-0.57 0.3,-0.52 0.47,-0.3 0.46,-0.06 0.4,-0.2 0.28,-0.32 "
    "-0.28,-0.32 -0.4,-0.2",
}
CAP_OF = {"long": "sides", "bob": "sides", "short": "short", "spiky": "spiky", "buzz": "buzz"}


def draw_back_hair(canvas: Canvas, head: Frame, picture: Picture, depth: float) -> None:
    """The hair that falls behind neck and shoulders."""
    style, colour = picture.hair_style, shade(HAIR_COLOURS[picture.hair_colour], 0.84)
    falls = {
        "long": [outline("0.14,-0.62 0.5,-0.46 0.62,0 0.6,0.5 0.7,1.05 0.34,1.16")],
        "bob": [outline("0.14,-0.62 0.5,-0.46 0.64,0 0.66,0.46 0.44,0.6")],
    }
    tails = {
        "ponytail": [outline("0.1,-0.6 0.44,-0.72 0.86,-0.4 0.94,0.1 0.8,0.62 0.66,0.2 0.5,-0.2")],
        "pigtails": [
            outline("0.4,-0.06 0.64,-0.14 0.88,0.2 0.84,0.62 0.66,0.86 0.6,0.5 0.44,0.24") * (side, 1)
            for side in (-1, 1)
        ],
    }
    shapes = [rounded(mirrored(right), 2) for right in falls.get(style, [])]
    shapes += [rounded(tail) for tail in tails.get(style, [])]
    if style == "curly":
        radius, middles = CURLS[picture.gender]
        shapes += [ellipse(x, y, radius, radius) for x, y in middles]
    if style == "bun":
        shapes.append(ellipse(0, -0.7, 0.26, 0.25))
    if style == "buns":
        shapes += [ellipse(side * 0.43, -0.56, 0.27, 0.27) for side in (-1, 1)]
    for shape in shapes:
        canvas.polygon(head.map(shape), colour, depth, True)
    bands = {"ponytail": [(0.38, -0.5)], "pigtails": [(-0.52, 0.02), (0.52, 0.02)]}
    for x, y in bands.get(style, []):
        canvas.polygon(head.map(ellipse(x, y, 0.1, 0.1)), BAND, depth + 0.01)


def draw_front_hair(canvas: Canvas, head: Frame, picture: Picture, depth: float) -> None:
    """The hair over the skull, with a fringe or a parting."""
    style, colour = picture.hair_style, HAIR_COLOURS[picture.hair_colour]
    if style == "bald":
        canvas.polygon(
            head.map(ellipse(-0.16, -0.34, 0.11, 0.055)), mixed(SKINS[picture.skin], (255, 255, 255), 0.6)
        )
        return
    if style == "curly":
        radius, middles = CURLS[picture.gender]
        for x, y in middles:
            if y < -0.05:
                canvas.polygon(
                    head.map(ellipse(x * 0.86, y * 0.86 - 0.03, radius * 0.8, radius * 0.8)), colour, depth
                )
        return
    if style == "buzz":
        colour = mixed(colour, SKINS[picture.skin], 0.25)
    cap = outline(CAPS[CAP_OF.get(style, "fringe")]) * (picture.face.width, 1)
    canvas.polygon(head.map(rounded(cap, 1 if style == "spiky" else 2)), colour, depth, True)
    if style not in ("buzz", "spiky"):
        gloss = outline("-0.32,-0.42 -0.14,-0.51 0.06,-0.53")
        canvas.line(head.map(gloss * (picture.face.width, 1)), 0.06 * head.scale, shade(colour, 1.3))


def draw_hat(canvas: Canvas, head: Frame, picture: Picture, depth: float) -> None:
    """The hat, which leaves the hair at the sides to be seen."""
    colour = (255, 202, 50) if picture.hat == "crown" else COLOURS[picture.hat_colour]
    dark = shade(colour, 0.7)

    def fill(points: object, tone: Colour, nearer: float = 0.0) -> None:
        canvas.polygon(head.map(points), tone, depth + nearer, True)

    dome = outline("-0.54,-0.22 -0.52,-0.6 -0.26,-0.84 0.26,-0.84 0.52,-0.6 0.54,-0.22")
    if picture.hat == "cap":
        fill(rounded(dome, 2), colour)
        fill(rounded(outline("-0.4,-0.34 0.4,-0.36 0.86,-0.22 0.8,-0.1 0.2,-0.19 -0.38,-0.2"), 2), dark, 0.03)
    elif picture.hat == "beanie":
        fill(rounded(dome, 2), colour)
        canvas.line(head.map([(-0.45, -0.27), (0.45, -0.27)]), 0.2 * head.scale, dark, depth + 0.02)
        fill(ellipse(0, -0.86, 0.15, 0.15), shade(colour, 1.5))
    elif picture.hat == "hat":
        fill(
            rounded(outline("-0.46,-0.3 -0.42,-0.82 -0.12,-0.92 0.12,-0.92 0.42,-0.82 0.46,-0.3"), 1), colour
        )
        canvas.line(head.map([(-0.42, -0.42), (0.42, -0.42)]), 0.12 * head.scale, dark)
        fill(ellipse(0, -0.29, 0.88, 0.13), colour, 0.03)
    elif picture.hat == "crown":
        fill(outline("-0.46,-0.28 -0.52,-0.88 -0.26,-0.62 0,-0.96 0.26,-0.62 0.52,-0.88 0.46,-0.28"), colour)
        for x in (-0.26, 0.0, 0.26):
            canvas.polygon(head.map(ellipse(x, -0.43, 0.07, 0.07)), COLOURS["red"])
