"""The measures agree with plain loops over transformers' own models, and with what is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from recipes.mini import world
from sdlab import mini
from sdlab.photos.faces import SFACE, YUNET, face_features
from sdlab.scores import Interval, apart, interval, load_scores, measures, score
from sdlab.scores.embedders import Embedder
from sdlab.scores.scoring import embedders_for, rare_words, without
from tests.data import shared

PROMPTS = ["portrait of sks woman, on the street", "sks woman in the desert"]
WITHOUT = ["portrait of woman, on the street", "woman in the desert"]


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with random weights, in transformers' layout."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = CLIPTokenizer.from_pretrained(mini.path() / "tokenizer")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
        initializer_factor=5.0,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32,
        patch_size=8, initializer_factor=5.0,
    )  # fmt: skip
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT with random weights, in DINO's layout."""
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=8, initializer_range=0.3,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def begun(workplace: Path, name: str, **overrides: str | None) -> None:
    """The record of a finished experiment."""
    folder = workplace / "experiments" / name
    folder.mkdir(parents=True)
    hyperparameters = {
        "method": "lora", "instance_data_dir": str(workplace / "photos"),
        "instance_prompt": "a photo of sks woman face", "class_prompt": "a photo of woman face",
    }  # fmt: skip
    record = {"name": name, "method": "lora", "status": "finished"}
    record["hyperparameters"] = hyperparameters | overrides  # type: ignore[assignment]
    (folder / "experiment.json").write_text(json.dumps(record))


@pytest.fixture
def experiment(workplace: Path) -> Path:
    """Records of an experiment, four photos and six images: two each of two prompts and one without `sks`."""
    photos = workplace / "photos"
    photos.mkdir()
    for number, picture in enumerate(world.SUBJECTS["woman"].photos()[:4]):
        world.draw(picture, 48).save(photos / f"{number}.png")
    begun(workplace, "one")
    results = workplace / "results" / "one"
    results.mkdir(parents=True)
    rows = []
    prompts = [(f"p{n}", text) for n, text in enumerate([*PROMPTS, "a photo of woman face"], 1)]
    for name, prompt in prompts:
        for number in (1, 2):
            file = f"{name}_img{number}.png"
            world.draw(world.sample(len(rows)), 64).save(results / file)
            rows.append(
                {
                    "file": file, "experiment": "one", "prompt_name": name, "number": number,
                    "prompt": prompt, "negative_prompt": "", "seed": number, "num_inference_steps": 1,
                    "guidance_scale": 1.0, "sampler": "own", "resolution": 64, "model": "drawn",
                }
            )  # fmt: skip
    (results / "images.json").write_text(json.dumps({"images": rows}))
    return workplace


