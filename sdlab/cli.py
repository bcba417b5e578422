"""`sdlab`: one subcommand per stage, each the function of the same name."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sdlab import commands

OVERVIEW = """\
sdlab teaches Stable Diffusion one person from about twenty photos, and compares the ways to do it.

usage: sdlab COMMAND [OPTIONS]        sdlab COMMAND --help lists the options; METHOD is dreambooth or lora

  the whole homework on the embedded mini model, in minutes, without a GPU:
{demo}
  the stages, each going on from what the one before left on disk:
{stages}
  about this machine, and what outlives it:
{others}
"""
# diffusers' flags that a pasted command may hold and that need no setting here.
IGNORED = {
    "center_crop": "`sdlab prepare` crops the photos",
    "dataloader_num_workers": "the data is in memory",
    "enable_xformers_memory_efficient_attention": "torch's own attention saves as much memory",
    "image_interpolation_mode": "`sdlab prepare` scales the photos",
    "local_rank": "the launcher sets it",
    "logging_dir": "the log is experiments/<name>/log.jsonl",
    "pre_compute_text_embeddings": "a frozen text encoder's prompts are always encoded once",
    "prior_generation_precision": "the machine decides it",
    "sample_batch_size": "the profile sets it",
    "set_grads_to_none": "it is always so",
}
# diffusers' flags that mean something else here, with the way to have it.
INSTEAD = {
    "class_labels_conditioning": "Stable Diffusion 1.5 has no class labels.",
    "hub_model_id": "Train, `sdlab export`, and upload the folder with the hub's own tool.",
    "hub_token": "Train, `sdlab export`, and upload the folder with the hub's own tool.",
    "num_train_epochs": "Give --max_train_steps: epochs × images / batch.",
    "offset_noise": "Give --noise_offset 0.1, which is the same.",
    "push_to_hub": "Train, `sdlab export`, and upload the folder with the hub's own tool.",
    "revision": "Download that revision and give its folder as --pretrained_model_name_or_path.",
    "scale_lr": "Give the --learning_rate that you want: rate × batch × accumulation.",
    "skip_save_text_encoder": "A text encoder that isn't trained is saved too, so that the model is whole.",
    "text_encoder_use_attention_mask": "Stable Diffusion 1.5's text encoder has none.",
    "tokenizer_max_length": "Stable Diffusion 1.5 reads 77 tokens.",
    "tokenizer_name": "The base model's own tokenizer is used.",
    "validation_images": "It belongs to another architecture; --validation_prompt makes images.",
    "validation_scheduler": "Validation images are made with the sampler of `sdlab generate`.",
    "variant": "Give the folder of the variant as --pretrained_model_name_or_path.",
}


class UsageError(ValueError):
    """A command line that can't be understood; the message names what and the way out."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes those of the process.

    Raises:
        SystemExit: 0 when all went well, 1 when the work failed, 2 when the command can't be understood,
            130 when it was interrupted.
    """
    # what transformers and bitsandbytes say on import is about parts that aren't used here
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    words = list(sys.argv[1:] if arguments is None else arguments)
    understood = False
    try:
        run = parse(words)
        understood = True
        if run is not None:
            run()
    except KeyboardInterrupt as stop:
        _fail(str(stop) or "interrupted; the same command goes on from there", 130)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("SDLAB_DEBUG"):
            raise
        _fail(str(error) or type(error).__name__, 1 if understood else 2)


def parse(words: list[str]) -> Callable[[], None] | None:
    """Understand a command line without doing anything yet.

    Args:
        words: the command line without the program's name.

    Returns:
        What to run; None after help was printed.

    Raises:
        UsageError: an unknown command or option; the message names the nearest.
        ValueError: a value that breaks its rule.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return None
    if words[0] in ("--version", "version"):
        from sdlab import __version__

        print(f"sdlab {__version__}")
        return None
    name, rest = _command(words)
    if name in commands.TRAINING:
        return _parse_training(name, rest)
    bound, strange = _tyro(commands.COMMANDS[name], name, rest)
    _refuse(strange, name, commands.COMMANDS[name])
    return bound


def _command(words: list[str]) -> tuple[str, list[str]]:
    """The command's name of one or two words, and the words after it."""
    known = [*commands.COMMANDS, *commands.TRAINING]
    for length in (2, 1):
        if (name := " ".join(words[:length])) in known:
            return name, words[length:]
    given = " ".join(word for word in words[:2] if not word.startswith("-")) or words[0]
    below = [name for name in known if name.startswith(words[0] + " ")]
    if below:
        choices = " or ".join(f"`sdlab {name}`" for name in below)
        if any(word in ("-h", "--help") for word in words[1:2]):
            raise UsageError(f"say which: {choices}, then --help.")
        raise UsageError(f"`sdlab {given}` is not a command. Write {choices}.")
    near = difflib.get_close_matches(given, known, 1, 0.4) or difflib.get_close_matches(
        words[0], known, 1, 0.4
    )
    hint = f"Did you mean `sdlab {near[0]}`? " if near else ""
    raise UsageError(f"unknown command {words[0]!r}. {hint}`sdlab --help` lists all.")


