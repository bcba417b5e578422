from __future__ import annotations

import re
from pathlib import Path

import pytest

from sdlab.prompts import HOMEWORK_A, HOMEWORK_B, PROMPT_SETS, PromptSet, prompt_set

ROOT = Path(__file__).parent.parent
PAPER = [
    folder / "shared/data/dreambooth/prompts_and_classes.txt" for folder in (ROOT.parent, ROOT.parent.parent)
]


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


def test_every_homework_follows_the_subject() -> None:
    dog = HOMEWORK_B.fill("sks dog")
    assert dog.prompts["prompt1"].startswith("portrait of sks dog, on the street")
    assert not any("woman" in prompt or "face of sks dog face" in prompt for prompt in dog.prompts.values())
    man = dog.fill("ohwx man")  # filled once more, with somebody else
    assert man.prompts["prompt1"].startswith("portrait of ohwx man, on")
    assert HOMEWORK_B.fill("ohwx man").prompts["prompt1"].startswith("portrait of ohwx man face, on")
    assert HOMEWORK_B.fill("sks woman").prompts == HOMEWORK_B.prompts
    assert HOMEWORK_A.fill("woman").prompts["moon"].startswith("portrait of woman, on the moon")


def test_the_papers_prompts_are_there() -> None:
    paper = next((p for p in PAPER if p.is_file()), None)
    if paper is None:
        pytest.skip("the paper's data set isn't here")
    objects, live = paper.read_text().split("Object Prompts")[1].split("Live Subject Prompts")
    for name, text in {"paper_objects": objects, "paper_live": live}.items():
        written = re.findall(r"'(.+?)'\.format", text)
        assert len(written) == 25
        expected = [line.format("sks", "dog") for line in written]
        assert list(PROMPT_SETS[name].fill("sks dog").prompts.values()) == expected


@pytest.mark.parametrize(
    ("subject", "first"), [("sks woman", "street"), ("sks dog", "jungle"), ("sks teapot", "jungle")]
)
def test_the_subject_decides_the_prompt_set(subject: str, first: str) -> None:
    assert next(iter(prompt_set(None, subject).prompts)) == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"street": "a", "street": "b"}', "'street' stands there twice"),
        ('{"prompts": {"a": "b"}, "negativ_prompt": "c"}', "'negativ_prompt' is none of prompts, neg"),
        ('{"prompts": {"a": "b", "negative prompt": "c"}}', "write negative_prompt beside them"),
        ('{"prompts": {"a": "b", "negative_prompt": "c"}}', "write negative_prompt beside them"),
        ('["a photo"]', "must be names to texts"),
    ],
)
def test_nothing_in_a_prompts_file_is_dropped(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        PromptSet.load(tmp_path / "p.json")


def test_a_negative_prompt_among_names_and_prompts_is_one(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"street": "a photo", "negative_prompt": "blurry"}')
    assert PromptSet.load(tmp_path / "p.json") == PromptSet({"street": "a photo"}, "blurry")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_windows_editors_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "p.json").write_bytes('{\r\n"улица": "a photo"\r\n}'.encode(encoding))
    assert PromptSet.load(tmp_path / "p.json").prompts == {"улица": "a photo"}


def test_a_file_in_an_unknown_encoding_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes('{"улица": "a photo"}'.encode("cp1251"))
    with pytest.raises(ValueError, match=r"p\.json isn't text in UTF-8\. Save it as UTF-8"):
        PromptSet.load(tmp_path / "p.json")


def test_what_another_program_would_read_is_named() -> None:
    said = PromptSet({"a": "(sks woman:1.4), moon <lora:add:0.8>", "b": "a woman (smiling)"}).ignored()
    assert len(said) == 1 and "'a': (sks woman:1.4), <lora:add:0.8> has no effect" in said[0]


@pytest.mark.parametrize("name", ["con", "my model", "...", "-", "x" * 300, "ü/ö", "aux.v1"])
def test_the_name_that_is_suggested_is_allowed(name: str) -> None:
    with pytest.raises(ValueError, match="Try '") as refused:
        PromptSet({name: "a photo"})
    PromptSet({str(refused.value).rsplit("Try '", 1)[1][:-2]: "a photo"})
