"""Which experiment, checkpoint or LoRA scale to take: by a stated rule, or by a human's blind choices."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from sdlab import thumbnails
from sdlab.experiment import Experiment, names_of
from sdlab.files import append_line, placed
from sdlab.images import BASE, ImageRecord, load_images
from sdlab.scores.measures import Interval, apart, share
from sdlab.scores.scoring import score
from sdlab.scores.tallies import Scores, Tally
from sdlab.tables.figures import measurement_text
from sdlab.words import Words

SIDES = LEFT, RIGHT = "left", "right"
EQUAL = "equal"
# How much of the base's fidelity is enough. Who is learned is no average person, which costs some of it: on
# `mini` what learned the subject keeps 0.90 to 0.97, what is overtrained 0.2 to 0.6.
NEARLY = 0.9


@dataclass(frozen=True)
class Recommendation:
    """The best of some experiments, checkpoints or LoRA scales.

    Args:
        name: The best.
        equals: Others whose likeness can't be told apart from its own by these images.
        sentence: It in words, with the figures.
        rule: By what it was chosen.
    """

    name: str
    equals: tuple[str, ...]
    sentence: str
    rule: str

    def __str__(self) -> str:
        return self.sentence


def recommend(
    experiments: Scores | Iterable[str | Experiment],
    *,
    language: str = "en",
    root: str | Path = "experiments",
    results: str | Path = "results",
) -> Recommendation:
    """Chooses the best by the rule: highest likeness among those that still follow the prompts.

    Checkpoints (`LORA@step100`) and LoRA scales (`LORA@0.7`) that have images are compared likewise. Where no
    experiment follows the prompts as the base does, all take part, and the sentence says so. Images that were
    made with control don't: their control image differs, not their experiment.

    Args:
        experiments: Scores, or names that `score` takes; with `base` among them, since the rule needs it.
        language: Of the sentence and the rule, "en" or "ru".
        root: The folder of all experiments.
        results: The folder of the images.

    Returns:
        The recommendation.

    Raises:
        ValueError: There is nothing to choose from.
    """
    known = experiments if isinstance(experiments, Scores) else score(experiments, root=root, results=results)
    names, words = known.eligible, Words(language)
    if not names:
        raise ValueError(
            "A recommendation needs at least one experiment whose images have the rare word, got none. "
            "Score some: score(['base', 'dreambooth_v1', 'lora_rank4'])."
        )
    likeness, fidelity = known.of(known.likeness), known.of("CLIP-T")
    faithful = [name for name in names if as_faithful(fidelity, name)]
    best = max(faithful or names, key=lambda name: likeness[name].mean)
    equals = tuple(n for n in faithful or names if n != best and not apart(likeness[n], likeness[best]))
    more_alike = [n for n in names if n not in faithful and likeness[n].mean > likeness[best].mean]
    sentences = [_choice(known, best, words), *_drift(known.of("PRES"), best, words)]
    if not faithful:
        sentences.append(words("take_stray"))
    elif more_alike:
        sentences.append(words("take_unfaithful", names=", ".join(more_alike)))
    if equals:
        sentences.append(words("take_equals", names=", ".join(equals)))
    return Recommendation(best, equals, " ".join(sentences), words("take_rule"))


def as_faithful(fidelity: dict[str, Interval], name: str) -> bool:
    """Whether its images fit their prompts (CLIP-T) nearly as well as the base's, or that can't be told."""
    if BASE not in fidelity or name not in fidelity:
        return True
    return fidelity[name].high >= NEARLY * fidelity[BASE].mean


def _choice(scores: Scores, best: str, words: Words) -> str:
    """`Take lora: CLIP-I …, CLIP-T …; the base model has … and ….`"""
    likeness, fidelity = scores.of(scores.likeness), scores.of("CLIP-T")
    text = words("take", name=best) + f" {words.name(scores.likeness)} {_text(likeness[best], words)}"
    if best in fidelity:
        text += f", CLIP-T {_text(fidelity[best], words)}"
    if BASE in likeness and BASE in fidelity:
        some, last = (_text(figures[BASE], words) for figures in (likeness, fidelity))
        text += words("take_base", values=words("and", some=some, last=last))
        if not apart(likeness[best], likeness[BASE]):
            text += words("take_like_base")
        elif likeness[best].mean < likeness[BASE].mean:
            text += words("take_below_base")
    return text + "."


def _drift(drift: dict[str, Interval], best: str, words: Words) -> list[str]:
    """A warning where the class has become like the subject."""
    if BASE not in drift or best not in drift or drift[best].low <= drift[BASE].high:
        return []
    return [words("take_drifted", ours=_text(drift[best], words), base=_text(drift[BASE], words))]


def _text(figure: Interval, words: Words) -> str:
    return measurement_text(figure, words.language, decimals=3)


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
        question: str = "Which is more like the subject in the photos?",
        results: str | Path = "results",
        seed: int = 0,
    ) -> None:
        self.path, self.question, self.results = Path(path), question, Path(results).expanduser()
        self.pairs = _pairs(names_of(experiments), self.results, seed)

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
        row |= {side: image.experiment for side, image in pair._asdict().items()}
        row["images"] = {side: image.path.name for side, image in pair._asdict().items()}
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
        figures = {
            (name, row["file"]): row.get(measure)
            for name in {row[side] for row in decided for side in SIDES}
            for row in Tally.load(self.results / name / "scores.json").images
        }
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
    alike: dict[tuple[str, int], list[ImageRecord]] = {}
    for image in [image for name in experiments for image in load_images(name, results=results)]:
        alike.setdefault((image.prompt, image.seed), []).append(image)
    chance = random.Random(seed)
    pairs = [Pair(*chance.sample(two, 2)) for same in alike.values() for two in combinations(same, 2)]
    if not pairs:
        raise ValueError(
            f"{', '.join(experiments)} have no images of the same prompt and seed in {results}. "
            f"Make them: {placed('sdlab generate ' + ' '.join(experiments), results=results)}."
        )
    chance.shuffle(pairs)
    return pairs