def _parse_training(name: str, words: list[str]) -> Callable[[], None]:
    """`train` and `sweep`: diffusers' flags, whose defaults are those of the base model's profile."""
    method = name.split()[1]
    if words and not words[0].startswith("-"):
        words = ["--name" if name.startswith("train") else "--prefix", *words]
    base = _value_of("pretrained_model_name_or_path", words) or "mini"
    root = _value_of("root", words) or "experiments"
    defaults = commands.defaults(method, base, root, _value_of("profile", words) or "auto")
    function = commands.TRAINING[name]
    command = commands.with_hyperparameters(function, defaults)
    bound, strange = _tyro(command, name, words)
    _refuse(_leave_out_ignored(strange), name, function, list(vars(defaults)))
    given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in words if word.startswith("--")}
    commands.say_what_the_profile_sets(defaults, {flag.removeprefix("no_") for flag in given})
    return bound


def _tyro(command: Callable[..., None], name: str, words: list[str]) -> tuple[Callable[[], None], list[str]]:
    """The command with its options filled in, and the words that it has no use for."""
    import tyro

    taken: dict[str, Any] = {}

    def keep(**values: Any) -> None:
        taken.update(values)

    keep.__doc__ = command.__doc__
    keep.__signature__ = inspect.signature(command, eval_str=True)  # type: ignore[attr-defined]
    keep.__annotations__ = inspect.get_annotations(command, eval_str=True)
    _, strange = tyro.cli(
        keep, prog=f"sdlab {name}", args=words, use_underscores=True, return_unknown_args=True
    )
    return lambda: command(**taken), strange


def _refuse(strange: list[str], name: str, command: Callable[..., None], more: Sequence[str] = ()) -> None:
    """Names the nearest option to one that there isn't."""
    if not strange:
        return
    word = next((word for word in strange if word.startswith("-")), strange[0])
    if not word.startswith("-"):
        raise UsageError(f"`sdlab {name}` doesn't know what to do with {word!r}. See `sdlab {name} --help`.")
    flag = word.split("=")[0].lstrip("-").replace("-", "_")
    if more and flag in INSTEAD:
        raise UsageError(f"`sdlab {name}` has no option --{flag}. {INSTEAD[flag]}")
    known = [*inspect.signature(command).parameters, *more]
    near = difflib.get_close_matches(flag, known, 1, 0.5)
    hint = f"Did you mean --{near[0]}? " if near else ""
    raise UsageError(f"`sdlab {name}` has no option --{flag}. {hint}`sdlab {name} --help` lists all.")


def _leave_out_ignored(strange: list[str]) -> list[str]:
    """Drops diffusers' flags that need no setting here, with their values, and says so."""
    left: list[str] = []
    passing = False
    for word in strange:
        if word.startswith("--"):
            flag = word[2:].split("=")[0].replace("-", "_")
            passing = flag in IGNORED
            if passing:
                print(f"--{flag} is ignored: {IGNORED[flag]}", file=sys.stderr)
        if not passing:
            left.append(word)
    return left


def _value_of(flag: str, words: list[str]) -> str | None:
    """The value of an option before the command line is read as a whole."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name[2:].replace("-", "_") == flag:
            return value if equals else next(iter(words[index + 1 : index + 2]), None)
    return None


def _overview() -> str:
    """The commands by what they are for; those that take a method stand in one line."""
    described = {name.split()[0] + " METHOD": function for name, function in commands.TRAINING.items()}
    described |= commands.COMMANDS
    ahead = ("demo", "prepare", "class-images")
    about = ("environment", "sync")

    def lines(names: Iterable[str]) -> str:
        rows = [(name, (described[name].__doc__ or "").strip().splitlines()[0]) for name in names]
        return "".join(f"    sdlab {name:<17} {text}\n" for name, text in rows)

    stages = [*ahead[1:], *(name for name in described if name not in ahead + about)]
    return OVERVIEW.format(demo=lines(ahead[:1]), stages=lines(stages), others=lines(about)).rstrip()


def _fail(message: str, code: int) -> None:
    print(f"sdlab: {message}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    sys.argv[0] = str(Path(sys.argv[0]).with_name("sdlab"))
    main()