def test_all_measures_agree_with_loops_over_the_models(
    experiment: Path, clip_folder: Path, dino_folder: Path
) -> None:
    clip = CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    clip_processor = CLIPImageProcessor.from_pretrained(clip_folder)
    dino = ViTModel.from_pretrained(dino_folder, add_pooling_layer=False).eval()
    dino_processor = ViTImageProcessor.from_pretrained(dino_folder)

    @torch.no_grad()
    def seen(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        image = Image.open(path).convert("RGB")
        values = clip_processor(image, return_tensors="pt").pixel_values
        hidden = clip.vision_model(pixel_values=values).pooler_output
        other = dino_processor(image, return_tensors="pt").pixel_values
        return (
            clip.visual_projection(hidden)[0].double(),
            dino(pixel_values=other).last_hidden_state[0, 0].double(),
        )

    @torch.no_grad()
    def read(text: str) -> torch.Tensor:
        ids = tokenizer(text, return_tensors="pt").input_ids
        return clip.text_projection(clip.text_model(input_ids=ids).pooler_output)[0].double()

    photos = [seen(path) for path in sorted((experiment / "photos").glob("*.png"))]
    results = experiment / "results/one"
    images = {(p, n): seen(results / f"p{p}_img{n}.png") for p in (1, 2, 3) for n in (1, 2)}
    ours = [key for key in images if key[0] != 3]

    def mean_to_photos(keys: list[tuple[int, int]], model: int) -> float:
        return float(np.mean([cosine(images[k][model], photo[model]) for k in keys for photo in photos]))

    expected = {
        "CLIP-I": mean_to_photos(ours, 0),
        "DINO": mean_to_photos(ours, 1),
        "PRES": mean_to_photos([(3, 1), (3, 2)], 1),
        "CLIP-T": np.mean([cosine(images[p, n][0], read(WITHOUT[p - 1])) for p, n in ours]),
        "diversity": np.mean([1 - cosine(images[p, 1][1], images[p, 2][1]) for p in (1, 2)]),
    }
    embedders = [Embedder("CLIP", str(clip_folder)), Embedder("DINO", str(dino_folder))]
    scores = score("one", embedders=embedders)
    for name, value in expected.items():
        assert scores["one"].figures[name][0] == pytest.approx(value, abs=1e-5), name
    among = np.mean([cosine(a[1], b[1]) for a in photos for b in photos if a is not b])
    assert scores["photos"].figures["DINO"][0] == pytest.approx(among, abs=1e-5)
    assert scores["one"].rare_words == ("sks",)
    of_first = [row for row in scores["one"].images if row["file"] == "p1_img1.png"]
    assert of_first[0]["DINO"] == pytest.approx(mean_to_photos([(1, 1)], 1), abs=1e-5)
    assert scores.likeness == "DINO"
    first_prompt = mean_to_photos([(1, 1), (1, 2)], 1)
    second_prompt = 2 * expected["DINO"] - first_prompt
    assert scores.by_prompt().to_dict("index") == {
        "one": {"p1": pytest.approx(first_prompt, abs=1e-5), "p2": pytest.approx(second_prompt, abs=1e-5)}
    }
    with pytest.raises(ValueError, match=r"'CLIP-X'.*CLIP-I"):
        scores.by_prompt("CLIP-X")
    recorded = json.loads((results / "scores.json").read_text())
    assert [model["name"] for model in recorded["models"]] == ["CLIP", "DINO", "pixels"]
    assert recorded["models"][0]["preprocessing"]["crop_size"] == {"height": 32, "width": 32}


def test_an_image_is_embedded_again_only_if_its_content_changes(experiment: Path) -> None:
    asked: list[int] = []

    def embed(pictures: list[Image.Image]) -> np.ndarray:
        asked.append(len(pictures))
        return np.array([np.asarray(p.resize((2, 2)), float).ravel() for p in pictures])

    own = Embedder("own", "1", embed)  # type: ignore[arg-type]
    first = score("one", embedders=[own])
    assert sum(asked) == 4 + 6  # photos, images
    assert score("one", embedders=[own]).tallies == first.tallies and sum(asked) == 10
    world.draw(world.sample(99), 64).save(experiment / "results/one/p1_img1.png")
    assert score("one", embedders=[own])["one"].figures != first["one"].figures
    assert sum(asked) == 11


def test_a_copied_photo_is_found_with_its_name(experiment: Path, clip_folder: Path) -> None:
    photo = Image.open(experiment / "photos/2.png").resize((64, 64))
    photo.save(experiment / "results/one/p2_img1.png")
    rows = {row["file"]: row for row in score("one", embedders=[])["one"].images}
    assert rows["p2_img1.png"]["nearest"] == "2.png" and rows["p2_img1.png"]["nearest photo"] > 0.99
    assert rows["p1_img1.png"]["nearest photo"] < 0.9


def test_faces_are_compared_where_there_is_one(experiment: Path) -> None:
    def embed(pictures: list[Image.Image]) -> np.ndarray:
        """Red and green of the middle; no face in the picture that is 48 pixels wide and darkest."""
        middle = np.array([np.asarray(p)[20:30, 20:30, :2].mean(axis=(0, 1)) for p in pictures])
        return np.where(middle[:, :1] < np.median(middle[:, 0]), np.nan, middle)

    scores = score("one", embedders=[], face=Embedder("face", "test", embed))  # type: ignore[arg-type]
    judged = [row for row in scores["one"].images if "face" in row]
    assert 0 < len(judged) < 4 and all(0 < row["face"] <= 1 + 1e-9 for row in judged)
    assert scores.likeness == "face"
    count = len(judged)
    assert scores.notes() == [f"one: a face was found in {count} of 4 images; `face` is of these alone."]


def test_a_measure_that_no_photo_allows_is_left_out_with_a_line(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faceless = Embedder("face", "none", lambda pictures: np.full((len(pictures), 4), np.nan))
    assert "face" not in score("one", embedders=[], face=faceless).measures
    assert "face: not measured, since it can judge 0 of the 4 photos" in capsys.readouterr().out


def test_faces_that_cannot_be_compared_cost_one_line_that_names_the_way_out(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    named = [one.name for one in embedders_for("sd15", "person")]
    said = capsys.readouterr().out
    if named[2:] == ["face"]:  # its weights may be in the hub's cache
        assert said == ""
    else:
        assert said.count("\n") == 1 and "face: not measured" in said and "cache_dir/models" in said


@pytest.mark.slow
def test_a_face_is_like_itself_and_not_like_a_stranger() -> None:
    from skimage.data import astronaut

    folder = shared("faces")
    if not (folder / SFACE).is_file():
        pytest.skip(f"needs ../shared/data/faces/{SFACE}")
    portrait = Image.fromarray(astronaut())
    pictures = [portrait, portrait.rotate(10), Image.new("RGB", (64, 64))]
    found = face_features(pictures, yunet=folder / YUNET, sface=folder / SFACE)
    assert np.isnan(found).any(axis=1).tolist() == [False, False, True]
    assert measures.cosines(found[:1], found[1:2])[0, 0] > 0.6


def test_rare_words_come_from_the_experiments_own_prompts(experiment: Path) -> None:
    assert rare_words(["base", "one"]) == ("sks",)
    begun(experiment, "two", instance_prompt="a photo of zwx dog", class_prompt=None)
    assert rare_words(["one", "two@step3"]) == ("sks", "zwx")
    assert [without(prompt, ["sks"]) for prompt in PROMPTS] == WITHOUT
    assert without("Sks woman with asks", ["sks"]) == "woman with asks"


def test_an_experiment_is_scored_by_its_own_rare_word_and_empty_figures_have_a_reason(
    experiment: Path, clip_folder: Path
) -> None:
    prompts = {"instance_prompt": "a photo of ohwx woman face", "class_prompt": "a photo of woman face"}
    begun(experiment, "two", **prompts)
    shutil.copytree(experiment / "results/one", experiment / "results/two")
    embedders = [Embedder("CLIP", str(clip_folder))]
    scores = score(["one", "two"], embedders=embedders)
    assert "CLIP-T" in scores["one"].figures and set(scores["two"].figures) == {"PRES"}
    assert scores["two"].rare_words == ("ohwx",)
    assert "two: none of its images was made with ohwx, its rare word" in repr(scores)
    listed = experiment / "results/two/images.json"
    listed.write_text(listed.read_text().replace("sks", "ohwx"))
    again = score(["one", "two"], embedders=embedders)
    assert again.notes() == []
    assert again["two"].figures["CLIP-T"] == again["one"].figures["CLIP-T"]  # the rare word is left out


def test_images_that_were_not_made_alike_are_said(experiment: Path) -> None:
    begun(experiment, "two")
    shutil.copytree(experiment / "results/one", experiment / "results/two")
    listed = experiment / "results/two/images.json"
    listed.write_text(listed.read_text().replace('"guidance_scale": 1.0', '"guidance_scale": 5.0'))
    scores = score(["one", "two"], embedders=[])
    assert scores.notes() == ["Not made alike, compare with care: guidance_scale is 1.0 (one); 5.0 (two)."]
    assert score(["one"], embedders=[]).notes() == []


def test_images_that_another_program_made_are_a_row_of_the_scores(
    experiment: Path, clip_folder: Path
) -> None:
    friend = experiment / "results/friend"
    friend.mkdir()
    known = PngInfo()
    known.add_text("parameters", "sks woman in the desert\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1")
    for seed in (1, 2):
        world.draw(world.sample(seed), 64).save(
            friend / f"p2_img{seed}.png", pnginfo=known if seed == 1 else None
        )
    scores = score(["one", "friend"], embedders=[Embedder("CLIP", str(clip_folder))])
    rows = scores["friend"].images
    assert [("CLIP-I" in row, "CLIP-T" in row) for row in rows] == [(True, True), (True, False)]
    assert [note for note in scores.notes() if "not made here, but by A1111, another program" in note]
    assert load_scores(["friend"]).experiments == ["friend"]


def test_one_cell_with_two_settings_is_scored_by_the_newest_and_says_so(experiment: Path) -> None:
    listed = experiment / "results/one/images.json"
    rows = json.loads(listed.read_text())["images"]
    rows[1] |= {"guidance_scale": 5.0, "made": "2026-11-25T12:00:00"}
    listed.write_text(json.dumps({"images": rows}))
    scores = score("one", embedders=[])
    assert [row["file"] for row in scores["one"].images if row["prompt_name"] == "p1"] == ["p1_img2.png"]
    assert "made earlier with another setting: 1 of its images" in scores.notes()[0]
    assert scores.notes()[1].endswith("guidance_scale is 5.0 (one); 1.0 (one).")


def test_the_interval_covers_the_mean_of_its_population_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = [low <= 0.3 <= high for _, low, high in (interval(rng.normal(0.3, 0.1, 20)) for _ in range(200))]
    assert 0.88 < np.mean(hits) < 0.99  # 95 % in the limit; the percentile interval of 20 is a little short
    middle = Interval(0.5, 0.4, 0.6)
    assert apart(middle, Interval(0.8, 0.7, 0.9)) and not apart(middle, Interval(0.65, 0.55, 0.7))


def test_what_cannot_be_scored_is_said_with_what_to_do(experiment: Path) -> None:
    with pytest.raises(ValueError, match=r"has no images in results\. Make some: sdlab generate two"):
        score(["one", "two"], embedders=[])
    other = experiment / "experiments/other"
    other.mkdir()
    record = json.loads((experiment / "experiments/one/experiment.json").read_text())
    record["hyperparameters"]["instance_data_dir"] = "elsewhere"
    (other / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"one folder of photos to be compared with, got .*, elsewhere"):
        score(["one", "other"], embedders=[])
    with pytest.raises(ValueError, match="got none"):
        score("base", root="nowhere")


def test_a_model_that_cannot_be_downloaded_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    absent = Embedder("CLIP", "nobody/has-this-clip")
    with pytest.raises(OSError, match=r"nobody/has-this-clip that measures CLIP isn't on this machine"):
        absent.images([Image.new("RGB", (8, 8))])
    assert [one.name for one in embedders_for("sd15", "thing")] == ["CLIP", "DINO"]
    assert [one.name for one in embedders_for("mini")] == ["CLIP"]
