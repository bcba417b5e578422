"""A blind comparison by a human: pairs without names, choices on disk, win rates with intervals."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdlab import thumbnails
from sdlab.images import ImageRecord, load_images
from sdlab.scores.intervals import Interval
from sdlab.scores.tally import Tally

LEFT, RIGHT, EQUAL = "left", "right", "equal"
QUESTION = "Which is more like the person in the photos?"


@dataclass(frozen=True)
class Pair:
    """Two images of one prompt and seed from two experiments.

    Args:
        left: Shown left.
        right: Shown right.
    """

    left: ImageRecord
    right: ImageRecord

    @property
    def key(self) -> str:
        """The same for the same two images, whichever is left."""
        return " ".join(sorted(_label(one) for one in (self.left, self.right)))


class Comparison:
    """Shows pairs of images without names and counts which is chosen; `widget` has the buttons.

    Args:
        experiments: At least two names that have images of the same prompts.
        path: File of the choices, one per line; pairs that are in it aren't shown again.
        question: What is asked.
        results: The folder of the images.
        seed: Of the order, and of which image stands left.

    Raises:
        ValueError: There are fewer than two experiments, or no two images of the same prompt.
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
        """Reads what was chosen so far for this question.

        Returns:
            One per pair: `left`, `right` (experiments), `images`, `choice`.
        """
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return []
        rows = [json.loads(line) for line in lines if line.endswith("}\n")]
        known = {pair.key for pair in self.pairs}
        return [row for row in rows if row["question"] == self.question and row["pair"] in known]

    def next(self) -> Pair | None:
        """Gives the next pair that nobody has decided; None when all are."""
        done = {row["pair"] for row in self.choices()}
        return next((pair for pair in self.pairs if pair.key not in done), None)

    def record(self, pair: Pair, choice: str) -> None:
        """Writes a choice down at once.

        Args:
            pair: What was shown.
            choice: `left`, `right` or `equal`.

        Raises:
            ValueError: It is none of these.
        """
        if choice not in (LEFT, RIGHT, EQUAL):
            raise ValueError(f"choice must be left, right or equal, got {choice!r}.")
        images = {LEFT: pair.left, RIGHT: pair.right}
        row: dict[str, Any] = {"question": self.question, "pair": pair.key, "choice": choice}
        row |= {side: one.experiment for side, one in images.items()}
        row["images"] = {side: one.path.name for side, one in images.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def win_rates(self) -> dict[str, Interval]:
        """Gives how often each experiment was preferred; a pair that was found equal counts half for both.

        Returns:
            Experiment to share with its 95 % interval, best first.

        Source:
            Wilson 1927, the score interval, by scipy; halves are rounded down for it.
        """
        from scipy.stats import binomtest

        shown: dict[str, int] = {}
        won: dict[str, float] = {}
        for row in self.choices():
            for side in (LEFT, RIGHT):
                name = row[side]
                shown[name] = shown.get(name, 0) + 1
                gain = 0.5 if row["choice"] == EQUAL else float(row["choice"] == side)
                won[name] = won.get(name, 0.0) + gain
        rates = {}
        for name in sorted(shown, key=lambda name: -won[name] / shown[name]):
            ends = binomtest(int(won[name]), shown[name]).proportion_ci(method="wilson")
            rates[name] = (won[name] / shown[name], float(ends.low), float(ends.high))
        return rates

    def agreement(self, measure: str = "CLIP-I") -> Interval | None:
        """Gives how often the image that was chosen is the one with the higher score.

        Args:
            measure: A key of `scores.MEASURES`; the experiments must have been scored.

        Returns:
            Share of the decided pairs with its 95 % interval (Wilson); None where nothing was decided.
        """
        from scipy.stats import binomtest

        decided = [row for row in self.choices() if row["choice"] != EQUAL]
        figures = {name: self._figures(name, measure) for row in decided for name in (row[LEFT], row[RIGHT])}
        agreed = []
        for row in decided:
            left, right = (figures[row[side]].get(row["images"][side]) for side in (LEFT, RIGHT))
            if left is not None and right is not None:
                agreed.append((LEFT if left > right else RIGHT) == row["choice"])
        if not agreed:
            return None
        ends = binomtest(sum(agreed), len(agreed)).proportion_ci(method="wilson")
        return sum(agreed) / len(agreed), float(ends.low), float(ends.high)

    def _figures(self, experiment: str, measure: str) -> dict[str, float]:
        tally = Tally.load(self.results / experiment / "scores.json")
        return {row["file"]: row[measure] for row in tally.images if measure in row}

    def widget(self) -> Any:
        """Makes the two pictures with their buttons.

        Returns:
            A box of ipywidgets, from the extra `notebooks`.
        """
        from ipywidgets import HTML, Button, HBox, Image, Layout, VBox

        pictures = {side: Image(layout=Layout(width="260px", height="260px")) for side in (LEFT, RIGHT)}
        buttons = {side: Button(description=side) for side in (LEFT, EQUAL, RIGHT)}
        text = HTML()
        shown: list[Pair] = []

        def show() -> None:
            pair = self.next()
            shown[:] = [pair] if pair else []
            text.value = f"{self.question} {len(self.choices())} of {len(self.pairs)} decided."
            for button in buttons.values():
                button.disabled = pair is None
            if pair:
                for side, one in ((LEFT, pair.left), (RIGHT, pair.right)):
                    pictures[side].format = "webp"
                    pictures[side].value = thumbnails.webp(thumbnails.opened(one.path), 90)

        def choose(button: Any) -> None:
            if shown:
                self.record(shown[0], button.description)
            show()

        for button in buttons.values():
            button.on_click(choose)
        show()
        return VBox([text, HBox(list(pictures.values())), HBox(list(buttons.values()))])


def _pairs(experiments: list[str], results: Path, seed: int) -> list[Pair]:
    """Every two images of one prompt and seed, in random order, a random one of them left."""
    if len(experiments) < 2:
        raise ValueError(f"A comparison needs at least two experiments, got {len(experiments)}. Name more.")
    images: dict[tuple[str, int], list[ImageRecord]] = {}
    for name in experiments:
        for image in load_images(name, results=results):
            images.setdefault((image.prompt, image.seed), []).append(image)
    chance = random.Random(seed)
    pairs = []
    for same in images.values():
        for index, first in enumerate(same):
            for second in same[index + 1 :]:
                pairs.append(Pair(*chance.sample((first, second), 2)))
    if not pairs:
        raise ValueError(
            f"{', '.join(experiments)} have no images of the same prompt and seed in {results}. "
            f"Make them: sdlab generate {' '.join(experiments)}."
        )
    chance.shuffle(pairs)
    return pairs


def _label(image: ImageRecord) -> str:
    return f"{image.experiment}/{image.path.name}"
