"""A blind comparison by a human: pairs without names, choices on disk, win rates with intervals."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from sdlab import thumbnails
from sdlab.files import append_line
from sdlab.images import ImageRecord, load_images
from sdlab.scores.measures import Interval, share
from sdlab.scores.tallies import Tally

SIDES = LEFT, RIGHT = "left", "right"
EQUAL = "equal"
QUESTION = "Which is more like the subject in the photos?"


class Pair(NamedTuple):
    """Two images of one prompt and seed from two experiments."""

    left: ImageRecord
    right: ImageRecord

    @property
    def key(self) -> str:
        """The same for the same two images, whichever is left."""
        return " ".join(sorted(f"{one.experiment}/{one.path.name}" for one in self))


class Comparison:
    """Shows pairs of images without names and counts which is chosen; `widget` has the buttons.

    Args:
        experiments: At least two names that have images of the same prompts and seeds.
        path: File of the choices, one per line; pairs that are in it aren't shown again.
        question: What is asked.
        results: The folder of the images.
        seed: Of the order, and of which image stands left.
    """

    def __init__(
        self,
        experiments: Sequence[str],
        path: str | Path = "results/choices.jsonl",
        *,
        question: str = QUESTION,
        results: str | Path = "results",
        seed: int = 0,
    ) -> None:
        self.path, self.question, self.results = Path(path), question, Path(results)
        self.pairs = _pairs(list(dict.fromkeys(experiments)), self.results, seed)

    def choices(self) -> list[dict[str, Any]]:
        """What was chosen so far for this question, one row per pair: `left`, `right`, `images`, `choice`."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [json.loads(line) for line in lines if line.endswith("}\n")]
        known = {pair.key for pair in self.pairs}
        return [row for row in rows if row["question"] == self.question and row["pair"] in known]

    def next(self) -> Pair | None:
        """The next pair that nobody has decided; None when all are."""
        done = {row["pair"] for row in self.choices()}
        return next((pair for pair in self.pairs if pair.key not in done), None)

    def record(self, pair: Pair, choice: str) -> None:
        """Writes a choice, `left`, `right` or `equal`, to the file at once."""
        if choice not in (*SIDES, EQUAL):
            raise ValueError(f"choice must be left, right or equal, got {choice!r}.")
        row: dict[str, Any] = {"question": self.question, "pair": pair.key, "choice": choice}
        row |= {side: one.experiment for side, one in zip(SIDES, pair, strict=True)}
        row["images"] = {side: one.path.name for side, one in zip(SIDES, pair, strict=True)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, json.dumps(row))

    def win_rates(self) -> dict[str, Interval]:
        """How often each experiment was preferred, best first; `equal` counts half for both."""
        gains: dict[str, list[float]] = {}
        for row in self.choices():
            for side in SIDES:
                gain = 0.5 if row["choice"] == EQUAL else float(row["choice"] == side)
                gains.setdefault(row[side], []).append(gain)
        rates = {name: share(sum(won), len(won)) for name, won in gains.items()}
        return dict(sorted(rates.items(), key=lambda item: -item[1].mean))

    def agreement(self, measure: str = "CLIP-I") -> Interval | None:
        """How often the chosen image has the higher score; None where nothing was decided."""
        decided = [row for row in self.choices() if row["choice"] != EQUAL]
        figures: dict[tuple[str, str], float] = {}
        for name in {row[side] for row in decided for side in SIDES}:
            rows = Tally.load(self.results / name / "scores.json").images
            figures |= {(name, row["file"]): row[measure] for row in rows if measure in row}
        agreed = []
        for row in decided:
            left, right = (figures.get((row[side], row["images"][side])) for side in SIDES)
            if left is not None and right is not None:
                agreed.append((LEFT if left > right else RIGHT) == row["choice"])
        return share(sum(agreed), len(agreed)) if agreed else None

    def widget(self) -> Any:
        """The two pictures with their buttons, of ipywidgets (the extra `notebooks`)."""
        from ipywidgets import HTML, Button, HBox, Image, Layout, VBox

        pictures = [Image(format="webp", layout=Layout(width="260px", height="260px")) for _ in SIDES]
        buttons = [Button(description=choice) for choice in (LEFT, EQUAL, RIGHT)]
        text = HTML()

        def show() -> None:
            pair = self.next()
            text.value = f"{self.question} {len(self.choices())} of {len(self.pairs)} decided."
            for button in buttons:
                button.disabled = pair is None
            for picture, image in zip(pictures, pair or (), strict=False):
                picture.value = thumbnails.webp(thumbnails.opened(image.path), 90)

        def choose(button: Any) -> None:
            if pair := self.next():
                self.record(pair, button.description)
            show()

        for button in buttons:
            button.on_click(choose)
        show()
        return VBox([text, HBox(pictures), HBox(buttons)])


def _pairs(experiments: list[str], results: Path, seed: int) -> list[Pair]:
    """Every two images of one prompt and seed, in random order, a random one of them left."""
    if len(experiments) < 2:
        raise ValueError(f"A comparison needs at least two experiments, got {len(experiments)}. Name more.")
    images: dict[tuple[str, int], list[ImageRecord]] = {}
    for name in experiments:
        for image in load_images(name, results=results):
            images.setdefault((image.prompt, image.seed), []).append(image)
    chance = random.Random(seed)
    pairs = [Pair(*chance.sample(two, 2)) for same in images.values() for two in combinations(same, 2)]
    if not pairs:
        raise ValueError(
            f"{', '.join(experiments)} have no images of the same prompt and seed in {results}. "
            f"Make them: sdlab generate {' '.join(experiments)}."
        )
    chance.shuffle(pairs)
    return pairs
