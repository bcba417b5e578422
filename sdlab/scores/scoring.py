"""Measuring the images of experiments: likeness, prompt fidelity, diversity, prior preservation, copies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sdlab import thumbnails
from sdlab.config import unknown
from sdlab.experiment import Experiment, find, names_of
from sdlab.files import fingerprint, placed
from sdlab.images import BASE, ImageRecord, by_setting, images_from_elsewhere, load_images
from sdlab.models import resolve
from sdlab.sampling import image_files
from sdlab.scores import measures
from sdlab.scores.embedders import (
    CLIP,
    DINO,
    Embedder,
    face_embedder,
    image_features,
    mini_clip,
    pixels,
    text_features,
)
from sdlab.scores.measures import Interval, interval
from sdlab.scores.tallies import MEASURES, MINI_LIKENESS, MINI_SCENE, PHOTOS, Scores, Tally

LIKENESS_OF = {"CLIP": "CLIP-I"}  # an embedder's measure of likeness, where it hasn't the embedder's name
TRAITS = ("skin", "hair_colour", "hair_style", "glasses")


def score(
    experiments: str | Experiment | Iterable[str | Experiment],
    *,
    photos: str | Path | None = None,
    prompt_names: str | Iterable[str] | None = None,
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
        Ruiz et al. 2022, arXiv:2208.12242, sections 4.1 (CLIP-I, DINO, CLIP-T) and 4.3 (PRES).
    """
    names, root, results = names_of(experiments), Path(root).expanduser(), Path(results).expanduser()
    for name in names:
        known_here = name == BASE or experiment_of(name, root)
        if not known_here and not image_files(results / name):
            raise _without_images(name, root, results)
    known = [one for name in names if (one := experiment_of(name, root))] or find(root)
    wanted = _wanted(prompt_names)
    files = _photo_files(known, photos)
    if embedders is None:
        embedders = _embedders_of(known, "mini" if "base" in names else "sd15")
    ours = _photos(files, [*embedders, *([face] if face else [])])
    tallies = {PHOTOS: Tally(PHOTOS, _figures(_among_themselves(ours)), photos={"number": len(files)})}
    for name in names:
        rare = rare_words([name], root) or rare_words([one.name for one in known], root)
        tallies[name] = _tally(name, ours, rare, root, results, wanted)
        tallies[name].save(results / name / "scores.json")
    return Scores(tallies)


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
        if (Path(root).expanduser() / short / "experiment.json").is_file():
            return Experiment(short, Path(root))
    return None


def rare_words(names: Iterable[str], root: str | Path = "experiments") -> tuple[str, ...]:
    """The rare words of the experiments' subjects, as their own prompts have them; none of `base`."""
    subjects = [one.hyperparameters.subject for name in names if (one := experiment_of(name, root))]
    return tuple(dict.fromkeys(subject.rare_word for subject in subjects if subject.rare_word))


def without(prompt: str, words: Iterable[str]) -> str:
    """A prompt without some words, for a model that has never learned them."""
    for word in words:
        prompt = re.sub(rf"(?<!\w){re.escape(word)}(?!\w) ?", "", prompt, flags=re.IGNORECASE)
    return prompt.strip()


def mini_scores(
    experiments: str | Iterable[str],
    *,
    subject: str = "woman",
    results: str | Path = "results",
    prompt_names: str | Iterable[str] | None = None,
) -> dict[str, dict[str, Interval]]:
    """Reads the images of experiments on the mini model; those without images are left out.

    `likeness to the subject` is the mean probability that skin, hair colour, hair style and glasses are those
    of the subject (woman or man), `scene as in the prompt` the share of images that show it, both 0 to 1.
    """
    from sdlab.mini import reader

    scores: dict[str, dict[str, Interval]] = {}
    wanted = _wanted(prompt_names)
    if subject not in reader.subjects():
        raise ValueError(unknown("subject of the mini world", subject, reader.subjects()))
    classes, person = reader.attributes(), reader.subjects()[subject]
    for name in names_of(experiments):
        if not (images := _of_prompts(load_images(name, results=results), wanted)):
            continue
        found = reader.probabilities([thumbnails.opened(image.path) for image in images])
        traits = [found[trait][:, classes[trait].index(person[trait])] for trait in TRAITS]
        scores[name] = {MINI_LIKENESS: interval(np.mean(traits, axis=0))}
        seen = [classes["scene"][index] for index in found["scene"].argmax(axis=1)]
        asked = [scene_of(image.prompt) for image in images]
        if right := [float(one == other) for one, other in zip(asked, seen, strict=True) if one]:
            scores[name][MINI_SCENE] = interval(right)
    return scores


