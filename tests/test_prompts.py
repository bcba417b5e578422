from __future__ import annotations

from pathlib import Path

import pytest

from sdlab.prompts import HOMEWORK_A, HOMEWORK_B, PromptSet


def test_subject_is_filled_in() -> None:
    filled = HOMEWORK_A.fill("sks woman")
    assert list(filled.prompts) == ["street", "desert", "forest", "kitchen", "moon"]
    assert all("sks woman" in prompt and "{" not in prompt for prompt in filled.prompts.values())


def test_homework_b_is_as_handed_in() -> None:
    # From the report of homework B: the lengths were counted there, the first letter of "сamels" is Cyrillic.
    assert [len(prompt) for prompt in HOMEWORK_B.prompts.values()] == [159, 200, 241, 150, 101]
    assert "\N{CYRILLIC SMALL LETTER ES}amels" in HOMEWORK_B.prompts["prompt2"]
    assert "sharp focus,  beautiful eyes" in HOMEWORK_B.prompts["prompt1"]


def test_saved_prompts_load_as_they_were(tmp_path: Path) -> None:
    saved = PromptSet(HOMEWORK_B.prompts, negative_prompt="blurry")
    assert PromptSet.load(saved.save(tmp_path / "prompts.json")) == saved


def test_plain_names_to_prompts_load(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"street": "a photo"}')
    assert PromptSet.load(tmp_path / "p.json").prompts == {"street": "a photo"}


@pytest.mark.parametrize("text", ["street: a photo", '{"prompts": ["a photo"]}', '{"street": 3}'])
def test_a_file_that_is_no_prompt_set_says_what_one_looks_like(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=r"p\.json isn't a prompt set.*Expected \{"):
        PromptSet.load(tmp_path / "p.json")


@pytest.mark.parametrize(
    "name", ["", "../up", "a/b", ".hidden", "-flag", "con", "COM1.png", "dot.", "two words", "x" * 101]
)
def test_a_name_that_cannot_be_a_file_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="becomes a file name"):
        PromptSet({name: "a photo"})


@pytest.mark.parametrize("name", ["prompt1", "улица", "exp1.1", "lora_rank4_lr2e-4"])
def test_ordinary_names_are_taken(name: str) -> None:
    assert name in PromptSet({name: "a photo"}).prompts


def test_the_first_prompts_keep_order_and_negative_prompt() -> None:
    some = PromptSet({"a": "one", "b": "two", "c": "three"}, "blurry").first(2)
    assert list(some.prompts) == ["a", "b"] and some.negative_prompt == "blurry"
    assert some.first(9) == some
