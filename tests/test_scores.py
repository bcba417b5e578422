"""Scores on the mini world agree with what is known to be drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.mini import world
from sdlab.prompts import HOMEWORK_A, HOMEWORK_B
from sdlab.scores import mini_scores, scene_of


def drawn(folder: Path, pictures: list[world.Picture], prompt: str) -> None:
    """Pictures of the mini world as if they had been generated."""
    folder.mkdir(parents=True)
    rows = []
    for number, picture in enumerate(pictures, 1):
        file = f"p_img{number}.png"
        world.draw(picture).save(folder / file)
        rows.append(
            {
                "file": file, "experiment": folder.name, "prompt_name": "p", "number": number,
                "prompt": prompt, "negative_prompt": "", "seed": 0, "num_inference_steps": 1,
                "guidance_scale": 1.0, "sampler": "own", "resolution": 128, "model": "drawn",
            }
        )  # fmt: skip
    (folder / "images.json").write_text(json.dumps({"images": rows}))


@pytest.mark.slow
def test_photos_of_the_subject_score_high_and_strangers_low(workplace: Path) -> None:
    vera = [replace(p, scene="forest") for p in world.SUBJECTS["woman"].photos()[:12]]
    strangers = [replace(world.sample(seed), scene="beach") for seed in range(12)]
    drawn(workplace / "results/vera", vera, "a woman in the forest")
    drawn(workplace / "results/strangers", strangers, "a woman in the forest")
    scores = mini_scores(["vera", "strangers", "nobody"])
    assert set(scores) == {"vera", "strangers"}
    likeness = {name: one["likeness to the subject"] for name, one in scores.items()}
    assert likeness["vera"][0] > 0.95 and likeness["strangers"][0] < 0.5
    assert likeness["vera"][1] > likeness["strangers"][2]  # the intervals don't meet
    scenes = {name: one["scene as in the prompt"][0] for name, one in scores.items()}
    assert scenes["vera"] > 0.85 and scenes["strangers"] < 0.15


def test_every_homework_prompt_names_its_scene() -> None:
    assert [scene_of(p) for p in HOMEWORK_A.prompts.values()] == list(HOMEWORK_A.prompts)
    found = [scene_of(p) for p in HOMEWORK_B.prompts.values()]
    assert found == ["street", "desert", "dragons", "castle", "moon"]
    assert scene_of("a photo of sks woman face") is None