def scene_of(prompt: str) -> str | None:
    """The first scene of the mini world that a prompt names, or None."""
    from sdlab.mini import reader

    words = prompt.lower().replace(",", " ").split()
    return next((word for word in words if word in reader.attributes()["scene"]), None)


class _Photos(NamedTuple):
    """What images are compared with: the photos, and the features of those that can be judged."""

    files: list[Path]
    features: dict[Embedder, np.ndarray]


def _photo_files(known: Sequence[Experiment], photos: str | Path | None) -> list[Path]:
    """The photos in the given folder, else in the one that all experiments were trained on."""
    given = [photos] if photos is not None else [one.hyperparameters.instance_data_dir for one in known]
    folders = {Path(folder) for folder in given}
    if len(folders) != 1:
        places = ", ".join(sorted(folder.as_posix() for folder in folders)) or "none"
        raise ValueError(
            f"The experiments must have one folder of photos to be compared with, got {places}. Score those "
            "of one subject together, or say which photos: photos='data/instance_images'."
        )
    folder = folders.pop()
    if len(files := image_files(folder)) < 2:
        raise ValueError(f"{folder} must hold at least 2 photos to compare with, got {len(files)}.")
    return files


def _embedders_of(known: Sequence[Experiment], root_name: str) -> list[Embedder]:
    """What fits the first experiment's base model and subject; without one the base `root_name`."""
    if not known:
        return embedders_for(root_name)
    base = resolve(known[0].hyperparameters.pretrained_model_name_or_path, known[0].root)
    return embedders_for(base.root_name, known[0].hyperparameters.subject.kind)


def _photos(files: list[Path], embedders: Sequence[Embedder]) -> _Photos:
    """The photos as each embedder sees them; one that can't judge two of them measures nothing."""
    photos = _Photos(files, {})
    for embedder in embedders:
        found = image_features(embedder, files)
        judged = found[~np.isnan(found).any(axis=1)]
        if len(judged) > 1:
            photos.features[embedder] = judged
        else:
            print(
                f"{embedder.name}: not measured, since it can judge {len(judged)} of the {len(files)} photos"
            )
    return photos


def _among_themselves(photos: _Photos) -> pd.DataFrame:
    """The measures of the photos, each against the others: what a perfect image could reach."""
    rows = {
        LIKENESS_OF.get(embedder.name, embedder.name): pd.DataFrame(measures.cosines(features)).mean(axis=1)
        for embedder, features in photos.features.items()
    }
    copies = measures.cosines(image_features(pixels(), photos.files))
    return pd.DataFrame(rows | {"nearest photo": pd.Series(np.nanmax(copies, axis=1))})


