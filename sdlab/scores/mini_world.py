"""What images of the mini world show, read by its own reader: likeness to the subject, and the scene."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sdlab.images import ImageRecord, load_images
from sdlab.scores.measures import Interval, interval

TRAITS = ("skin", "hair_colour", "hair_style", "glasses")


def mini_scores(
    experiments: Iterable[str],
    *,
    subject: str = "woman",
    results: str | Path = "results",
    prompt_names: Iterable[str] | None = None,
) -> dict[str, dict[str, Interval]]:
    """Reads the images of experiments on the mini model; those without images are left out.

    `likeness to the subject` is the mean probability that skin, hair colour, hair style and glasses are those
    of the subject (woman or man), `scene as in the prompt` the share of images that show it, both 0 to 1.
    """
    wanted = None if prompt_names is None else set(prompt_names)
    scores: dict[str, dict[str, Interval]] = {}
    for name in experiments:
        images = [i for i in load_images(name, results=results) if wanted is None or i.prompt_name in wanted]
        if images:
            scores[name] = _read(images, subject)
    return scores


def scene_of(prompt: str) -> str | None:
    """The first scene of the mini world that a prompt names, or None."""
    from sdlab.mini import reader

    words = prompt.lower().replace(",", " ").split()
    return next((word for word in words if word in reader.attributes()["scene"]), None)


def _read(images: list[ImageRecord], subject: str) -> dict[str, Interval]:
    import numpy as np

    from sdlab import thumbnails
    from sdlab.mini import reader

    classes, person = reader.attributes(), reader.subjects()[subject]
    found = reader.probabilities([thumbnails.opened(image.path) for image in images])
    traits = [found[t][:, classes[t].index(person[t])] for t in TRAITS]
    scores = {"likeness to the subject": interval(np.mean(traits, axis=0))}
    asked = [scene_of(image.prompt) for image in images]
    seen = [classes["scene"][index] for index in found["scene"].argmax(axis=1)]
    right = [float(one == other) for one, other in zip(asked, seen, strict=True) if one is not None]
    return scores | ({"scene as in the prompt": interval(right)} if right else {})
