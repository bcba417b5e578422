"""`sdlab`: reads a command line, and names the nearest where it doesn't understand."""

from __future__ import annotations

import difflib
import errno
import inspect
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from sdlab.commands import COMMANDS, TRAINING, Command, imported, option_of
from sdlab.config import METHODS, DreamBooth, LoRA

OVERVIEW = """\
sdlab teaches Stable Diffusion one subject from about twenty photos, and compares the ways to do it.

usage: sdlab COMMAND [OPTIONS]        sdlab COMMAND --help lists the options; METHOD is dreambooth or lora

  the whole homework on the embedded mini model, in minutes, without a GPU:
{demo}
  the stages, each going on from what the one before left on disk:
{stages}
  about this machine and the homework, and what outlives them:
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

WAYS_OUT = {
    errno.EACCES: "Change its permissions, or choose a folder of your own.",
    errno.EPERM: "Change its permissions, or choose a folder of your own.",
    errno.EROFS: "This disk can only be read: choose a folder on another.",
    errno.ENAMETOOLONG: "Take a shorter name.",
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "A file is where a folder should be: move it, or choose another folder.",
}


class UsageError(ValueError):
    """A command line that can't be understood; the message names what and the way out."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Raises:
        SystemExit: 0 when all went well, 1 when the work failed, 2 when the command can't be understood,
            130 when it was interrupted.
    """
    # what transformers and bitsandbytes say on import is about parts that aren't used here
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):  # a sign that a console lacks must not end the work
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    understood = False
    try:
        run = parse(words)
        understood = True
        if run is not None:
            run()
    except KeyboardInterrupt as stop:
        _fail(str(stop) or "interrupted; the same command goes on from there", 130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(0) from None
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("SDLAB_DEBUG"):
            raise
        _fail(_explained(error), 1 if understood else 2)


def parse(words: list[str]) -> Callable[[], None] | None:
    """Understands a command line without doing anything yet.

    Returns:
        What to run; None after help was printed.

    Raises:
        UsageError: An unknown command or option; the message names the nearest.
        ValueError: A value that breaks its rule.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return None
    if words[0] in ("--version", "version"):
        from sdlab import __version__

        print(f"sdlab {__version__}")
        return None
    name, rest = _command_of(words)
    if name in TRAINING:
        return _parse_training(name, rest)
    bound, strange = _tyro(COMMANDS[name], name, rest)
    _refuse(strange, name, list(COMMANDS[name].options()))
    return bound


def _command_of(words: list[str]) -> tuple[str, list[str]]:
    """The command's name of one or two words, and the words after it."""
    known = [*COMMANDS, *TRAINING]
    for length in (2, 1):
        if (name := " ".join(words[:length])) in known:
            return name, words[length:]
    given = " ".join(word for word in words[:2] if not word.startswith("-")) or words[0]
    if below := [name for name in known if name.startswith(words[0] + " ")]:
        choices = " or ".join(f"`sdlab {name}`" for name in below)
        if words[1:2] in (["-h"], ["--help"]):
            raise UsageError(f"say which: {choices}, then --help.")
        raise UsageError(f"`sdlab {given}` is not a command. Write {choices}.")
    near = _nearest(given, known, 0.4) or _nearest(words[0], known, 0.4)
    hint = f"Did you mean `sdlab {near}`? " if near else ""
    raise UsageError(f"unknown command {words[0]!r}. {hint}`sdlab --help` lists all.")


def _parse_training(name: str, words: list[str]) -> Callable[[], None]:
    """`train`, `sweep` and `preflight`: diffusers' flags, whose defaults are those of the base's profile."""
    from sdlab.profiles import hyperparameters, profile

    if words and not words[0].startswith("-"):
        words = ["--name" if name.startswith("train") else "--prefix", *words]
    given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in words if word.startswith("--")}
    before = _values_of(("pretrained_model_name_or_path", "root", "profile", "subject"), words)
    base, root = before.get("pretrained_model_name_or_path", "mini"), before.get("root", "experiments")
    chosen = before.get("profile", "auto")
    defaults = hyperparameters(
        name.split()[1], base, subject=before.get("subject"), profile=chosen, root=root
    )
    bound, strange = _tyro(TRAINING[name], name, words, defaults)
    known = [*TRAINING[name].options(), "profile", "subject", *vars(defaults)]
    _refuse(_leave_out_ignored(strange), name, known, INSTEAD)
    _say_what_the_profile_sets(defaults, given, profile(base, name=chosen, root=root).reason)
    return bound


