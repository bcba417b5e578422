"""Words: both languages say the same things."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

import sdlab.words as words
from sdlab.photos.doctor import KINDS
from sdlab.scores import MEASURES
from sdlab.words import LANGUAGES, Words

PACKAGE = Path(words.__file__).parent.parent


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("key", sorted(words.texts()))
def test_a_text_is_there_in_all_languages_with_the_same_placeholders(key: str) -> None:
    text = words.texts()[key]
    assert set(text) == set(LANGUAGES) and all(text[language] for language in LANGUAGES)
    assert placeholders(text["en"]) == placeholders(text["ru"])
    assert not re.search("[а-яё]", text["en"])


def said(node: ast.AST) -> str | None:
    """The key of a call such as `say("title")` or `self.say("title")`."""
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return None
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    words_called = isinstance(node.func, ast.Call) and getattr(node.func.func, "id", "") == "Words"
    return str(node.args[0].value) if function in ("say", "words") or words_called else None


def test_every_text_that_tables_and_reports_say_is_there() -> None:
    files = [*PACKAGE.glob("tables/*.py"), *PACKAGE.glob("reports/*.py")]
    keys = {
        key for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))) if (key := said(node))
    }
    template = (PACKAGE / "templates/conclusion.txt").read_text("utf-8")
    keys |= set(re.findall(r'"(c_\w*[a-z]|\w+_measured)"', template))
    template = (PACKAGE / "templates/report.md").read_text("utf-8")
    keys |= set(re.findall(r'\b(?:say|words|heading|experiments)\("(\w*[a-z])"', template))
    assert len(keys) > 60
    assert keys <= set(words.texts())


def test_what_other_stages_say_in_english_has_a_russian_name() -> None:
    stages = {*KINDS, *KINDS.values(), *MEASURES.values()}
    assert stages <= set(words.names())
    assert Words("ru").name("experiment") == "эксперимент" and Words("en").name("experiment") == "experiment"
    assert Words("ru").name("learning_rate") == "learning_rate"  # a flag is a flag


def test_numbers_are_written_as_the_language_has_them() -> None:
    assert Words("en").count(6341288) == "6,341,288"
    assert Words("ru").count(6341288) == "6 341 288"
    with pytest.raises(ValueError, match=r"one of en, ru, got 'de'"):
        Words("de")
