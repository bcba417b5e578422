"""What images of the mini world show, read by its own reader: likeness to the subject, and the scene."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sdlab.images import ImageRecord, load_images
from sdlab.scores.intervals import Interval, interval

TRAITS = ("skin", "hair_colour", "hair_style", "glasses")


def mini_scores(
    experiments: Iterable[str],
    *,
    subject: str = "woman",
    results: str | Path = "results",
    prompt_names: Iterable[str] | None = None,
) -> dict[str, dict[str, Interval]]:
    """Read the images of experiments on the mini model.

    Args:
        experiments: names; "base" is the base model.
        subject: "woman" or "man".
        results: folder of the images.
        prompt_names: prompts whose images count; None takes all.

    Returns:
        Experiment to `likeness to the subject` (mean probability that skin, hair colour, hair
        style and glasses are the subject's, 0 to 1) and `scene as in the prompt` (share of images, 0 to 1),
        each as mean and the ends of its 95 % interval over the images.

    Raises:
        FileNotFoundError: the reader's weights are not there.

    Taught in: notebooks/02
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
    from sdlab import thumbnails
    from sdlab.mini import reader

    classes, person = reader.attributes(), reader.subjects()[subject]
    found = reader.probabilities([thumbnails.opened(image.path) for image in images])
    traits = [found[t][:, classes[t].index(person[t])] for t in TRAITS]
    scores = {
        "likeness to the subject": interval(
            [float(sum(one)) / len(traits) for one in zip(*traits, strict=True)]
        )
    }
    asked = [scene_of(image.prompt) for image in images]
    seen = [classes["scene"][index] for index in found["scene"].argmax(axis=1)]
    right = [float(one == other) for one, other in zip(asked, seen, strict=True) if one is not None]
    if right:
        scores["scene as in the prompt"] = interval(right)
    return scores
