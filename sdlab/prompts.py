"""Prompt sets: names to prompts, with a negative prompt; loaded, saved, and filled with the subject."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from sdlab.files import read_text, write_json
from sdlab.subject import Subject

_FILE_NAME = re.compile(r"[^\W_][\w.+-]{0,99}")
# Windows opens a device, not a file, under these names, whatever their ending.
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}
_EXAMPLE = '{"prompts": {"street": "a photo of sks woman on the street"}, "negative_prompt": ""}'
_KEYS = ("prompts", "negative_prompt", "subject")


def check_file_name(name: str, what: str) -> str:
    """Returns a name that can be a file's name on every system; raises ValueError with one that can, else."""
    words = re.sub(r"[^\w.+-]+", "_", name).strip("_.+-")[:100].rstrip("_.+-")
    free = next(one for one in (name, words, f"my_{words[:90].rstrip('.') or what}") if _is_file_name(one))
    if free != name:
        raise ValueError(
            f"The {what}'s name becomes a file name: it starts with a letter or digit and goes on with "
            f"letters, digits and _ . + - (at most 100), got {name!r}. Try {free!r}."
        )
    return name


def _is_file_name(name: str) -> bool:
    device = name.split(".")[0].lower() in _WINDOWS_DEVICES
    return bool(_FILE_NAME.fullmatch(name)) and not name.endswith(".") and not device


@dataclass(frozen=True)
class PromptSet:
    """Names to prompts, with one negative prompt for all of them.

    Args:
        prompts: Name to prompt, in the order of the table's columns. A prompt may hold `{subject}`.
        negative_prompt: What no image is to show.
        subject: Whom the prompts name, such as `sks woman`, so that `fill` can put another in its place.

    Raises:
        ValueError: There is no prompt, a name can't be a file name, or a prompt is empty.
    """

    prompts: dict[str, str] = field(default_factory=dict)
    negative_prompt: str = ""
    subject: str = ""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError(
                "A prompt set needs at least one prompt, got none. Write PromptSet({'street': '...'})."
            )
        for name, prompt in self.prompts.items():
            check_file_name(name, "prompt")
            if not prompt.strip():
                raise ValueError(f"The prompt {name!r} is empty. Describe the image, or leave the name out.")
        object.__setattr__(self, "prompts", dict(self.prompts))

    def fill(self, subject: str | Subject) -> PromptSet:
        """Puts the subject into each prompt: in place of `{subject}`, or of the one that was there.

        Args:
            subject: Such as `sks woman` or `sks dog`.

        Returns:
            A prompt set; prompts that name no subject are as before.

        Raises:
            ValueError: The subject has no class.
        """
        new = Subject.parse(subject)
        before = rf"\b{re.escape(self.subject)}( face)?\b" if self.subject else r"(?!)"
        filled = {
            name: re.sub(before, lambda found: new.portrait if found[1] else new.phrase, prompt)
            .replace("{subject}", new.phrase)
            .replace("{portrait}", new.portrait)
            for name, prompt in self.prompts.items()
        }
        return replace(self, prompts=filled, subject=new.phrase)

    @property
    def names_a_subject(self) -> bool:
        """Whether `fill` changes anything."""
        return bool(self.subject) or any(
            re.search(r"\{(subject|portrait)\}", one) for one in self.prompts.values()
        )

    def first(self, count: int) -> PromptSet:
        """Takes the first `count` prompts, or all where there are fewer."""
        return replace(self, prompts=dict(islice(self.prompts.items(), count)))

    def ignored(self) -> list[str]:
        """Says what another program would read in the prompts, and which are plain words here."""
        found = {
            name: re.findall(r"<(?:lora|lyco|hypernet):[^>]*>|\([^()]*:[\d.]+\)", prompt)
            for name, prompt in self.prompts.items()
        }
        return [
            f"prompt {name!r}: {', '.join(signs)} has no effect here, it is read as plain words. A LoRA is "
            "asked for beside the prompts: sdlab generate mini+FILE@0.7."
            for name, signs in found.items()
            if signs
        ]

    def save(self, path: str | Path) -> Path:
        """Writes the prompt set as JSON, and returns the path."""
        values = asdict(self) if self.subject else {key: getattr(self, key) for key in _KEYS[:2]}
        return write_json(path, values)

    @classmethod
    def load(cls, path: str | Path) -> PromptSet:
        """Reads a prompt set that `save` wrote, or a plain JSON object of names to prompts.

        Raises:
            ValueError: The file isn't JSON, isn't names to prompts, or holds a name twice.
        """
        text = read_text(path)
        try:
            value = json.loads(text, object_pairs_hook=_each_name_once)
            if not isinstance(value, dict):
                raise ValueError("it must be names to texts")
            if "prompts" not in value:  # names to prompts alone, perhaps with the rest among them
                value = {"prompts": value, **{key: value.pop(key) for key in _KEYS[1:] if key in value}}
            _check_texts(**value)
        except ValueError as error:
            reason = f"it isn't JSON ({error})" if isinstance(error, json.JSONDecodeError) else error
            raise ValueError(f"{path} isn't a prompt set: {reason}. Expected {_EXAMPLE}") from error
        return cls(**value)


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(twice)!r} stands there twice")
    return dict(pairs)


