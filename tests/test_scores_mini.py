"""The mini CLIP judges what is drawn: characters, captions, and experiments through the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recipes.mini import world
from sdlab import mini
from sdlab.cli import main
from sdlab.scores import load_scores, measures
from sdlab.scores.embedders import mini_clip

CLIP = mini.path().with_name("clip")
PROMPT = "portrait of sks woman, in the forest"


def drawn(folder: Path, pictures: list[world.Picture], prompt: str, name: str = "p") -> None:
    """Pictures of the mini world as if they had been generated."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "images.json"
    rows = json.loads(listed.read_text())["images"] if listed.exists() else []
    for number, picture in enumerate(pictures, 1):
        file = f"{name}_img{number}.png"
        world.draw(picture).save(folder / file)
        rows.append(
            {
                "file": file, "experiment": folder.name, "prompt_name": name, "number": number,
                "prompt": prompt, "negative_prompt": "", "seed": number, "num_inference_steps": 1,
                "guidance_scale": 1.0, "sampler": "own", "resolution": 128, "model": "drawn",
            }
        )  # fmt: skip
    listed.write_text(json.dumps({"images": rows}))


def test_the_weights_are_small_and_load_by_plain_from_pretrained() -> None:
    from transformers import CLIPModel, CLIPProcessor

    assert (CLIP / "model.safetensors").stat().st_size <= 1.2e6
    model, processor = CLIPModel.from_pretrained(CLIP), CLIPProcessor.from_pretrained(CLIP)
    beach, moon = (world.draw(replace(world.sample(7), scene=scene)) for scene in ("beach", "moon"))
    texts = ["a photo of a woman, on the beach", "a photo of a woman, on the moon"]
    inputs = processor(text=texts, images=[beach, moon], return_tensors="pt", padding=True)
    assert model(**inputs).logits_per_image.argmax(dim=1).tolist() == [0, 1]


def test_pictures_of_one_character_are_more_alike_than_of_two() -> None:
    """20 characters in five pictures each, from seeds that nothing was trained on."""
    people = [world.sample(40_000_000 + n) for n in range(20)]
    moments = world.SUBJECTS["woman"].photos()[:5]
    fields = ("skin", "face", "eyes", "hair_colour", "hair_style", "glasses", "glasses_colour", "beard")
    pictures = [
        world.draw(world.varied(moment, gender=one.gender, **{f: getattr(one, f) for f in fields}))
        for one in people
        for moment in moments
    ]
    features = measures.unit(mini_clip().images(pictures))
    who = np.repeat(np.arange(20), 5)
    first, second = np.triu_indices(100, 1)
    cosines, same = (features @ features.T)[first, second], who[first] == who[second]
    auc = (cosines[same][:, None] > cosines[~same][None]).mean()
    assert auc > 0.9  # 0.95 over 100 characters, see sdlab/mini/weights/clip/clip.json


def test_its_measured_worth_lies_beside_it() -> None:
    measured = json.loads((CLIP / "clip.json").read_text())
    assert measured["characters_auc"] >= 0.95
    assert measured["zero_shot"]["scene"]["accuracy"] > 0.95


def test_the_command_line_tells_the_subject_from_strangers(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = world.SUBJECTS["woman"].photos()
    (workplace / "photos").mkdir()
    for number, picture in enumerate(photos[:8]):
        world.draw(picture).save(workplace / f"photos/{number}.png")
    # photos that are kept out of the dataset, all in the forest
    vera = [replace(world.SUBJECTS["woman"].photo(n), scene="forest") for n in range(30, 38)]
    strangers = [replace(world.sample(seed), scene="beach", flaw="none") for seed in range(8)]
    hyperparameters = {
        "method": "lora", "instance_data_dir": "photos", "pretrained_model_name_or_path": "mini",
        "instance_prompt": "a photo of sks woman face", "class_prompt": "a photo of woman face",
    }  # fmt: skip
    folder = workplace / "experiments/vera"
    folder.mkdir(parents=True)
    record = {"name": "vera", "method": "lora", "status": "finished", "hyperparameters": hyperparameters}
    (folder / "experiment.json").write_text(json.dumps(record))
    drawn(workplace / "results/vera", vera, PROMPT)
    drawn(workplace / "results/base", strangers, PROMPT)
    drawn(workplace / "results/base", strangers[:4], "a photo of woman face", "class")

    main(["score", "base", "vera", "--json", "--plot", "tradeoff.png"])
    said = json.loads(capsys.readouterr().out)
    assert said["recommendation"]["name"] == "vera" and said["notes"] == []
    figures = {name: tally["figures"] for name, tally in said["scores"].items()}
    assert figures["vera"]["CLIP-I"][1] > figures["base"]["CLIP-I"][2]  # the intervals don't meet
    assert figures["vera"]["CLIP-T"][1] > figures["base"]["CLIP-T"][2]  # forest, not beach
    assert "PRES" in figures["base"] and "PRES" not in figures["vera"]
    assert (workplace / "tradeoff.pdf").is_file()

    main(["score", "base", "vera"])
    text = capsys.readouterr().out
    assert "CLIP-I" in text and "Take vera: CLIP-I" in text and "rule: highest likeness" in text

    kept = load_scores(["base", "vera", "never"])
    assert kept.experiments == ["base", "vera"]
    assert kept.measurements()["vera"]["CLIP-I"] == tuple(figures["vera"]["CLIP-I"])
    main(["report", "vera", "--images_per_cell", "1"])
    page = (workplace / "results/report/README.md").read_text()
    assert "| `vera` | " in page and "cosine of CLIP" in page
    world.draw(world.sample(3)).save(workplace / "results/vera/p_img1.png")
    assert load_scores(["base", "vera"]).experiments == ["base"]  # its scores speak of other images
