"""The words of tables and reports, English and Russian side by side in words.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES = ("en", "ru")


@dataclass(frozen=True)
class Words:
    """Texts and names in one language, "en" or "ru"."""

    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {self.language!r}.")

    def __call__(self, key: str, **values: Any) -> str:
        """A text of words.toml, its placeholders filled in."""
        return str(texts()[key][self.language]).format(**values)

    def listed(self, texts: Sequence[str]) -> str:
        """`one`, `one and two`, `one, two and three`."""
        return "".join(texts) if len(texts) < 2 else self("and", some=", ".join(texts[:-1]), last=texts[-1])

    def count(self, value: float) -> str:
        """A whole number with its thousands apart."""
        return f"{value:,.0f}".replace(",", self("thousands"))

    def name(self, english: str) -> str:
        """A name such as a column's; one that has no translation is the same in all languages."""
        return english if self.language == "en" else names().get(english, english)


def texts() -> dict[str, dict[str, str]]:
    """Key to language to text."""
    return dict(_content()["texts"])


def names() -> dict[str, str]:
    """English to Russian name."""
    return dict(_content()["names"])


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(files("sdlab.words").joinpath("words.toml").read_text(encoding="utf-8"))
