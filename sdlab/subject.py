"""Who or what is learned: its rare word, its class, and the kind of thing that it is."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["person", "animal", "thing", "style"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_WORDS = {
    kind: set(words.split())
    for kind, words in tomllib.loads(Path(__file__).with_name("kinds.toml").read_text("utf-8")).items()
}
_ARTICLES = {"a", "an", "the", "my", "one"}
# The class ends before the scene begins: "sks woman face, on the street", "sks dog in the snow".
_SCENE = re.compile(r"[,.;:(]| (?:in|on|at|with|wearing|standing|sitting|by|near|under|and|from|against) ")

# "in sks van gogh style", but not "in the snow, comic style"
_STYLE = re.compile(r"\bin (?:the style of (\S+)|(?!(?:a|an|the|my) )([^\s,.]+) ((?:[^\s,.]+ )*style)\b)")


@dataclass(frozen=True)
class Subject:
    """Whom or what the photos show, and what it is called in prompts.

    Args:
        rare_word: The word that stands for it alone, such as `sks`; empty where a prompt has none.
        class_noun: What it is one of: `woman`, `dog`, `robot toy`.
        kind: `person`, `animal`, `thing` or `style`; empty infers it from the class.
        name: What tables and reports call it; empty takes rare word and class.

    Raises:
        ValueError: There is no class, or no such kind.

    Source:
        Ruiz et al. 2022, "DreamBooth", arXiv:2208.12242, section 3.2: "a [identifier] [class noun]".
    """

    rare_word: str = "sks"
    class_noun: str = "woman"
    kind: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if not self.class_noun.strip():
            raise ValueError(
                f"A subject needs a class noun, got {self.class_noun!r}. Name it as in 'sks dog'."
            )
        if self.kind not in ("", *KINDS):
            raise ValueError(
                f"The kind of a subject is one of {', '.join(KINDS)}, got {self.kind!r}. "
                "Leave it out, and it is inferred from the class."
            )
        object.__setattr__(self, "kind", self.kind or _kind_of(self.class_noun))
        object.__setattr__(self, "name", self.name or self.phrase)

    @classmethod
    def parse(cls, phrase: str | Subject, kind: str = "") -> Subject:
        """Reads `sks dog`: a rare word, then the class; a class alone (`dog`) has no rare word.

        What is a subject already stays as it is.

        Raises:
            ValueError: There is no class.
        """
        if isinstance(phrase, Subject):
            return phrase
        words = phrase.split()
        if words and words[0].lower() in _ARTICLES | {"photo", "portrait", "picture"}:  # an instance prompt
            return replace(cls.of(phrase), kind=kind) if kind else cls.of(phrase)
        if words and _kind_of(words[0]) != "thing":
            return cls("", _class_of(words), kind)
        if len(words) < 2:
            raise ValueError(
                f"A subject is a rare word and its class, such as 'sks woman' or 'sks dog', got {phrase!r}."
            )
        return cls(words[0], _class_of(words[1:]), kind or _kind_of(phrase))

    @classmethod
    def of(cls, instance_prompt: str, class_prompt: str | None = None) -> Subject:
        """Reads the subject back from the prompts of a training.

        The rare word is what the instance prompt has and the class prompt has not; without a class prompt the
        paper's pattern `a photo of [rare word] [class]` tells it.
        """
        if style := _STYLE.search(instance_prompt):
            return cls((style[1] or style[2]).strip(",."), style[3] or "style", "style")
        words, of_class = _named(instance_prompt), _named(class_prompt or "")
        before_class = [
            n for n, (word, then) in enumerate(pairwise(words)) if word not in of_class and then in of_class
        ]
        if before_class:
            start, stop = before_class[0], before_class[0] + 1
        elif set(words) <= set(of_class):  # without a rare word
            start, stop = 0, 0
        else:
            start, stop = 0, int(_kind_of(words[0]) == "thing" and len(words) + len(of_class) > 1)
        noun = words[stop:] or of_class
        return cls(" ".join(words[start:stop]), _class_of(noun) or "thing", _kind_of(" ".join(noun)))

    @property
    def phrase(self) -> str:
        """Its name in prompts: `sks dog`."""
        return f"{self.rare_word} {self.class_noun}".strip()

    @property
    def portrait(self) -> str:
        """Its name where a picture is all about it: `sks woman face` for a person, else `sks dog`."""
        if self.kind != "person" or self.class_noun.endswith("face") or _SCENE.search(self.class_noun):
            return self.phrase
        return f"{self.phrase} face"

    @property
    def instance_prompt(self) -> str:
        """What its photos are called in training: `a photo of sks woman face`."""
        return self._prompt(self.portrait)

    @property
    def class_prompt(self) -> str:
        """The same without the rare word: `a photo of woman face`."""
        return self._prompt(replace(self, rare_word="", name="").portrait)

    def _prompt(self, what: str) -> str:
        if self.kind != "style":
            return f"a photo of {what}"
        if what == "style":
            return "a picture"
        return f"a picture in {what.removesuffix(' style')} style"


def _kind_of(class_noun: str) -> str:
    words = _SCENE.split(class_noun)[0].lower().replace("-", " ").split()
    if not words or _WORDS["made"].intersection(words):
        return "thing"
    return next((kind for kind in ("person", "animal", "style") if words[-1] in _WORDS[kind]), "thing")


def _named(prompt: str) -> list[str]:
    """The words of a prompt that name what it shows: `sks dog` of `a photo of a sks dog in the snow`."""
    words = _SCENE.split(prompt)[0].split()
    words = words[words.index("of") + 1 :] if "of" in words else words
    return words[next((n for n, word in enumerate(words) if word.lower() not in _ARTICLES), 0) :]


def _class_of(words: list[str]) -> str:
    """The class noun among the words after the rare word; `woman face` is a woman."""
    noun = " ".join(words)
    return noun.removesuffix(" face") if _kind_of(noun) == "person" else noun
