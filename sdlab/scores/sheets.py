"""Sheets of pictures that go with the scores: nearest photos, and what became of the class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdlab.images import load_images
from sdlab.prompts import PromptSet
from sdlab.scores.scoring import rare_words, without
from sdlab.scores.tallies import Tally
from sdlab.tables import Table, table
from sdlab.tables.captions import Heading, captions
from sdlab.tables.contents import Cell


def nearest_photos(
    experiment: str,
    *,
    count: int = 6,
    photos: str | Path | None = None,
    root: str | Path = "experiments",
    results: str | Path = "results",
) -> Table:
    """Puts the `count` images that come nearest to a photo above that photo: were photos memorised?

    The experiment must have been scored. `photos` is another folder than the one it was scored with.
    """
    folder = Path(results) / experiment
    tally = Tally.load(folder / "scores.json")
    photo_folder = Path(photos or (tally.photos or {})["folder"])
    rows = [row for row in tally.images if "nearest" in row]
    rows = sorted(rows, key=lambda row: -row["nearest photo"])[:count]
    return Table(
        rows=(captions([experiment], root)[0], Heading("nearest photo")),
        columns=tuple(Heading(f"{row['nearest photo']:.2f}", (row["nearest"],)) for row in rows),
        cells=(
            tuple(_cell(experiment, folder / row["file"]) for row in rows),
            tuple(_cell(f"photo {n}", photo_folder / row["nearest"]) for n, row in enumerate(rows)),
        ),
        images_per_cell=1,
    )


def _cell(group: str, path: Path) -> Cell:
    there = path.is_file()
    return Cell(
        (group, path.stem), path.name, (path,) if there else (), "" if there else f"{path.name} is missing"
    )


def drift_table(
    experiments: Iterable[str],
    *,
    root: str | Path = "experiments",
    results: str | Path = "results",
    images_per_cell: int = 1,
    **options: Any,
) -> Table:
    """Puts images of the same prompt with and without the rare word side by side, as `table` does.

    A model that drifted draws the subject in both. `prompts_without` makes the second prompts from the first.
    """
    names = list(experiments)
    images = [image for name in names for image in load_images(name, results=results)]
    named = {image.prompt: image.prompt_name for image in images}
    rare = rare_words(names, root)
    bare = {prompt: without(prompt, rare) for prompt in named}
    pairs = [(prompt, bare[prompt]) for prompt in named if bare[prompt] != prompt and bare[prompt] in named]
    if not pairs:
        raise ValueError(
            "No prompt has images both with and without the rare word. Generate both: "
            "generate(names, prompts) and generate(names, prompts_without(prompts))."
        )
    columns = PromptSet({named[prompt]: prompt for pair in pairs for prompt in pair})
    return table(names, columns, root=root, results=results, images_per_cell=images_per_cell, **options)


def prompts_without(prompts: PromptSet, words: Iterable[str] = ("sks",)) -> PromptSet:
    """Gives prompts without the rare words, named `<name>_class` so that both can lie in one folder."""
    words = list(words)
    bare = {f"{name}_class": without(prompt, words) for name, prompt in prompts.prompts.items()}
    return PromptSet(bare, prompts.negative_prompt)
