"""What follows from scores: a recommendation, plots, sheets, and a human's blind choices."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from recipes.mini import world
from sdlab.prompts import PromptSet
from sdlab.scores import (
    Comparison,
    Interval,
    Scores,
    Tally,
    drift_table,
    load_scores,
    nearest_photos,
    prompts_without,
    recommend,
)
from sdlab.scores.plots import along, heat_map, pareto, save, tradeoff


def scores(**figures: tuple[float, float]) -> Scores:
    """Scores with these means of CLIP-I and CLIP-T, each ± 0.02; `__` in a name stands for `@`."""

    def around(mean: float) -> Interval:
        return Interval(mean, mean - 0.02, mean + 0.02)

    names = {name.replace("__", "@"): values for name, values in figures.items()}
    return Scores({n: Tally(n, {"CLIP-I": around(i), "CLIP-T": around(t)}) for n, (i, t) in names.items()})


def test_one_torn_file_of_scores_stops_nothing_and_is_named(workplace: Path) -> None:
    for name in ("one", "two"):
        images(workplace / f"results/{name}", {"p": "sks woman"})
        Tally(name, {"CLIP-I": Interval(0.5, 0.4, 0.6)}).save(f"results/{name}/scores.json")
    torn = workplace / "results/two/scores.json"
    torn.write_text(torn.read_text()[:40])
    with pytest.warns(UserWarning, match=r"two.scores\.json can't be read as scores .*sdlab score two"):
        load_scores(["one", "two"])
    with pytest.raises(ValueError, match=r"two.scores\.json can't be read"):
        Tally.load(torn)
    with pytest.warns(UserWarning, match="scores of one are of other images .*sdlab score one"):
        assert not load_scores(["one"]).tallies


def test_what_is_worse_than_the_base_or_of_other_prompts_is_said() -> None:
    found = scores(base=(0.6, 0.5), worse=(0.4, 0.5))
    assert "less alike than the base model is" in recommend(found).sentence
    assert not found.notes()
    of = {"base": "street", "worse": "a"}
    tallies = {
        name: replace(tally, settings=[{"seed": 0}], images=[{"prompt_name": of[name], "nearest": "1.png"}])
        for name, tally in found.tallies.items()
    }
    (note,) = Scores(tallies).notes()
    assert "street (base); a (worse)" in note


def test_the_table_is_a_frame_that_can_be_sorted_and_plotted() -> None:
    table = scores(base=(0.3, 0.5), one=(0.6, 0.4)).table()
    assert table.sort_values("CLIP-I", ascending=False).index.tolist() == ["one", "base"]
    assert table.loc["one", ["CLIP-I", "CLIP-I low", "CLIP-I high"]].tolist() == [0.6, 0.58, 0.62]
    assert "0.600 (0.580 to 0.620)" in repr(table)


def test_the_recommendation_is_said_in_russian_too() -> None:
    found = scores(base=(0.3, 0.5), good=(0.6, 0.48), other=(0.61, 0.48), overtrained=(0.9, 0.2))
    english, russian = recommend(found), recommend(found, language="ru")
    assert russian.name == english.name == "other" and russian.equals == english.equals == ("good",)
    assert "other: CLIP-I 0.610" in russian.sentence and not re.search(
        r"\b(the|base|Take)\b", russian.sentence
    )


def test_images_made_with_control_are_not_recommended() -> None:
    found = scores(base=(0.2, 0.3), lora=(0.5, 0.3), lora_pose_arms=(0.9, 0.3))
    steered = replace(found["lora_pose_arms"], controlled=True)
    known = Scores({**found.tallies, "lora_pose_arms": steered})
    assert known.eligible == ["lora"]
    assert recommend(found).name == "lora_pose_arms" and recommend(known).name == "lora"


def trained(folder: Path, **values: object) -> None:
    """The record of a finished experiment."""
    folder.mkdir(parents=True)
    prompts = {"instance_prompt": "a photo of sks woman face", "class_prompt": "a photo of woman face"}
    record = {"name": folder.name, "method": "lora", "status": "finished"}
    record["hyperparameters"] = {"method": "lora", **prompts, **values}  # type: ignore[assignment]
    (folder / "experiment.json").write_text(json.dumps(record))


def images(folder: Path, prompts: dict[str, str], count: int = 2, first: int = 0) -> None:
    """Drawn pictures as if they had been generated."""
    folder.mkdir(parents=True)
    rows = []
    for name, prompt in prompts.items():
        for number in range(1, count + 1):
            file = f"{name}_img{number}.png"
            world.draw(world.sample(first + len(rows)), 64).save(folder / file)
            rows.append(
                {
                    "file": file, "experiment": folder.name, "prompt_name": name, "number": number,
                    "prompt": prompt, "negative_prompt": "", "seed": number, "num_inference_steps": 1,
                    "guidance_scale": 1.0, "sampler": "own", "resolution": 64, "model": "drawn",
                }
            )  # fmt: skip
    (folder / "images.json").write_text(json.dumps({"images": rows}))


def test_the_best_is_the_most_alike_of_those_that_follow_the_prompts() -> None:
    choice = recommend(scores(base=(0.3, 0.5), weak=(0.4, 0.5), good=(0.6, 0.48), overtrained=(0.9, 0.2)))
    assert choice.name == "good" and choice.equals == ()
    assert "CLIP-I 0.600 (0.580 to 0.620)" in choice.sentence
    assert "the base model has 0.300" in choice.sentence
    assert "less faithful to the prompts than the base: overtrained" in choice.sentence


def test_what_intervals_cannot_tell_apart_is_said() -> None:
    choice = recommend(scores(base=(0.3, 0.5), one__step50=(0.61, 0.5), one=(0.63, 0.5), other=(0.5, 0.5)))
    assert choice.name == "one" and choice.equals == ("one@step50",)
    assert "can't tell it apart from one@step50" in choice.sentence
    same = recommend(scores(base=(0.3, 0.5), one=(0.31, 0.5)))
    assert "likeness can't be told apart from the base model's" in same.sentence
    none = recommend(scores(base=(0.3, 0.5), one=(0.6, 0.4), two=(0.7, 0.3)))
    assert none.name == "two" and "None follows the prompts" in none.sentence
    drifted = scores(base=(0.3, 0.5), one=(0.6, 0.5))
    drifted["base"].figures["PRES"] = Interval(0.3, 0.2, 0.4)  # type: ignore[index]
    drifted["one"].figures["PRES"] = Interval(0.6, 0.5, 0.7)  # type: ignore[index]
    assert "become like the subject: PRES 0.600" in recommend(drifted).sentence
    with pytest.raises(ValueError, match="at least one experiment"):
        recommend(scores(base=(0.3, 0.5)))


def test_the_pareto_front_holds_what_nothing_beats_in_both() -> None:
    points = {"a": (0.1, 0.9), "b": (0.5, 0.5), "c": (0.4, 0.5), "d": (0.9, 0.1), "e": (0.2, 0.2)}
    assert pareto(points) == ["a", "b", "d"]


def test_plots_are_written_as_png_and_pdf(workplace: Path) -> None:
    for rank, rate in ((2, 1e-4), (2, 1e-3), (4, 1e-4), (4, 1e-3)):
        trained(workplace / f"experiments/r{rank}_{rate:g}", rank=rank, learning_rate=rate)
    names = {
        f"r{r}_{rate:g}": (0.3 + r / 20 + rate * 100, 0.5 - rate * 100)
        for r in (2, 4)
        for rate in (1e-4, 1e-3)
    }
    found = scores(base=(0.3, 0.5), r4_0_001__step50=(0.45, 0.45), **names)
    for name, plot in {
        "tradeoff": tradeoff(found),
        "rate": along(found, "learning_rate"),
        "grid": heat_map(found),
    }.items():
        png, pdf = save(plot, workplace / name)
        assert pdf.read_bytes().startswith(b"%PDF") and Image.open(png).width > 400
    axes = along(found, "learning_rate").axes[0]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "learning rate"
    legend = along(found, "learning_rate").axes[1].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["base model", "rank 2", "rank 4"]
    assert len(heat_map(found).axes[0].texts) == 4
    with pytest.raises(ValueError, match="must differ in 'prior_loss_weight' alone"):
        along(found, "prior_loss_weight")


def test_the_drift_table_pairs_prompts_with_and_without_the_rare_word(workplace: Path) -> None:
    trained(workplace / "experiments/one")
    prompts = {"street": "portrait of sks woman, on the street"}
    bare = prompts_without(PromptSet(prompts)).prompts
    assert bare == {"street_class": "portrait of woman, on the street"}
    for name in ("base", "one"):
        images(workplace / f"results/{name}", prompts | bare | {"other": "a castle"})
    made = drift_table(["base", "one"])
    assert [heading.title for heading in made.columns] == ["street", "street_class"]
    assert [len(cell.images) for row in made.cells for cell in row] == [1] * 4
    images(workplace / "results/two", prompts)
    with pytest.raises(ValueError, match="with and without the rare word"):
        drift_table(["two"])


def test_the_nearest_photos_stand_under_their_images(workplace: Path) -> None:
    rows = tuple(
        {"file": f"p_img{n}.png", "prompt_name": "p", "nearest": f"{n}.png", "nearest photo": n / 10}
        for n in (1, 2)
    )
    images(workplace / "results/one", {"p": "sks woman"})
    (workplace / "photos").mkdir()
    for n in (1, 2):
        world.draw(world.sample(n), 64).save(workplace / f"photos/{n}.png")
    Tally("one", {}, rows, photos={"folder": "photos"}).save("results/one/scores.json")
    sheet = nearest_photos("one")
    assert [heading.title for heading in sheet.columns] == ["0.20", "0.10"]
    assert [cell.images[0].name for cell in sheet.cells[1]] == ["2.png", "1.png"]
    with pytest.raises(FileNotFoundError, match="sdlab score two"):
        nearest_photos("two")


def test_choices_are_kept_and_counted_and_compared_with_scores(workplace: Path) -> None:
    for name in ("one", "two"):
        images(workplace / f"results/{name}", {"p": "sks woman", "q": "sks woman in the desert"})
        rows = tuple(
            {"file": f"{p}_img{n}.png", "CLIP-I": 0.5 + (name == "two")} for p in "pq" for n in (1, 2)
        )
        Tally(name, {}, rows).save(f"results/{name}/scores.json")
    comparison = Comparison(["one", "two"])
    assert len(comparison.pairs) == 4 and comparison.win_rates() == {}
    assert comparison.agreement() is None
    answers = ["two", "two", "equal", "one"]
    for answer in answers:
        pair = comparison.next()
        assert (
            pair is not None and pair.left.prompt == pair.right.prompt and pair.left.seed == pair.right.seed
        )
        side = "left" if pair.left.experiment == answer else "right"
        comparison.record(pair, "equal" if answer == "equal" else side)
    again = Comparison(["one", "two"])  # as after a restart of the notebook
    assert again.next() is None and len(again.choices()) == 4
    rates = again.win_rates()
    assert list(rates) == ["two", "one"] and rates["two"][0] == 2.5 / 4 and rates["one"][0] == 1.5 / 4
    assert rates["two"][1] < 2.5 / 4 < rates["two"][2]
    agreement = again.agreement()
    assert agreement is not None and agreement[0] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="no images of the same prompt"):
        Comparison(["one", "three"])


def test_the_buttons_record_what_was_shown_and_name_nobody(workplace: Path) -> None:
    pytest.importorskip("ipywidgets")
    for name in ("one", "two"):
        images(workplace / f"results/{name}", {"p": "sks woman"})
    comparison = Comparison(["one", "two"])
    text, pictures, buttons = comparison.widget().children
    assert "0 of 2 decided" in text.value and "one" not in text.value.split()
    before = pictures.children[0].value
    buttons.children[0].click()
    assert comparison.choices()[0]["choice"] == "left"
    assert "1 of 2 decided" in text.value and pictures.children[0].value != before
    buttons.children[1].click()
    assert all(button.disabled for button in buttons.children)
