"""Hair and hats: what lies behind the head, and what lies over it."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Frame, ellipse, mirrored, outline, rounded, shade
from .picture import COLOURS, HAIR_COLOURS, Picture

_CURLS = [(0.46 * np.cos(a), -0.12 + 0.46 * np.sin(a)) for a in np.radians(np.linspace(150, 390, 11))]


def draw_back_hair(canvas: Canvas, head: Frame, picture: Picture, depth: float) -> None:
    """The hair that falls behind neck and shoulders."""
    colour = shade(HAIR_COLOURS[picture.hair_colour], 0.82)
    length = 1.25 if picture.gender == "woman" else 0.8
    falls = {
        "long": [(0.12, -0.6), (0.42, -0.5), (0.54, -0.1), (0.56, 0.5), (0.6, length), (0.3, length + 0.1)],
        "bob": outline("0.12,-0.58 0.42,-0.48 0.56,-0.05 0.58,0.42 0.4,0.58"),
    }
    if picture.hair_style in falls:
        canvas.polygon(head.map(rounded(mirrored(falls[picture.hair_style]), 2)), colour, depth, True)
    elif picture.hair_style == "curly":
        for x, y in _CURLS:
            canvas.polygon(head.map(ellipse(x * 1.08, y, 0.21, 0.21)), colour, depth, True)
    elif picture.hair_style == "ponytail":
        tail = outline("0.2,-0.45 0.5,-0.5 0.78,-0.1 0.74,0.5 0.58,0.85 0.52,0.4 0.4,-0.05")
        canvas.polygon(head.map(rounded(tail, 2)), colour, depth, True)
    elif picture.hair_style == "pigtails":
        for side in (-1, 1):
            tail = outline("0.34,-0.1 0.6,-0.08 0.76,0.35 0.62,0.95 0.5,0.5 0.38,0.2") * (side, 1)
            canvas.polygon(head.map(rounded(tail, 2)), colour, depth, True)
    elif picture.hair_style in ("bun", "buns"):
        for x, y, r in (
            ((0.0, -0.66, 0.22),)
            if picture.hair_style == "bun"
            else ((-0.36, -0.52, 0.2), (0.36, -0.52, 0.2))
        ):
            canvas.polygon(head.map(ellipse(x, y, r, r)), colour, depth, True)


def draw_front_hair(canvas: Canvas, head: Frame, picture: Picture, depth: float) -> None:
    """The hair over the skull, with a fringe or a parting."""
    style, colour = picture.hair_style, HAIR_COLOURS[picture.hair_colour]
    wide = picture.face.width
    if style == "bald":
        canvas.polygon(head.map(ellipse(-0.12, -0.38, 0.09, 0.04)), (255, 255, 250))
        return
    if style == "curly":
        for x, y in _CURLS[2:-2]:
            canvas.polygon(head.map(ellipse(x * 0.92, y * 0.95 + 0.02, 0.15, 0.15)), colour, depth)
        return
    if style == "spiky":
        crest = outline(
            "-0.42,0 -0.44,-0.3 -0.5,-0.55 -0.28,-0.5 -0.22,-0.74 -0.04,-0.56 0.1,-0.78 "
            "0.2,-0.54 0.44,-0.68 0.42,-0.4 0.44,-0.2 0.41,0 0.34,-0.2 0.1,-0.3 "
            "-0.16,-0.26 -0.34,-0.2"
        )
        canvas.polygon(head.map(crest * (wide, 1)), colour, depth, True)
        return
    if style == "buzz":
        cap = outline(
            "-0.41,-0.08 -0.4,-0.36 -0.2,-0.53 0.2,-0.53 0.4,-0.36 0.41,-0.08 0.34,-0.22 "
            "0.16,-0.33 -0.16,-0.33 -0.34,-0.22"
        )
        canvas.polygon(head.map(rounded(cap * (wide, 1), 1)), colour, depth)
        return
    low = {"long": 0.32, "bob": 0.36, "short": 0.04 if picture.gender == "man" else 0.16}.get(style, 0.02)
    parting = -0.12 if picture.gender == "woman" else 0.16
    cap = outline(
        f"-0.44,{low} -0.47,-0.2 -0.36,-0.52 -0.1,-0.61 0.14,-0.61 0.37,-0.52 0.47,-0.2 0.44,{low} "
        f"0.35,{low - 0.02} 0.34,-0.12 0.22,-0.26 {parting},-0.34 -0.24,-0.24 -0.34,-0.1 -0.35,{low - 0.02}"
    )
    canvas.polygon(head.map(rounded(cap * (wide, 1), 2)), colour, depth, True)
    canvas.line(
        head.map(np.array([(-0.26, -0.4), (-0.05, -0.5), (0.14, -0.51)]) * (wide, 1)),
        0.045 * head.scale,
        shade(colour, 1.25),
    )


def draw_hat(canvas: Canvas, head: Frame, picture: Picture, depth: float) -> None:
    """The hat, which leaves the hair at the sides to be seen."""
    colour = COLOURS[picture.hat_colour]
    dark = shade(colour, 0.72)
    dome = outline("-0.46,-0.24 -0.44,-0.55 -0.2,-0.76 0.2,-0.76 0.44,-0.55 0.46,-0.24")
    if picture.hat == "cap":
        canvas.polygon(head.map(rounded(dome, 1)), colour, depth, True)
        canvas.polygon(
            head.map(rounded(outline("-0.34,-0.3 0.4,-0.32 0.72,-0.2 0.66,-0.12 0.2,-0.2 -0.3,-0.2"), 2)),
            dark,
            depth + 0.03,
            True,
        )
    elif picture.hat == "beanie":
        canvas.polygon(head.map(rounded(dome, 2)), colour, depth, True)
        canvas.line(head.map([(-0.42, -0.28), (0.42, -0.28)]), 0.14 * head.scale, dark, depth + 0.02)
        canvas.polygon(head.map(ellipse(0, -0.78, 0.13, 0.13)), shade(colour, 1.4), depth, True)
    elif picture.hat == "hat":
        canvas.polygon(head.map(ellipse(0, -0.3, 0.8, 0.13)), dark, depth + 0.03, True)
        canvas.polygon(
            head.map(
                rounded(
                    outline("-0.4,-0.32 -0.36,-0.74 -0.1,-0.84 0.1,-0.84 0.36,-0.74 0.4,-0.32"),
                    1,
                )
            ),
            colour,
            depth,
            True,
        )
        canvas.line(head.map([(-0.39, -0.4), (0.39, -0.4)]), 0.08 * head.scale, dark)
    elif picture.hat == "crown":
        gold = (250, 204, 60)
        points = outline("-0.38,-0.32 -0.42,-0.78 -0.2,-0.56 0,-0.86 0.2,-0.56 0.42,-0.78 0.38,-0.32")
        canvas.polygon(head.map(points), gold, depth, True)
        for x in (-0.2, 0.0, 0.2):
            canvas.polygon(head.map(ellipse(x, -0.43, 0.05, 0.05)), colour)
