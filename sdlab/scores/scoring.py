"""Measuring the images of experiments: likeness, prompt fidelity, diversity, prior preservation, copies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdlab.experiment import Experiment, find
from sdlab.files import fingerprint
from sdlab.images import ImageRecord, image_files, load_images
from sdlab.models import resolve
from sdlab.scores import measures
from sdlab.scores.embedders import Embedder, embedders_for, pixels
from sdlab.scores.features import image_features, record, text_features
from sdlab.scores.intervals import interval
from sdlab.scores.tally import MEASURES, PHOTOS, Scores, Tally

if TYPE_CHECKING:
    import numpy as np

COLUMN = {"CLIP": "CLIP-I", "DINO": "DINO"}  # an embedder's likeness; another has its own name


def score(
    experiments: str | Experiment | Iterable[str | Experiment],
    *,
    photos: str | Path | None = None,
    prompt_names: Iterable[str] | None = None,
    embedders: Sequence[Embedder] | None = None,
    face: Embedder | None = None,
    root: str | Path = "experiments",
    results: str | Path = "results",
) -> Scores:
    """Measures the images that experiments have; what was measured of an image before isn't computed again.

    Images of prompts that hold the rare word are compared with the photos and with their prompt. Images of
    other prompts, such as the class prompt, show what became of the class: PRES.

    Args:
        experiments: Names or experiments; `base`, `LORA@0.7` and `LORA@step100` if they have images.
        photos: Folder of the subject's photos; None takes those that the experiments were trained on.
        prompt_names: Prompts whose images count; None takes all.
        embedders: What measures; None takes what fits the base model, see `embedders_for`.
        face: An embedder of faces besides, named `face`; rows of NaN say that there is none.
        root: The folder of all experiments.
        results: The folder of the images; `<results>/<experiment>/scores.json` is written.

    Returns:
        The scores, with the photos themselves as the first row.

    Raises:
        ValueError: An experiment has no images, or it isn't known what to compare with.
        OSError: A model isn't on this machine and can't be downloaded.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, section 4.2: CLIP-I, DINO, CLIP-T, PRES.
    """
    several = [experiments] if isinstance(experiments, str | Experiment) else experiments
    names = list(dict.fromkeys(one.name if isinstance(one, Experiment) else str(one) for one in several))
    wanted = None if prompt_names is None else set(prompt_names)
    settings = _settings(names, Path(root), photos, embedders, face)
    tallies = {PHOTOS: _photos_tally(settings)}
    for name in names:
        found = load_images(name, results=results)
        images = [image for image in found if wanted is None or image.prompt_name in wanted]
        if not images:
            raise ValueError(f"{name!r} has no images in {results}. Make some: sdlab generate {name}.")
        tallies[name] = _tally(name, images, settings)
        tallies[name].save(Path(results) / name / "scores.json")
    return Scores(tallies)


@dataclass(frozen=True)
class _Settings:
    """What images are compared with, and by what."""

    photos: list[Path]
    embedders: list[Embedder]
    rare_words: tuple[str, ...]

    @property
    def finest(self) -> Embedder | None:
        """DINO, as the paper takes it for PRES; the first where there is none."""
        by_name = {embedder.name: embedder for embedder in reversed(self.embedders)}
        return by_name.get("DINO", self.embedders[0] if self.embedders else None)


def experiment_of(name: str, root: str | Path = "experiments") -> Experiment | None:
    """Finds the experiment that a name of images speaks of.

    Args:
        name: Such as `lora`, `lora@0.7`, `lora@step100`, `dreambooth+lora@0.7`, or `base`.
        root: The folder of all experiments.

    Returns:
        The experiment, of a combination the LoRA; None for `base` and what isn't on this disk.
    """
    for short in (name, name.split("@")[0], name.split("@")[0].split("+")[-1]):
        if (Path(root) / short / "experiment.json").is_file():
            return Experiment(short, Path(root))
    return None


def rare_words(instance_prompt: str, class_prompt: str | None) -> tuple[str, ...]:
    """Gives the words that name the subject and nothing else.

    Args:
        instance_prompt: Such as `a photo of sks woman face`.
        class_prompt: Such as `a photo of woman face`; None: there is nothing to compare with.

    Returns:
        The words of the first that aren't in the second: `sks`.
    """
    known = set(_words(class_prompt or instance_prompt))
    return tuple(dict.fromkeys(word for word in _words(instance_prompt) if word not in known))


def without(prompt: str, words: Iterable[str]) -> str:
    """Gives a prompt without some words, for a model that has never learned them.

    Args:
        prompt: Such as `portrait of sks woman, on the street`.
        words: Such as `sks`.

    Returns:
        Such as `portrait of woman, on the street`.
    """
    for word in words:
        prompt = re.sub(rf"\b{re.escape(word)}\b ?", "", prompt, flags=re.IGNORECASE)
    return prompt.strip()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _settings(
    names: list[str],
    root: Path,
    photos: str | Path | None,
    embedders: Sequence[Embedder] | None,
    face: Embedder | None,
) -> _Settings:
    known = [one for one in (experiment_of(name, root) for name in names) if one is not None]
    chosen = [one.hyperparameters for one in known or find(root)]  # of `base` alone: what is there
    folders = [Path(photos)] if photos is not None else [Path(one.instance_data_dir) for one in chosen]
    if len(set(folders)) != 1:
        places = ", ".join(sorted({folder.as_posix() for folder in folders})) or "none"
        raise ValueError(
            f"The experiments must have one folder of photos to be compared with, got {places}. Score those "
            "of one subject together, or say which photos: photos='data/instance_images'."
        )
    folder = folders[0]
    files = image_files(folder)
    if len(files) < 2:
        raise ValueError(f"{folder} must hold at least 2 photos to compare with, got {len(files)}.")
    if embedders is None:
        base = chosen[0].pretrained_model_name_or_path if chosen else "mini"
        embedders = embedders_for(resolve(base, root).root_name)
    rare = dict.fromkeys(word for one in chosen for word in rare_words(one.instance_prompt, one.class_prompt))
    return _Settings(files, [*embedders, *([face] if face else [])], tuple(rare))


def _tally(name: str, images: list[ImageRecord], settings: _Settings) -> Tally:
    """All measures of one experiment's images."""

    def of_subject(image: ImageRecord) -> bool:
        return not settings.rare_words or bool(set(settings.rare_words) & set(_words(image.prompt)))

    ours = [image for image in images if of_subject(image)]
    others = [image for image in images if not of_subject(image)]
    rows: list[dict[str, Any]] = [
        {"file": image.path.name, "prompt_name": image.prompt_name} for image in [*ours, *others]
    ]
    columns = _of_subject(ours, settings) if ours else {}
    for key, values in columns.items():
        for row, value in zip(rows, values, strict=False):
            row[key] = value if key == "nearest" else float(value)
    for row, value in zip(rows[len(ours) :], _of_class(others, settings), strict=True):
        row["PRES"] = float(value)
    return Tally(
        experiment=name,
        figures={key: interval(found) for key, found in _values(rows).items()},
        prompts={
            prompt: {
                key: sum(found) / len(found)
                for key, found in _values([row for row in rows if row["prompt_name"] == prompt]).items()
            }
            for prompt in dict.fromkeys(image.prompt_name for image in images)
        },
        images=tuple(_without_gaps(row) for row in rows),
        models=tuple(record(embedder) for embedder in [*settings.embedders, pixels()]),
        photos={"folder": settings.photos[0].parent.as_posix(), "number": len(settings.photos)},
        rare_words=settings.rare_words,
        content=fingerprint([image.path for image in images]),
        controlled=any(image.control for image in images),
    )


