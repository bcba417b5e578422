"""Prompt sets: names to prompts, with a negative prompt; loaded, saved, and filled with the subject."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sdlab.files import write_json

_FILE_NAME = re.compile(r"[^\W_][\w.+-]{0,99}")
# Windows opens a device, not a file, under these names, whatever their ending.
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}


def check_file_name(name: str, what: str) -> str:
    """Returns a name that can be a file's or folder's name on every system, or says why it can't.

    Args:
        name: The name to check.
        what: What bears the name, for the message, such as "prompt".

    Returns:
        The name, unchanged.

    Raises:
        ValueError: The name has other characters than letters, digits and `_ . + -`, or ends with a dot.
    """
    good = (
        _FILE_NAME.fullmatch(name)
        and not name.endswith(".")
        and name.split(".")[0].lower() not in _WINDOWS_DEVICES
    )
    if not good:
        raise ValueError(
            f"The name of a {what} becomes a file name: it starts with a letter or digit and goes on with "
            f"letters, digits and _ . + - (at most 100), got {name!r}. Try {_suggestion(name)!r}."
        )
    return name


def _suggestion(name: str) -> str:
    words = re.sub(r"[^\w.+-]+", "_", name).strip("_.+-")[:100]
    return words if words and words.split(".")[0].lower() not in _WINDOWS_DEVICES else "prompt1"


@dataclass(frozen=True)
class PromptSet:
    """Names to prompts, with one negative prompt for all of them.

    Args:
        prompts: Name to prompt, in the order of the table's columns. A prompt may hold `{subject}`.
        negative_prompt: What no image shall show.

    Raises:
        ValueError: There is no prompt, a name can't be a file name, or a prompt is empty.
    """

    prompts: dict[str, str] = field(default_factory=dict)
    negative_prompt: str = ""

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

    def fill(self, subject: str) -> PromptSet:
        """Puts the subject into each prompt's `{subject}`.

        Args:
            subject: Such as `sks woman`.

        Returns:
            A prompt set; prompts without `{subject}` are as before.
        """
        return PromptSet(
            {name: p.replace("{subject}", subject) for name, p in self.prompts.items()}, self.negative_prompt
        )

    def first(self, count: int) -> PromptSet:
        """Takes the first prompts only, for a look that shall not take long.

        Args:
            count: How many, at least 1.

        Returns:
            A prompt set; of fewer prompts than `count`, all.
        """
        return PromptSet(dict(list(self.prompts.items())[:count]), self.negative_prompt)

    def save(self, path: str | Path) -> Path:
        """Writes the prompt set as JSON.

        Args:
            path: The file.

        Returns:
            The path.
        """
        return write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> PromptSet:
        """Reads a prompt set that `save` wrote, or a plain JSON object of names to prompts.

        Args:
            path: The file.

        Returns:
            The prompt set.

        Raises:
            ValueError: The file isn't JSON, or isn't names to prompts.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path} isn't a prompt set: it isn't JSON ({error}). Expected {_EXAMPLE}"
            ) from error
        value = value if isinstance(value, dict) and "prompts" in value else {"prompts": value}
        prompts, negative = value["prompts"], value.get("negative_prompt", "")
        if not isinstance(prompts, dict) or not all(
            isinstance(text, str) for text in [*prompts.values(), negative]
        ):
            raise ValueError(
                f"{path} isn't a prompt set: prompts must be names to texts. Expected {_EXAMPLE}"
            )
        return cls(prompts, negative)


_EXAMPLE = '{"prompts": {"street": "a photo of sks woman on the street"}, "negative_prompt": ""}'

HOMEWORK_A = PromptSet(
    {
        "street": "portrait of {subject}, on the street, midnight, lights, NY, sharp focus, high quality",
        "desert": "portrait of {subject}, in the desert, sun, pyramids, Egypt, sharp focus, high quality",
        "forest": "portrait of {subject}, in the forest, trees, nature, sharp focus, high quality",
        "kitchen": "portrait of {subject}, in the kitchen, cooking, home, sharp focus, high quality",
        "moon": "portrait of {subject}, on the moon, space, stars, earth, sharp focus, high quality",
    }
)

# Letter for letter as handed in: two spaces in some places, and a Cyrillic first letter in "сamels".
HOMEWORK_B = PromptSet(
    {
        "prompt1": "portrait of sks woman face, on the street, lights, midnight, NY, standing, "
        "4K, raw, hrd, hd, high quality, realism, sharp focus,  beautiful eyes, detailed eyes",
        "prompt2": "portrait of sks woman face, in the desert, wearing a dress, sun, pyramids, сamels, "
        "Egypt, standing, standing alone, "
        "4K, raw, hrd, hd, high quality, realism, sharp focus,  beautiful eyes, detailed eyes",
        "prompt3": "portrait of sks woman face, in the game of thrones, wearing a dress, holding a knife, "
        "standing aside, dragons nearby, lord jojn snow holding hands with her, "
        "4K, raw, hrd, hd, high quality, realism, sharp focus,  beautiful eyes, detailed eyes",
        "prompt4": "portrait of sks woman face, cinderella, in the princess castle with rainbow, "
        "full height, crying, cartoon, 4K, raw, hrd, hd, high quality, sharp focus",
        "prompt5": "a face of sks woman, astronaut, moon, space, full height, "
        "4K, raw, hrd, hd, high quality, sharp focus",
    }
)
