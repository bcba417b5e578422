"""Sheets of pictures that go with the scores: nearest photos, and what became of the class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdlab.images import load_images
from sdlab.prompts import PromptSet
from sdlab.scores.scoring import experiment_of, rare_words, without
from sdlab.scores.tally import Tally
from sdlab.tables.captions import Heading, captions
from sdlab.tables.contents import Cell, Table


def nearest_photos(
    experiment: str,
    *,
    count: int = 6,
    photos: str | Path | None = None,
    root: str | Path = "experiments",
    results: str | Path = "results",
) -> Table:
    """Puts the images that come nearest to a photo above that photo: were photos learned by heart?

    Args:
        experiment: Its name; it must have been scored.
        count: How many images, the nearest first.
        photos: Folder of the photos; None takes the one that the scores were taken with.
        root: The folder of all experiments.
        results: The folder of the images.

    Returns:
        A table of two rows, images and photos, the correlation of pixels at the head of each column.

    Raises:
        FileNotFoundError: It wasn't scored.
    """
    tally = Tally.load(Path(results) / experiment / "scores.json")
    rows = [row for row in tally.images if "nearest" in row]
    rows = sorted(rows, key=lambda row: -row["nearest photo"])[:count]
    folder = Path(photos) if photos is not None else Path((tally.photos or {})["folder"])
    return Table(
        rows=(captions([experiment], root)[0], Heading("nearest photo")),
        columns=tuple(Heading(f"{row['nearest photo']:.2f}", (row["nearest"],)) for row in rows),
        cells=(
            tuple(
                _cell(f"{experiment}_{row['file']}", Path(results) / experiment / row["file"]) for row in rows
            ),
            tuple(_cell(f"photo_{n}", folder / row["nearest"]) for n, row in enumerate(rows)),
        ),
        images_per_cell=1,
    )


def drift_table(
    experiments: Iterable[str],
    *,
    root: str | Path = "experiments",
    results: str | Path = "results",
    images_per_cell: int = 1,
) -> Table:
    """Puts images of the same prompt with and without the rare word side by side: language drift.

    A model that drifted draws the subject in both. A pair is a prompt with the rare word and the same one
    without it, both in the results; `prompts_without` makes the second from the first.

    Args:
        experiments: Names; `base` first shows what the class was.
        root: The folder of all experiments.
        results: The folder of the images.
        images_per_cell: 1, 2 or 4.

    Returns:
        A table with two columns per prompt.

    Raises:
        ValueError: No prompt was generated both with and without the rare word.
    """
    names = list(experiments)
    pairs = _pairs(names, root, results)
    if not pairs:
        raise ValueError(
            "No prompt has images both with and without the rare word. Generate both: "
            "generate(names, prompts) and generate(names, prompts_without(prompts))."
        )
    columns = [name for pair in pairs.items() for name in pair]
    said = {image.prompt_name: image.prompt for name in names for image in load_images(name, results=results)}
    return Table(
        rows=tuple(captions(names, root)),
        columns=tuple(Heading(column, text=said[column]) for column in columns),
        cells=tuple(tuple(_of_prompt(name, c, results, images_per_cell) for c in columns) for name in names),
        images_per_cell=images_per_cell,
    )


def prompts_without(prompts: PromptSet, words: Iterable[str] = ("sks",)) -> PromptSet:
    """Gives prompts without the rare word, named so that they can lie beside those with it.

    Args:
        prompts: Their subject filled in.
        words: The rare words.

    Returns:
        `<name>_class` to the prompt without the words, for `generate`.
    """
    words = list(words)
    bare = {f"{name}_class": without(prompt, words) for name, prompt in prompts.prompts.items()}
    return PromptSet(bare, prompts.negative_prompt)


def _pairs(names: list[str], root: str | Path, results: str | Path) -> dict[str, str]:
    """Prompt's name with the rare word to the name of the same prompt without it."""
    images = [image for name in names for image in load_images(name, results=results)]
    experiments = [one for name in names if (one := experiment_of(name, root)) is not None]
    rare = {
        word
        for one in experiments
        for word in rare_words(one.hyperparameters.instance_prompt, one.hyperparameters.class_prompt)
    }
    by_prompt = {image.prompt: image.prompt_name for image in images}
    return {
        name: by_prompt[bare]
        for prompt, name in by_prompt.items()
        if (bare := without(prompt, rare)) != prompt and bare in by_prompt
    }


def _of_prompt(name: str, prompt: str, results: str | Path, count: int) -> Cell:
    images = [image.path for image in load_images(name, results=results) if image.prompt_name == prompt]
    hint = "" if len(images) >= count else f"{len(images)} of {count} images: run sdlab generate {name}"
    return Cell(f"{name}_{prompt}", f"{name}, {prompt}", tuple(images[:count]), hint)


def _cell(name: str, path: Path) -> Cell:
    there = path.is_file()
    hints: dict[str, Any] = {} if there else {"hint": f"{path.name} is missing"}
    return Cell(name, path.name, (path,) if there else (), **hints)
