"""Control images for the course, drawn: raised arms, a pose that is in no training picture, others.

python -m recipes.mini.world.references      # writes data/control_images/
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from recipes.mini.world.canvas import Canvas
from recipes.mini.world.drawing import draw
from recipes.mini.world.figure import draw_figure
from recipes.mini.world.picture import Picture, varied
from recipes.mini.world.scenes import paint_scene

SIDE = 512
INK, DUSK, HORIZON = (22, 20, 30), (64, 60, 120), (250, 176, 110)


def stretched_arms(size: int = SIDE) -> Image.Image:
    """A man in a plain studio with both arms stretched out sideways."""
    picture = Picture("man", "tan", hair_colour="black", hair_style="short", clothes="sweater")
    return draw(varied(picture, clothes_colour="orange", pose="arms stretched", framing="full height"), size)


def raised_arms(size: int = SIDE) -> Image.Image:
    """A woman in a plain studio with both arms raised."""
    picture = Picture("woman", "fair", hair_colour="black", hair_style="bob", clothes="sweater")
    return draw(varied(picture, clothes_colour="red", pose="arms raised", framing="half body"), size)


def silhouette(size: int = SIDE) -> Image.Image:
    """A woman with a hat and hands on hips, black before an evening sky."""
    figure = Canvas(size)
    person = Picture("woman", hair_style="ponytail", clothes="dress", hat="hat", pose="hands on hips")
    draw_figure(figure, varied(person, framing="half body", head_tilt=0.1))
    shape = figure.finished()[1] > 0
    sky = Canvas(size)
    sky.gradient(DUSK, HORIZON, 0, 1)
    sky.polygon(np.array([[0, 0.86], [0.3, 0.8], [0.7, 0.83], [1, 0.79], [1, 1], [0, 1]]), (60, 44, 70))
    return Image.composite(Image.new("RGB", (size, size), INK), sky.finished()[0], Image.fromarray(shape))


def group(size: int = SIDE) -> Image.Image:
    """A woman and a man beside each other in a studio, she waves."""
    canvas = Canvas(size)
    paint_scene(canvas, "studio", 4)
    woman = Picture("woman", "pale", hair_colour="red", hair_style="bob", clothes="dress", pose="waving")
    man = Picture("man", "brown", hair_colour="black", hair_style="curly", clothes="suit", beard="beard")
    draw_figure(canvas, varied(man, clothes_colour="gray", framing="full height", x=0.12))
    draw_figure(canvas, varied(woman, clothes_colour="blue", framing="full height", x=-0.12))
    return canvas.finished()[0]


def write(folder: Path = Path("data/control_images")) -> list[Path]:
    """Draw all of them as PNG files.

    Args:
        folder: where to.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for drawn in (raised_arms, stretched_arms, silhouette, group):
        files.append(folder / f"{drawn.__name__}.png")
        drawn().quantize(128, dither=Image.Dither.NONE).save(files[-1], optimize=True)
    return files


if __name__ == "__main__":
    write()