def _tyro(
    command: Command, name: str, words: list[str], defaults: DreamBooth | LoRA | None = None
) -> tuple[Callable[[], None], list[str]]:
    """The command with its options filled in, and the words that it has no use for."""
    import tyro
    from tyro.conf import arg

    options = command.options()
    if defaults is not None:  # each hyperparameter is a flag without a prefix
        flat = Annotated[type(defaults), arg(name="")]  # type: ignore[valid-type]
        options["hyperparameters"] = options["hyperparameters"].replace(annotation=flat, default=defaults)
        options |= {
            "profile": option_of("profile", str, "auto"),
            "subject": option_of("subject", str | None, None),
        }

    def take(**values: Any) -> dict[str, Any]:
        return values

    take.__doc__ = command.help()
    take.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    take.__annotations__ = {option.name: option.annotation for option in options.values()}
    values, strange = tyro.cli(
        take, prog=f"sdlab {name}", args=words, use_underscores=True, return_unknown_args=True
    )
    if defaults is not None:  # they chose the defaults
        del values["profile"], values["subject"]
    values = {one: _at_home(value) for one, value in values.items()}
    return partial(command.run, imported(command.function), **values), strange


def _at_home(value: Any) -> Any:
    """`~` as a shell would have written it, had it stood alone."""
    if isinstance(value, str | Path) and str(value).startswith("~"):
        return type(value)(os.path.expanduser(value))
    return value


def _refuse(
    strange: list[str], name: str, known: Iterable[str], instead: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Names the nearest option to one that there isn't."""
    if not strange:
        return
    word = next((word for word in strange if word.startswith("-")), strange[0])
    if not word.startswith("-"):
        raise UsageError(f"`sdlab {name}` doesn't know what to do with {word!r}. See `sdlab {name} --help`.")
    flag = word.split("=")[0].lstrip("-").replace("-", "_")
    if flag in instead:
        raise UsageError(f"`sdlab {name}` has no option --{flag}. {instead[flag]}")
    near = _nearest(flag, known, 0.5)
    hint = f"Did you mean --{near}? " if near else ""
    raise UsageError(f"`sdlab {name}` has no option --{flag}. {hint}`sdlab {name} --help` lists all.")


def _nearest(word: str, known: Iterable[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, 1, cutoff)), None)


def _leave_out_ignored(strange: list[str]) -> list[str]:
    """Drops diffusers' flags that need no setting here, with their values, and says so."""
    left: list[str] = []
    ignoring = False
    for word in strange:
        if word.startswith("--"):
            flag = word[2:].split("=")[0].replace("-", "_")
            ignoring = flag in IGNORED
            if ignoring:
                print(f"--{flag} is ignored: {IGNORED[flag]}", file=sys.stderr)
        if not ignoring:
            left.append(word)
    return left


def _values_of(flags: Iterable[str], words: list[str]) -> dict[str, str]:
    """The values of some options before the command line is read as a whole."""
    found = {}
    for word, after in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name.startswith("--") and (flag := name[2:].replace("-", "_")) in flags:
            found[flag] = value if equals else after
    return found


def _say_what_the_profile_sets(chosen: DreamBooth | LoRA, given: set[str], reason: str) -> None:
    """Names the values that the profile sets otherwise than diffusers does, unless they were given."""
    own = vars(METHODS[chosen.method]())
    idle = () if chosen.with_prior_preservation else ("class_prompt", "num_class_images")
    spoken = {*idle, "pretrained_model_name_or_path", *given, *(flag.removeprefix("no_") for flag in given)}
    differing = [f"{k}={v}" for k, v in vars(chosen).items() if v != own[k] and k not in spoken]
    if differing:
        why = f" ({reason})" if reason else ""
        base = chosen.pretrained_model_name_or_path
        print(f"not given, so set for {base}{why}: {', '.join(differing)}", file=sys.stderr)


def _overview() -> str:
    """The commands by what they are for; those that take a method stand in one line."""
    described = {f"{name.split()[0]} METHOD": command for name, command in TRAINING.items()} | COMMANDS
    ahead, about = ("demo",), ("environment", "homework", "check", "sync")

    def lines(names: Iterable[str]) -> str:
        return "".join(f"    sdlab {name:<17} {described[name].summary}\n" for name in names)

    first = ("prepare", "class-images")
    stages = [*first, *(name for name in described if name not in (*ahead, *first, *about))]
    return OVERVIEW.format(demo=lines(ahead), stages=lines(stages), others=lines(about)).rstrip()


def _explained(error: Exception) -> str:
    """An error's message; of the operating system's with the path and a way out."""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and code in WAYS_OUT and error.filename:
        return f"{error.filename}: {(error.strerror or '').lower()}. {WAYS_OUT[code]}"
    return str(error) or type(error).__name__


def _fail(message: str, code: int) -> None:
    print(f"sdlab: {message}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    sys.argv[0] = str(Path(sys.argv[0]).with_name("sdlab"))
    main()