def _tally(
    name: str, photos: _Photos, rare: tuple[str, ...], root: Path, results: Path, wanted: set[str] | None
) -> Tally:
    """All measures of one experiment's images: of those here, else of those from elsewhere."""
    found = load_images(name, results=results) or images_from_elsewhere(name, results=results)
    if not found:
        raise _without_images(name, root, results)
    if not (asked := _of_prompts(found, wanted)):
        there = ", ".join(dict.fromkeys(image.prompt_name for image in found))
        raise ValueError(
            f"{name!r} has no images of the prompts {', '.join(sorted(wanted or ()))}. Choose from: {there}."
        )
    images = asked if asked[0].elsewhere else _newest(asked)
    # another program's rare word isn't known
    ours = [bool(i.elsewhere) or not rare or without(i.prompt, rare) != i.prompt for i in images]
    rows = _measured(images, photos, [without(image.prompt, rare) for image in images], np.array(ours))
    rows.insert(0, "file", [image.path.relative_to(results / name).as_posix() for image in images])
    alike = [
        image for image, of_subject in zip(images, ours, strict=True) if of_subject and not image.elsewhere
    ]
    return Tally(
        experiment=name,
        figures=_figures(rows),
        images=[{k: v for k, v in row.items() if v == v} for row in rows.to_dict("records")],  # no NaN
        models=[embedder.record() for embedder in [*photos.features, pixels()]],
        photos={"folder": photos.files[0].parent.as_posix(), "number": len(photos.files)},
        rare_words=rare,
        content=fingerprint([image.path for image in images]),
        controlled=any(image.control for image in images),
        settings=[asdict(setting) for setting in by_setting(alike)],
        left_out=len(asked) - len(images),
        elsewhere=", ".join(dict.fromkeys(image.elsewhere for image in images if image.elsewhere)),
    )


def _without_images(name: str, root: Path, results: Path) -> ValueError:
    command = placed(f"sdlab generate {name}", root=root, results=results)
    return ValueError(f"{name!r} has no images in {results}. Make some: {command}.")


def _wanted(prompt_names: str | Iterable[str] | None) -> set[str] | None:
    """One name needn't be in a list; None is all."""
    if prompt_names is None:
        return None
    return {prompt_names} if isinstance(prompt_names, str) else set(prompt_names)


def _of_prompts(images: list[ImageRecord], wanted: set[str] | None) -> list[ImageRecord]:
    return [image for image in images if wanted is None or image.prompt_name in wanted]


def _newest(images: list[ImageRecord]) -> list[ImageRecord]:
    """Of each prompt's images those of the setting that was used last: only like is compared with like."""
    of_prompt: dict[str, list[ImageRecord]] = {}
    for image in images:
        of_prompt.setdefault(image.prompt_name, []).append(image)
    return [image for group in of_prompt.values() for image in next(iter(by_setting(group).values()))]


def _measured(images: list[ImageRecord], photos: _Photos, texts: list[str], ours: np.ndarray) -> pd.DataFrame:
    """One row per image with its measures, NaN where it has none, and the `nearest` photo's file.

    Args:
        texts: The prompts without the rare word.
        ours: Whether a prompt speaks of the subject, and not of its class alone.
    """
    files, prompts = [image.path for image in images], np.array([image.prompt_name for image in images])
    rows = pd.DataFrame()
    # DINO, as the paper takes it for PRES; the first where there is none
    finest = next((one for one in photos.features if one.name == "DINO"), next(iter(photos.features), None))
    for embedder, of_photos in photos.features.items():
        seen = image_features(embedder, files)
        likeness = measures.cosines(seen, of_photos).mean(axis=1)
        rows[LIKENESS_OF.get(embedder.name, embedder.name)] = likeness
        if embedder.name == "CLIP":
            fidelity = (measures.unit(seen) * measures.unit(text_features(embedder, texts))).sum(axis=1)
            rows["CLIP-T"] = np.where([image.prompt != "" for image in images], fidelity, np.nan)
        if embedder == finest:
            rows["diversity"], rows["PRES"] = measures.diversity(seen, prompts), likeness
    copies = measures.cosines(image_features(pixels(), files), image_features(pixels(), photos.files))
    rows["nearest photo"] = copies.max(axis=1)
    rows["nearest"] = [photos.files[index].name for index in copies.argmax(axis=1)]
    rows = rows.where(ours[:, None] ^ (rows.columns == "PRES"))  # PRES is of the others alone
    rows.insert(0, "prompt_name", prompts)
    return rows


def _figures(rows: pd.DataFrame) -> dict[str, Interval]:
    """Means and intervals of the measures that any row has, in the order of the tables."""
    measured = rows.select_dtypes("number").dropna(axis="columns", how="all")
    names = [name for name in dict.fromkeys([*MEASURES, *measured]) if name in measured]
    return {name: interval(measured[name].dropna().to_numpy()) for name in names}