def _of_subject(images: list[ImageRecord], settings: _Settings) -> dict[str, Any]:
    """Measure to one value per image of the subject."""
    import numpy as np

    files = [image.path for image in images]
    columns: dict[str, Any] = {}
    for embedder in settings.embedders:
        seen, real = image_features(embedder, files), image_features(embedder, settings.photos)
        columns[COLUMN.get(embedder.name, embedder.name)] = measures.likeness(seen, _valid(real))
        if embedder.name == "CLIP":
            prompts = [without(image.prompt, settings.rare_words) for image in images]
            columns["CLIP-T"] = measures.fidelity(seen, text_features(embedder, prompts))
        if embedder is settings.finest:
            groups = np.array([image.prompt_name for image in images])
            columns["diversity"] = measures.diversity(seen, groups)
    index, columns["nearest photo"] = measures.nearest(
        image_features(pixels(), files), image_features(pixels(), settings.photos)
    )
    return columns | {"nearest": [settings.photos[i].name for i in index]}


def _of_class(images: list[ImageRecord], settings: _Settings) -> Sequence[float]:
    """Likeness of images without the rare word to the photos, by the finest embedder."""
    if not images or settings.finest is None:
        return [float("nan")] * len(images)
    seen = image_features(settings.finest, [image.path for image in images])
    return list(measures.likeness(seen, _valid(image_features(settings.finest, settings.photos))))


def _photos_tally(settings: _Settings) -> Tally:
    """The photos among themselves: what a perfect image could reach."""
    columns = {
        COLUMN.get(one.name, one.name): measures.likeness_among(_valid(image_features(one, settings.photos)))
        for one in settings.embedders
    }
    columns["nearest photo"] = measures.nearest_other(image_features(pixels(), settings.photos))
    figures = {key: interval(list(values)) for key, values in columns.items()}
    return Tally(PHOTOS, figures, {}, photos={"number": len(settings.photos)})


def _valid(features: np.ndarray) -> np.ndarray:
    """Rows of photos that could be judged."""
    import numpy as np

    return features[~np.isnan(features).any(axis=1)]


def _values(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Measure to the values of the images that have it, in the order of the tables."""
    names = dict.fromkeys([*MEASURES, *(key for row in rows for key in row)])
    found = {
        name: [row[name] for row in rows if isinstance(row.get(name), float) and row[name] == row[name]]
        for name in names
    }
    return {name: values for name, values in found.items() if values}


def _without_gaps(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without measures that the image hasn't, which JSON couldn't hold."""
    return {key: value for key, value in row.items() if value == value}
