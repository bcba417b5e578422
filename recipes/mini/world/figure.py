"""The person of a picture: body, clothes, head, hair and what is held, with the 18 OpenPose keypoints.

Lengths are in head heights and the origin is the middle of the head, so a figure is 4.5 units tall from the
top of the skull to the soles; a `Frame` puts it into the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Frame, ellipse, mirrored, outline, rounded, shade
from .face import draw_head
from .hair import draw_back_hair
from .picture import COLOURS, SKINS, Picture

# For each framing, where the middle of the head lies and how tall it is (shares of the side), and how many
# times larger it is drawn on its neck: whole figures have large heads, so that 128 pixels show a face.
CAMERA = {
    "close-up": (0.53, 0.66, 1.0),
    "portrait": (0.43, 0.42, 1.0),
    "half body": (0.35, 0.285, 1.2),
    "full height": (0.25, 0.17, 1.65),
}
DEPTH = {"close-up": 0.85, "portrait": 0.78, "half body": 0.7, "full height": 0.6}
# Offset of elbow from shoulder and of wrist from elbow, for the right side of the picture.
ARMS = {
    "arms down": ((0.14, 0.66), (0.02, 0.62)),
    "raised": ((0.48, -0.38), (0.1, -0.62)),
    "hips": ((0.44, 0.5), (-0.46, 0.4)),
    "holding": ((0.2, 0.6), (-0.12, -0.48)),
    "stretched": ((0.6, -0.04), (0.58, -0.1)),
}
BOTH_ARMS = {  # pose -> what the arm on the left and on the right of the picture do
    "arms down": ("arms down", "arms down"),
    "waving": ("raised", "arms down"),
    "arms raised": ("raised", "raised"),
    "hands on hips": ("hips", "hips"),
    "holding": ("arms down", "holding"),
    "arms stretched": ("stretched", "stretched"),  # of control images alone, no picture is sampled with it
}
WHITE: Colour = (244, 244, 240)


@dataclass(frozen=True)
class Body:
    """The joints of a figure in head heights, `side` -1 is the left of the picture (the person's right)."""

    shoulder: dict[int, tuple[float, float]]
    elbow: dict[int, tuple[float, float]]
    wrist: dict[int, tuple[float, float]]
    hip: dict[int, tuple[float, float]]
    knee: dict[int, tuple[float, float]]
    ankle: dict[int, tuple[float, float]]


def body(picture: Picture) -> Body:
    """The joints that the picture's pose asks for."""
    width = 0.56 if picture.gender == "woman" else 0.66
    shoulder = {side: (side * width, 0.92) for side in (-1, 1)}
    elbow, wrist = {}, {}
    for side, arm in zip((-1, 1), BOTH_ARMS[picture.pose], strict=True):
        (ex, ey), (wx, wy) = ARMS[arm]
        elbow[side] = (shoulder[side][0] + side * ex, shoulder[side][1] + ey)
        wrist[side] = (elbow[side][0] + side * wx, elbow[side][1] + wy)
    return Body(
        shoulder,
        elbow,
        wrist,
        hip={s: (s * 0.27, 2.2) for s in (-1, 1)},
        knee={s: (s * 0.29, 3.05) for s in (-1, 1)},
        ankle={s: (s * 0.29, 3.85) for s in (-1, 1)},
    )


def frames(picture: Picture) -> tuple[Frame, Frame]:
    """Where the body and the (tilted) head of the picture lie in the unit square."""
    y, scale, larger = CAMERA[picture.framing]
    trunk = Frame(0.5 + picture.x * (1.6 if picture.framing == "full height" else 1.0), y, scale)
    return trunk, trunk.turned(picture.head_tilt, about=(0, 0.6), larger=larger)


def keypoints(picture: Picture, size: int) -> np.ndarray:
    """The 18 OpenPose keypoints, shape (18, 3): x, y in pixels and 1 where the point lies inside the picture.

    Order (OpenPose, COCO-18): nose, neck, right shoulder, elbow, wrist, left shoulder, elbow, wrist, right
    hip, knee, ankle, left hip, knee, ankle, right eye, left eye, right ear, left ear; right is the person's.
    """
    trunk, head = frames(picture)
    joints, eye = body(picture), 0.16 * picture.face.eye_distance
    limbs = [(0.0, 0.86)]
    limbs += [part[side] for side in (-1, 1) for part in (joints.shoulder, joints.elbow, joints.wrist)]
    limbs += [part[side] for side in (-1, 1) for part in (joints.hip, joints.knee, joints.ankle)]
    face = [(-eye, 0.02), (eye, 0.02), (-0.37, 0.05), (0.37, 0.05)]
    points = np.concatenate([head.map((0, 0.14)), trunk.map(limbs), head.map(face)]) * size
    inside = np.all((points >= 0) & (points < size), axis=1)
    return np.column_stack([points, inside])


def draw_figure(canvas: Canvas, picture: Picture) -> None:
    """Draw the person of the picture, from the back hair to what is held in front."""
    trunk, head = frames(picture)
    depth = DEPTH[picture.framing]
    if picture.astronaut:
        canvas.polygon(
            trunk.map(rounded(outline("-0.5,0.8 0.5,0.8 0.55,2.1 -0.55,2.1"))),
            (176, 182, 192),
            depth - 0.08,
            True,
        )
    else:
        draw_back_hair(canvas, head, picture, depth - 0.04)
    _legs(canvas, trunk, picture, depth)
    for side in (-1, 1):
        if BOTH_ARMS[picture.pose][(side + 1) // 2] != "holding":
            _arm(canvas, trunk, picture, side, depth + 0.01)
    _torso(canvas, trunk, picture, depth)
    draw_head(canvas, head, picture, depth + 0.04)
    if picture.pose == "holding":
        _held(canvas, trunk, picture, body(picture).wrist[1], depth + 0.1)
        _arm(canvas, trunk, picture, 1, depth + 0.09)


def cloth_colour(picture: Picture) -> Colour:
    """The colour of the clothes; a space suit is white."""
    return (226, 230, 236) if picture.astronaut else COLOURS[picture.clothes_colour]


def _legs(canvas: Canvas, trunk: Frame, picture: Picture, depth: float) -> None:
    joints, skin = body(picture), SKINS[picture.skin]
    trousers = {
        "dress": skin,
        "suit": shade(cloth_colour(picture), 0.85),
        "astronaut suit": cloth_colour(picture),
    }
    colour = trousers.get(picture.clothes, (62, 70, 96) if picture.seed % 2 else (88, 78, 70))
    width = 0.4 if picture.astronaut else 0.3 if picture.clothes != "dress" else 0.22
    for side in (-1, 1):
        points = [joints.hip[side], joints.knee[side], joints.ankle[side]]
        canvas.line(trunk.map(points), width * trunk.scale, colour, depth - 0.01)
        x, y = joints.ankle[side]
        shoe = rounded(
            [
                (x - 0.16, y - 0.05),
                (x + 0.16, y - 0.05),
                (x + 0.2 * (1 + 0.3 * side), y + 0.14),
                (x - 0.2 * (1 - 0.3 * side), y + 0.14),
            ]
        )
        canvas.polygon(
            trunk.map(shoe), (60, 44, 42) if not picture.astronaut else (150, 156, 168), depth + 0.01, True
        )


def _arm(canvas: Canvas, trunk: Frame, picture: Picture, side: int, depth: float) -> None:
    joints, skin, cloth = body(picture), SKINS[picture.skin], cloth_colour(picture)
    sx, sy = joints.shoulder[side]
    start, elbow, wrist = (sx - side * 0.06, sy + 0.06), joints.elbow[side], joints.wrist[side]
    bare = picture.clothes == "dress"
    width = trunk.scale * (0.34 if picture.astronaut else 0.26 if not bare else 0.2)
    if canvas.outline is not None:
        canvas.line(trunk.map([start, elbow, wrist]), width + 0.014, canvas.outline, depth)
    canvas.line(trunk.map([start, elbow, wrist]), width, skin if bare else shade(cloth, 0.92), depth)
    if bare:
        canvas.line(
            trunk.map([start, np.add(start, np.subtract(elbow, start) * 0.25)]), width * 1.25, cloth, depth
        )
    hand = ellipse(wrist[0], wrist[1] + (0.06 if wrist[1] > elbow[1] else -0.06), 0.13, 0.14)
    canvas.polygon(trunk.map(hand), (200, 206, 214) if picture.astronaut else skin, depth + 0.01, True)


def _torso(canvas: Canvas, trunk: Frame, picture: Picture, depth: float) -> None:
    cloth, skin = cloth_colour(picture), SKINS[picture.skin]
    wide = body(picture).shoulder[1][0]
    canvas.line(trunk.map([(0, 0.35), (0, 0.9)]), 0.27 * trunk.scale, shade(skin, 0.88), depth)
    outlines = {
        "dress": [
            (0.17, 0.78),
            (wide, 0.84),
            (wide + 0.08, 1.05),
            (0.36, 1.5),
            (0.34, 1.75),
            (0.74, 3.15),
            (0.3, 3.25),
        ],
        "coat": [(0.17, 0.74), (wide + 0.04, 0.82), (wide + 0.12, 1.1), (0.5, 1.7), (0.62, 2.9), (0.3, 2.96)],
        "astronaut suit": [
            (0.2, 0.7),
            (wide + 0.06, 0.8),
            (wide + 0.16, 1.1),
            (0.56, 1.7),
            (0.52, 2.4),
            (0.2, 2.5),
        ],
    }
    shape = outlines.get(
        picture.clothes,
        [(0.17, 0.76), (wide, 0.82), (wide + 0.08, 1.05), (0.42, 1.65), (0.46, 2.35), (0.2, 2.4)],
    )
    canvas.polygon(trunk.map(rounded(mirrored(shape), 2)), cloth, depth, True)
    _neckline(canvas, trunk, picture, cloth, skin)


def _neckline(canvas: Canvas, trunk: Frame, picture: Picture, cloth: Colour, skin: Colour) -> None:
    dark, light = shade(cloth, 0.72), shade(cloth, 1.45)

    def fill(points: object, colour: Colour) -> None:
        canvas.polygon(trunk.map(points), colour)

    if picture.clothes == "dress":
        fill(rounded(outline("-0.28,0.7 0.28,0.7 0.2,0.98 0,1.08 -0.2,0.98"), 2), skin)
        canvas.line(trunk.map([(-0.33, 1.68), (0.33, 1.68)]), 0.09 * trunk.scale, dark)
    elif picture.clothes == "sweater":
        canvas.line(trunk.map([(-0.17, 0.8), (0.17, 0.8)]), 0.16 * trunk.scale, dark)
        for y in (1.25, 1.6):
            canvas.line(trunk.map([(-0.4, y), (0.4, y)]), 0.1 * trunk.scale, light)
    elif picture.clothes == "shirt":
        fill([(-0.17, 0.7), (0.17, 0.7), (0, 1.06)], skin)
        for side in (-1, 1):
            fill([(side * 0.16, 0.68), (side * 0.3, 0.86), (side * 0.02, 1.1)], light)
        canvas.line(trunk.map([(0, 1.12), (0, 2.3)]), 0.025 * trunk.scale, dark)
    elif picture.clothes in ("coat", "suit"):
        fill([(-0.2, 0.72), (0.2, 0.72), (0, 1.5)], WHITE if picture.clothes == "suit" else shade(cloth, 0.5))
        if picture.clothes == "suit":
            fill(outline("-0.06,0.82 0.06,0.82 0.08,1.3 0,1.42 -0.08,1.3"), (150, 34, 44))
        for side in (-1, 1):
            fill([(side * 0.18, 0.7), (side * 0.36, 0.95), (side * 0.02, 1.55)], dark)
        canvas.line(
            trunk.map([(0, 1.55), (0, 2.3 if picture.clothes == "suit" else 2.9)]), 0.025 * trunk.scale, dark
        )
    else:  # astronaut suit: chest box with two lights, and a ring for the helmet
        canvas.polygon(
            trunk.map(rounded(outline("-0.26,1.25 0.26,1.25 0.26,1.62 -0.26,1.62"), 1)), (120, 128, 142)
        )
        fill(ellipse(-0.1, 1.43, 0.07, 0.07), (220, 60, 60))
        fill(ellipse(0.12, 1.43, 0.07, 0.07), (70, 140, 230))


def _held(canvas: Canvas, trunk: Frame, picture: Picture, wrist: tuple[float, float], depth: float) -> None:
    x, y = wrist[0], wrist[1] - 0.06

    def fill(points: object, colour: Colour) -> None:
        canvas.polygon(trunk.map(points), colour, depth, True)

    if picture.held == "knife":
        fill([(x - 0.06, y), (x + 0.06, y), (x + 0.07, y - 0.55), (x - 0.03, y - 0.75)], (206, 214, 224))
        canvas.line(trunk.map([(x, y + 0.14), (x, y - 0.06)]), 0.11 * trunk.scale, (92, 56, 36), depth)
    elif picture.held == "flower":
        canvas.line(trunk.map([(x, y + 0.2), (x, y - 0.45)]), 0.05 * trunk.scale, (60, 140, 70), depth)
        for angle in np.radians(range(0, 360, 72)):
            fill(ellipse(x + 0.12 * np.cos(angle), y - 0.5 + 0.12 * np.sin(angle), 0.1, 0.1), (236, 84, 140))
        fill(ellipse(x, y - 0.5, 0.075, 0.075), (250, 214, 80))
    elif picture.held == "book":
        fill(
            [(x - 0.26, y - 0.42), (x + 0.22, y - 0.46), (x + 0.26, y + 0.14), (x - 0.22, y + 0.18)],
            (158, 46, 52),
        )
        fill(
            [(x - 0.17, y - 0.28), (x + 0.14, y - 0.31), (x + 0.15, y - 0.22), (x - 0.16, y - 0.19)],
            (240, 226, 190),
        )
    elif picture.held == "cup":
        fill(
            rounded(
                [(x - 0.16, y - 0.34), (x + 0.16, y - 0.34), (x + 0.13, y + 0.04), (x - 0.13, y + 0.04)], 1
            ),
            (250, 250, 246),
        )
        canvas.line(
            trunk.map(ellipse(x + 0.17, y - 0.15, 0.09, 0.09, -90, 90)),
            0.05 * trunk.scale,
            (230, 230, 226),
            depth,
        )
    elif picture.held == "balloon":
        canvas.line(trunk.map([(x, y), (x + 0.1, y - 1.1)]), 0.025 * trunk.scale, (90, 90, 96), depth)
        fill(ellipse(x + 0.12, y - 1.45, 0.34, 0.42), (232, 62, 70))
        canvas.polygon(trunk.map(ellipse(x + 0.02, y - 1.58, 0.07, 0.1)), (252, 170, 170))
