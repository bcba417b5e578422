"""Measuring the images of experiments: likeness, prompt fidelity, diversity, prior preservation, copies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab.experiment import Experiment, find
from sdlab.files import fingerprint
from sdlab.images import ImageRecord, by_setting, image_files, load_images
from sdlab.models import resolve
from sdlab.scores import measures
from sdlab.scores.embedders import CLIP, DINO, Embedder, image_features, mini_clip, pixels, text_features
from sdlab.scores.faces import face_embedder
from sdlab.scores.measures import Interval, interval
from sdlab.scores.tallies import MEASURES, PHOTOS, Scores, Tally
from sdlab.subject import Subject

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

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
        face: An embedder of faces of your own, named `face`; rows of NaN say that there is none.
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
        asked = [image for image in found if wanted is None or image.prompt_name in wanted]
        if not asked:
            raise ValueError(f"{name!r} has no images in {results}. Make some: sdlab generate {name}.")
        images = _newest(asked)
        rare = rare_words([name], root) or settings.rare_words
        tally = _tally(name, images, replace(settings, rare_words=rare))
        tallies[name] = replace(tally, left_out=len(asked) - len(images))
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

    def features(self, embedder: Embedder) -> np.ndarray:
        """Features of the photos that can be judged."""
        import numpy as np

        found = image_features(embedder, self.photos)
        return found[~np.isnan(found).any(axis=1)]

    def of_subject(self, image: ImageRecord) -> bool:
        """Whether its prompt speaks of the subject, and not of its class alone."""
        return not self.rare_words or without(image.prompt, self.rare_words) != image.prompt


def embedders_for(root_name: str, subject_kind: str = "person") -> list[Embedder]:
    """The models that judge images of a base model; the mini CLIP knows characters too, as DINO does."""
    if root_name == "mini":
        return [mini_clip()]
    face = face_embedder() if subject_kind == "person" else None
    return [CLIP, DINO, *([face] if face else [])]


def experiment_of(name: str, root: str | Path = "experiments") -> Experiment | None:
    """The experiment that a name of images speaks of; None for `base` and what isn't on this disk.

    Of `lora@0.7`, `lora@step100` and `dreambooth+lora@0.7` it is `lora`.
    """
    for short in (name, name.split("@")[0], name.split("@")[0].split("+")[-1]):
        if (Path(root) / short / "experiment.json").is_file():
            return Experiment(short, Path(root))
    return None


def rare_words(names: Iterable[str], root: str | Path = "experiments") -> tuple[str, ...]:
    """The rare words of the experiments' subjects, as their own prompts have them; none of `base`."""
    known = [one.hyperparameters for name in names if (one := experiment_of(name, root)) is not None]
    subjects = [Subject.of(one.instance_prompt, one.class_prompt) for one in known]
    return tuple(dict.fromkeys(subject.rare_word for subject in subjects if subject.rare_word))


def without(prompt: str, words: Iterable[str]) -> str:
    """A prompt without some words, for a model that has never learned them."""
    for word in words:
        prompt = re.sub(rf"(?<!\w){re.escape(word)}(?!\w) ?", "", prompt, flags=re.IGNORECASE)
    return prompt.strip()


def _settings(
    names: list[str],
    root: Path,
    photos: str | Path | None,
    embedders: Sequence[Embedder] | None,
    face: Embedder | None,
) -> _Settings:
    named = [one for one in (experiment_of(name, root) for name in names) if one is not None]
    known = named or find(root)  # of `base` alone: what is there
    chosen = [one.hyperparameters for one in known]
    folders = [Path(photos)] if photos is not None else [Path(one.instance_data_dir) for one in chosen]
    if len(set(folders)) != 1:
        places = ", ".join(sorted({folder.as_posix() for folder in folders})) or "none"
        raise ValueError(
            f"The experiments must have one folder of photos to be compared with, got {places}. Score those "
            "of one subject together, or say which photos: photos='data/instance_images'."
        )
    files = image_files(folders[0])
    if len(files) < 2:
        raise ValueError(f"{folders[0]} must hold at least 2 photos to compare with, got {len(files)}.")
    if embedders is None:
        base = chosen[0].pretrained_model_name_or_path if chosen else "mini"
        subject = Subject.of(chosen[0].instance_prompt, chosen[0].class_prompt) if chosen else Subject()
        embedders = embedders_for(resolve(base, root).root_name, subject.kind)
    settings = _Settings(files, [], rare_words([one.name for one in known], root))
    for embedder in [*embedders, *([face] if face else [])]:
        if (judged := len(settings.features(embedder))) > 1:
            settings.embedders.append(embedder)
        else:
            print(f"{embedder.name}: not measured, since it can judge {judged} of the {len(files)} photos")
    return settings


