"""The person of a picture: body, clothes, head, hair and what is held, with the 18 OpenPose keypoints.

Lengths are in head heights and the origin is the middle of the head. A figure is three heads tall, as in a
comic, so 128 pixels show the eyes of a whole one; a `Frame` puts it into the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, Frame, ellipse, mirrored, outline, rounded, shade
from .face import draw_head
from .hair import draw_back_hair
from .picture import COLOURS, SKINS, Picture

# For each framing, where the middle of the head lies and how tall it is (shares of the side).
CAMERA = {
    "close-up": (0.55, 0.64),
    "portrait": (0.45, 0.47),
    "half body": (0.36, 0.37),
    "full height": (0.265, 0.285),
}
DEPTH = {"close-up": 0.85, "portrait": 0.78, "half body": 0.7, "full height": 0.6}
# Offset of elbow from shoulder and of wrist from elbow, for the right side of the picture.
ARMS = {
    "arms down": ((0.1, 0.36), (0.03, 0.34)),
    "raised": ((0.36, -0.02), (0.16, -0.74)),
    "hips": ((0.36, 0.3), (-0.34, 0.28)),
    "holding": ((0.22, 0.26), (0.1, -0.3)),
    "stretched": ((0.44, 0.0), (0.4, -0.03)),
}
BOTH_ARMS = {  # pose -> what the arm on the left and on the right of the picture do
    "arms down": ("arms down", "arms down"),
    "waving": ("raised", "arms down"),
    "arms raised": ("raised", "raised"),
    "hands on hips": ("hips", "hips"),
    "holding": ("arms down", "holding"),
    "arms stretched": ("stretched", "stretched"),  # of control images alone, no picture is sampled with it
}
WHITE: Colour = (248, 248, 246)
SUIT: Colour = (232, 236, 242)
SHOULDER = {"woman": 0.34, "man": 0.5}
HIP, KNEE, ANKLE = 1.5, 1.92, 2.28
TRUNKS = {  # right half outlines; x is stretched to the shoulders where it is 1
    "dress": "0.12,0.66 1,0.72 1.1,0.92 0.68,1.22 0.72,1.3 1.75,1.95 0.6,2.0",
    "coat": "0.2,0.64 1,0.7 1.2,0.94 1.02,1.3 1.3,1.86 0.5,1.9",
    "astronaut suit": "0.4,0.62 1,0.66 1.3,0.94 1.2,1.3 1.12,1.66 0.4,1.7",
    "suit": "0.2,0.64 1,0.68 1.14,0.92 0.92,1.3 1,1.66 0.3,1.68",
    "woman": "0.16,0.66 1,0.7 1.16,0.94 0.76,1.26 0.9,1.5 0.3,1.54",
    "man": "0.2,0.64 1,0.68 1.14,0.92 0.94,1.3 0.94,1.62 0.3,1.64",
}


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
    shoulder = {side: (side * (SHOULDER[picture.gender] - 0.02), 0.82) for side in (-1, 1)}
    elbow, wrist = {}, {}
    for side, arm in zip((-1, 1), BOTH_ARMS[picture.pose], strict=True):
        (ex, ey), (wx, wy) = ARMS[arm]
        elbow[side] = (shoulder[side][0] + side * ex, shoulder[side][1] + ey)
        wrist[side] = (elbow[side][0] + side * wx, elbow[side][1] + wy)
    apart = 0.16 if picture.gender == "woman" else 0.21
    hip, knee, ankle = ({s: (s * apart, y) for s in (-1, 1)} for y in (HIP, KNEE, ANKLE))
    return Body(shoulder, elbow, wrist, hip, knee, ankle)


def frames(picture: Picture) -> tuple[Frame, Frame]:
    """Where the body and the (tilted) head of the picture lie in the unit square."""
    y, scale = CAMERA[picture.framing]
    trunk = Frame(0.5 + picture.x * (1.6 if picture.framing == "full height" else 1.0), y, scale)
    return trunk, trunk.turned(picture.head_tilt, about=(0, 0.5))


def keypoints(picture: Picture, size: int) -> np.ndarray:
    """The 18 OpenPose keypoints, shape (18, 3): x, y in pixels and 1 where the point lies inside the picture.

    Order (OpenPose, COCO-18): nose, neck, right shoulder, elbow, wrist, left shoulder, elbow, wrist, right
    hip, knee, ankle, left hip, knee, ankle, right eye, left eye, right ear, left ear; right is the person's.
    """
    trunk, head = frames(picture)
    joints, eye = body(picture), 0.19 * picture.face.eye_distance
    limbs = [(0.0, 0.76)]
    limbs += [part[side] for side in (-1, 1) for part in (joints.shoulder, joints.elbow, joints.wrist)]
    limbs += [part[side] for side in (-1, 1) for part in (joints.hip, joints.knee, joints.ankle)]
    face = [(-eye, 0.03), (eye, 0.03), (-0.44, 0.08), (0.44, 0.08)]
    points = np.concatenate([head.map((0, 0.17)), trunk.map(limbs), head.map(face)]) * size
    inside = np.all((points >= 0) & (points < size), axis=1)
    return np.column_stack([points, inside])


def draw_figure(canvas: Canvas, picture: Picture) -> None:
    """Draw the person of the picture, from the back hair to what is held in front."""
    trunk, head = frames(picture)
    depth = DEPTH[picture.framing]
    if picture.astronaut:
        pack = rounded(outline("-0.62,0.6 0.62,0.6 0.62,1.5 -0.62,1.5"), 2)
        canvas.polygon(trunk.map(pack), (150, 158, 172), depth - 0.08, True)
        canvas.polygon(head.map(ellipse(0, 0, 0.66, 0.66)), (60, 76, 112), depth - 0.04)
    else:
        draw_back_hair(canvas, head, picture, depth - 0.04)
    _legs(canvas, trunk, picture, depth)
    for side in (-1, 1):
        if BOTH_ARMS[picture.pose][(side + 1) // 2] != "holding":
            _arm(canvas, trunk, picture, side, depth + 0.01)
    _torso(canvas, trunk, picture, depth)
    draw_head(canvas, head, picture, depth + 0.04)
    if picture.pose == "holding":
        _held(canvas, trunk, picture.held, body(picture).wrist[1], depth + 0.1)
        _arm(canvas, trunk, picture, 1, depth + 0.09)


def cloth_colour(picture: Picture) -> Colour:
    """The colour of the clothes; a space suit is white."""
    return SUIT if picture.astronaut else COLOURS[picture.clothes_colour]


def _legs(canvas: Canvas, trunk: Frame, picture: Picture, depth: float) -> None:
    joints, skin, woman = body(picture), SKINS[picture.skin], picture.gender == "woman"
    trousers = {"suit": shade(cloth_colour(picture), 0.85), "astronaut suit": cloth_colour(picture)}
    colour = trousers.get(picture.clothes, skin if woman else (58, 66, 100))
    width = 0.36 if picture.astronaut else 0.19 if woman else 0.3
    shoes = (150, 158, 172) if picture.astronaut else (200, 40, 70) if woman else (50, 38, 40)
    for side in (-1, 1):
        points = [joints.hip[side], joints.knee[side], joints.ankle[side]]
        canvas.line(trunk.map(points), width * trunk.scale, colour, depth - 0.01)
        x, y = joints.ankle[side]
        canvas.polygon(trunk.map(ellipse(x + 0.05 * side, y + 0.08, 0.19, 0.1)), shoes, depth + 0.01, True)
    if woman and picture.clothes in ("shirt", "sweater"):
        skirt = rounded(mirrored(outline("0.1,1.3 0.26,1.34 0.5,1.86 0.2,1.9")), 2)
        canvas.polygon(trunk.map(skirt), (66, 58, 96), depth, True)


def _arm(canvas: Canvas, trunk: Frame, picture: Picture, side: int, depth: float) -> None:
    joints, skin, cloth = body(picture), SKINS[picture.skin], cloth_colour(picture)
    start, elbow, wrist = joints.shoulder[side], joints.elbow[side], joints.wrist[side]
    bare = picture.clothes == "dress"
    width = trunk.scale * (
        0.3 if picture.astronaut else 0.16 if bare else 0.2 if picture.gender == "woman" else 0.25
    )
    if canvas.outline is not None:
        canvas.line(trunk.map([start, elbow, wrist]), width + 0.014, canvas.outline, depth)
    canvas.line(trunk.map([start, elbow, wrist]), width, skin if bare else shade(cloth, 0.9), depth)
    if bare:
        short = np.add(start, np.subtract(elbow, start) * 0.3)
        canvas.line(trunk.map([start, short]), width * 1.6, shade(cloth, 0.9), depth)
    forearm = np.subtract(wrist, elbow)
    x, y = np.add(wrist, forearm * 0.08 / np.hypot(*forearm))
    glove = (170, 178, 192) if picture.astronaut else skin
    canvas.polygon(trunk.map(ellipse(x, y, 0.13, 0.13)), glove, depth, True)


def _torso(canvas: Canvas, trunk: Frame, picture: Picture, depth: float) -> None:
    cloth, skin = cloth_colour(picture), SKINS[picture.skin]
    wide = SHOULDER[picture.gender]
    neck = 0.2 if picture.gender == "woman" else 0.32
    canvas.line(trunk.map([(0, 0.4), (0, 0.74)]), neck * trunk.scale, shade(skin, 0.86), depth)
    shape = outline(TRUNKS.get(picture.clothes, TRUNKS[picture.gender])) * (wide, 1)
    canvas.polygon(trunk.map(rounded(mirrored(shape), 2)), cloth, depth, True)
    _trimmings(canvas, trunk, picture, cloth, skin)


def _trimmings(canvas: Canvas, trunk: Frame, picture: Picture, cloth: Colour, skin: Colour) -> None:
    """What makes a dress, a shirt, a sweater, a coat, a suit or a space suit of the trunk."""
    dark, wide = shade(cloth, 0.68), SHOULDER[picture.gender]
    light = shade(cloth, 1.5 if min(cloth) < 200 else 0.82)

    def fill(points: object, colour: Colour) -> None:
        canvas.polygon(trunk.map(points), colour)

    def stroke(points: object, width: float, colour: Colour) -> None:
        canvas.line(trunk.map(points), width * trunk.scale, colour)

    if picture.clothes == "dress":
        fill(ellipse(0, 0.68, 0.2, 0.2, 0, 180), skin)
        stroke([(-0.18, 1.24), (0.18, 1.24)], 0.1, dark)
    elif picture.clothes == "sweater":
        stroke([(-0.15, 0.7), (0.15, 0.7)], 0.17, dark)
        for y, half in ((1.0, 0.76), (1.26, 0.58 if picture.gender == "woman" else 0.76)):
            stroke([(-wide * half, y), (wide * half, y)], 0.12, light)
    elif picture.clothes == "shirt":
        fill([(-0.15, 0.62), (0.15, 0.62), (0, 0.94)], skin)
        for side in (-1, 1):
            fill([(side * 0.14, 0.6), (side * 0.28, 0.76), (side * 0.02, 0.98)], light)
        stroke([(0, 1.0), (0, 1.5)], 0.035, dark)
    elif picture.clothes == "coat":
        fill([(-0.2, 0.62), (0.2, 0.62), (0, 1.16)], light)
        for side in (-1, 1):
            fill([(side * 0.17, 0.6), (side * 0.34, 0.84), (side * 0.01, 1.22)], dark)
        stroke([(0, 1.2), (0, 1.84)], 0.04, dark)
    elif picture.clothes == "suit":
        fill([(-0.22, 0.62), (0.22, 0.62), (0, 1.26)], WHITE)
        fill(outline("-0.06,0.68 0.06,0.68 0.08,1.08 0,1.2 -0.08,1.08"), (206, 36, 56))
        for side in (-1, 1):
            fill([(side * 0.2, 0.6), (side * 0.36, 0.86), (side * 0.01, 1.3)], dark)
    else:
        fill(rounded(outline("-0.26,0.94 0.26,0.94 0.26,1.26 -0.26,1.26"), 1), (110, 122, 146))
        fill(ellipse(-0.11, 1.1, 0.08, 0.08), (232, 56, 60))
        fill(ellipse(0.11, 1.1, 0.08, 0.08), (60, 140, 240))


def _held(canvas: Canvas, trunk: Frame, held: str, wrist: tuple[float, float], depth: float) -> None:
    x, y = wrist[0], wrist[1] - 0.06

    def fill(points: object, colour: Colour) -> None:
        canvas.polygon(trunk.map(points), colour, depth, True)

    def stroke(points: object, width: float, colour: Colour) -> None:
        canvas.line(trunk.map(points), width * trunk.scale, colour, depth)

    if held == "knife":
        stroke([(x, y + 0.1), (x, y - 0.14)], 0.12, (92, 56, 36))
        fill(
            [(x - 0.07, y - 0.14), (x + 0.08, y - 0.14), (x + 0.08, y - 0.5), (x - 0.04, y - 0.68)],
            (214, 222, 232),
        )
    elif held == "flower":
        stroke([(x, y + 0.1), (x, y - 0.34)], 0.07, (54, 150, 70))
        for angle in np.radians(range(0, 360, 72)):
            fill(
                ellipse(x + 0.13 * np.cos(angle), y - 0.42 + 0.13 * np.sin(angle), 0.11, 0.11), (244, 84, 150)
            )
        fill(ellipse(x, y - 0.42, 0.09, 0.09), (255, 218, 70))
    elif held == "book":
        fill(np.add((x, y), outline("-0.24,-0.36 0.24,-0.36 0.24,0.2 -0.24,0.2")), (176, 40, 54))
        fill(np.add((x, y), outline("-0.15,-0.26 0.15,-0.26 0.15,-0.14 -0.15,-0.14")), (250, 236, 196))
    elif held == "cup":
        stroke(ellipse(x + 0.2, y - 0.14, 0.1, 0.1, -90, 90), 0.06, (210, 214, 220))
        fill(np.add((x, y), outline("-0.19,-0.34 0.19,-0.34 0.16,0.1 -0.16,0.1")), WHITE)
    elif held == "balloon":
        stroke([(x, y), (x + 0.12, y - 0.5)], 0.035, (90, 90, 96))
        fill(ellipse(x + 0.14, y - 0.78, 0.28, 0.33), (236, 50, 64))
        canvas.polygon(trunk.map(ellipse(x + 0.05, y - 0.9, 0.07, 0.09)), (255, 180, 184))
