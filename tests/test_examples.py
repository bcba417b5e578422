"""The homeworks' scripts: the experiments they name, and commands that sdlab understands."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sdlab.cli import parse
from sdlab.homeworks import homework

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")


def commands(script: str, base: str, folder: Path) -> list[list[str]]:
    """The `sdlab` commands of a script, written down by a program in sdlab's place."""
    recorder = folder / "sdlab"
    recorder.write_text(
        f"""#!/usr/bin/env bash
if [ "$1" = homework ]; then exec {sys.executable} -m sdlab.cli "$@"; fi
printf "%q " "$@" >> {folder}/commands; echo >> {folder}/commands
"""
    )
    recorder.chmod(0o755)
    subprocess.run(
        ["bash", EXAMPLES / script],
        check=True,
        env={
            "SDLAB": str(recorder),
            "BASE": base,
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(EXAMPLES.parent),
        },
    )
    return [shlex.split(line) for line in (folder / "commands").read_text().splitlines()]


# coursework.md names them, and the parameters.
def test_homework_a_names_its_seven_experiments(tmp_path: Path) -> None:
    found = commands("homework_a.sh", "sd15", tmp_path)
    trained = {words[2].rpartition("/")[2]: words for words in found if words[0] == "train"}
    rates = {f"dreambooth_lora_k4_lr_2e_{n}": f"--learning_rate=2e-{n}" for n in (6, 5, 4, 3)}
    ranks = {f"dreambooth_lora_k{rank}_lr_2e_4": f"--rank={rank}" for rank in (8, 2)}
    assert list(trained) == ["dreambooth_v1", *rates, *ranks]
    assert all(flag in trained[name] for name, flag in {**rates, **ranks}.items())


def test_homework_b_names_its_six_experiments(tmp_path: Path) -> None:
    found = commands("homework_b.sh", "sd15", tmp_path)
    flags = [
        dict(word[2:].split("=", 1) for word in words if "=" in word)
        for words in found
        if words[0] == "train"
    ]
    dreambooths = [(one["output_dir"], one["prior_loss_weight"], one["learning_rate"]) for one in flags[:3]]
    assert dreambooths == [
        ("experiments/exp1.1", "1.0", "2e-6"),
        ("experiments/exp2", "1.0", "1e-6"),
        ("experiments/exp3", "1.2", "2e-6"),
    ]
    assert [(one["rank"], one["learning_rate"]) for one in flags[3:]] == [
        ("32", "1e-6"),
        ("64", "1e-6"),
        ("96", "1e-6"),
    ]
    names = ["experiments/lora_exp1.1", "experiments/lora_exp2", "experiments/lora_exp4"]
    assert [one["output_dir"] for one in flags[3:]] == names
    assert {"exp1.1", "exp2", "exp3", "lora_exp1.1", "lora_exp2", "lora_exp4"} <= set(found[-1])
    assert flags[0]["num_class_images"] == "500" and flags[3]["max_train_steps"] == "200"


@pytest.mark.parametrize("script", ["homework_a.sh", "homework_b.sh"])
def test_the_commands_are_understood(script: str, tmp_path: Path) -> None:
    for words in commands(script, "mini", tmp_path):
        if "--pretrained_model_name_or_path=experiments/exp1.1" not in words:  # it would have to be there
            assert parse(words) is not None


@pytest.mark.parametrize("base", ["sd15", "mini"])
def test_homework_b_is_what_its_own_flags_say(base: str, tmp_path: Path) -> None:
    # coursework.md's table; the script has the homework's flags as they were handed in
    known = homework("B", base)
    flags = {}
    for words in commands("homework_b.sh", base, tmp_path)[:6]:
        given = dict(word[2:].split("=", 1) for word in words if "=" in word)
        flags[Path(given["output_dir"]).name] = given
    assert [*known.dreambooths, *known.loras] == list(flags)
    for name, chosen in {**known.dreambooths, **known.loras}.items():
        for flag in ("resolution", "learning_rate", "max_train_steps", "checkpointing_steps", "lr_scheduler"):
            assert type(getattr(chosen, flag))(flags[name][flag]) == getattr(chosen, flag), (name, flag)
        assert chosen.use_8bit_adam and chosen.train_text_encoder and chosen.seed == 31
        if "num_class_images" in flags[name]:
            assert chosen.num_class_images == int(flags[name]["num_class_images"])
    assert [one.prior_loss_weight for one in known.dreambooths.values()] == [1.0, 1.0, 1.2]
    assert [one.rank for one in known.loras.values()] == [32, 64, 96]
    assert {one.pretrained_model_name_or_path for one in known.loras.values()} == {"exp1.1"}