def _tally(name: str, images: list[ImageRecord], settings: _Settings) -> Tally:
    """All measures of one experiment's images."""
    rows = _measured(images, settings)
    return Tally(
        experiment=name,
        figures=_figures(rows),
        images=tuple({k: v for k, v in row.items() if v == v} for row in rows.to_dict("records")),  # no NaN
        models=tuple(embedder.record() for embedder in [*settings.embedders, pixels()]),
        photos={"folder": settings.photos[0].parent.as_posix(), "number": len(settings.photos)},
        rare_words=settings.rare_words,
        content=fingerprint([image.path for image in images]),
        controlled=any(image.control for image in images),
        settings=tuple(map(asdict, by_setting(filter(settings.of_subject, images)))),
    )


def _newest(images: list[ImageRecord]) -> list[ImageRecord]:
    """Of each prompt's images those of the setting that was used last: only like is compared with like."""
    of_prompt: dict[str, list[ImageRecord]] = {}
    for image in images:
        of_prompt.setdefault(image.prompt_name, []).append(image)
    return [image for group in of_prompt.values() for image in next(iter(by_setting(group).values()))]


def _measured(images: list[ImageRecord], settings: _Settings) -> DataFrame:
    """One row per image with its measures, NaN where it has none, and the `nearest` photo's file."""
    import numpy as np
    import pandas as pd

    files, prompts = [image.path for image in images], np.array([image.prompt_name for image in images])
    texts = [without(image.prompt, settings.rare_words) for image in images]
    rows = pd.DataFrame()
    for embedder in settings.embedders:
        seen = image_features(embedder, files)
        likeness = measures.cosines(seen, settings.features(embedder)).mean(axis=1)
        rows[COLUMN.get(embedder.name, embedder.name)] = likeness
        if embedder.name == "CLIP":
            rows["CLIP-T"] = (measures.unit(seen) * measures.unit(text_features(embedder, texts))).sum(axis=1)
        if embedder is settings.finest:
            rows["diversity"], rows["PRES"] = measures.diversity(seen, prompts), likeness
    cosines = measures.cosines(image_features(pixels(), files), image_features(pixels(), settings.photos))
    rows["nearest photo"] = cosines.max(axis=1)
    rows["nearest"] = [settings.photos[index].name for index in cosines.argmax(axis=1)]
    ours = np.array([settings.of_subject(image) for image in images])
    rows = rows.where(ours[:, None] ^ (rows.columns == "PRES"))  # PRES is of the others alone
    rows.insert(0, "file", [file.name for file in files])
    rows.insert(1, "prompt_name", prompts)
    return rows


def _photos_tally(settings: _Settings) -> Tally:
    """The photos among themselves: what a perfect image could reach."""
    import numpy as np

    cosines = {
        COLUMN.get(one.name, one.name): measures.cosines(settings.features(one)) for one in settings.embedders
    }
    figures = {name: interval(np.nanmean(found, axis=1)) for name, found in cosines.items()}
    figures["nearest photo"] = interval(
        np.nanmax(measures.cosines(image_features(pixels(), settings.photos)), axis=1)
    )
    return Tally(PHOTOS, figures, photos={"number": len(settings.photos)})


def _figures(rows: DataFrame) -> dict[str, Interval]:
    """Means and intervals of the measures that any row has, in the order of the tables."""
    names = [name for name in dict.fromkeys([*MEASURES, *rows]) if name in rows.select_dtypes("number")]
    known = {name: rows[name].dropna() for name in names}
    return {name: interval(values.to_numpy()) for name, values in known.items() if len(values)}