def _check_texts(prompts: Any, **rest: Any) -> None:
    if strange := [key for key in rest if key not in _KEYS]:
        raise ValueError(f"{strange[0]!r} is none of {', '.join(_KEYS)}")
    texts = [*prompts.values(), *rest.values()] if isinstance(prompts, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("prompts must be names to texts")
    for name in prompts:
        if re.sub(r"[\W_]", "", name.lower()).startswith("negativ"):
            raise ValueError(f"{name!r} stands among the prompts: write negative_prompt beside them")


@cache
def homework_file() -> dict[str, Any]:
    """What homeworks.toml holds."""
    return tomllib.loads(Path(__file__).with_name("homeworks.toml").read_text(encoding="utf-8"))


PROMPT_SETS = {name: PromptSet(**values) for name, values in homework_file()["prompts"].items()}
HOMEWORK_A, HOMEWORK_B = PROMPT_SETS["homework_a"], PROMPT_SETS["homework_b"]


def name_of(prompts: PromptSet) -> str | None:
    """The name of the prompt set that these prompts, or some of them, were filled from; None for others."""
    for name, known in PROMPT_SETS.items():
        patterns = {one: re.escape(text) for one, text in known.prompts.items()}
        for subject in filter(None, (known.subject, "{subject}", "{portrait}")):
            patterns = {one: text.replace(re.escape(subject), ".+") for one, text in patterns.items()}
        if all(re.fullmatch(patterns.get(one, "(?!)"), text) for one, text in prompts.prompts.items()):
            return name
    return None


def prompt_set(name_or_path: str | Path | None, subject: str | Subject | None = None) -> PromptSet:
    """A prompt set by its name or file, filled with the subject.

    Args:
        name_or_path: A key of `PROMPT_SETS` or a JSON file; None takes what suits the subject: homework A's
            prompts, or the DreamBooth paper's for animals and things.
        subject: Whom the prompts are about; None leaves them as they are.

    Raises:
        ValueError: There is no such set or file.
    """
    who = Subject.parse(subject) if subject is not None else None
    by_kind = {"animal": "paper_live", "thing": "paper_objects"}
    name = str(name_or_path or by_kind.get(who.kind if who else "", "homework_a"))
    path = Path(name).expanduser()
    if name not in PROMPT_SETS and not path.is_file():
        raise ValueError(f"prompts must be {', '.join(PROMPT_SETS)} or a JSON file, got {name!r}.")
    found = PROMPT_SETS[name] if name in PROMPT_SETS else PromptSet.load(path)
    return found.fill(who) if who else found
