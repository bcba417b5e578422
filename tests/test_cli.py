"""The command line as a user meets it: what it understands, and what it says when it doesn't."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdlab import cli
from sdlab.cli import COMMANDS, main, parse
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.prompts import PromptSet
from tests import course

ROOT = Path(__file__).parent.parent


def fails(words: str, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that ends with this exit code."""
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    said = capsys.readouterr().out
    for name in [f"{name.split()[0]} METHOD" if one.method else name for name, one in COMMANDS.items()]:
        assert f"sdlab {name}" in said
    assert max(map(len, said.splitlines())) <= 108


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_describes_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code in (0, None)
    said = capsys.readouterr().out
    for option, parameter in COMMANDS[name].options().items():
        if option != "hyperparameters" and "Positional" not in str(parameter.annotation):
            assert f"--{option}" in said
    if COMMANDS[name].method:
        assert "--pretrained_model_name_or_path" in said and "--with_prior_preservation" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prepaer", "unknown command 'prepaer'. Did you mean `sdlab prepare`?"),
        ("hepl", "Did you mean `sdlab help`?"),
        ("train", "Write `sdlab train dreambooth` or `sdlab train lora`"),
        ("train loar", "Write `sdlab train dreambooth` or `sdlab train lora`"),
        ("train lora --rnk 4", "no option --rnk. Did you mean --rank?"),
        ("train dreambooth --learning_rte=3", "no option --learning_rte. Did you mean --learning_rate?"),
        ("generate --images_per_promt 2", "Did you mean --images_per_prompt?"),
        ("train lora --rank 0", "rank must be at least 1, got 0"),
        ("train lora --pretrained_model_name_or_path minni", "Did you mean 'mini'?"),
        ("train lora --rank four", "four"),
        ("table --rows columns", "columns"),
        ("prepare stray", "stray"),
    ],
)
def test_what_is_not_understood_is_named(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(words, 2, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("prepare --raw nowhere", "nowhere is not a folder"),
        ("prepare --resolution 100", "divisible by 8"),
        ("train lora --instance_data_dir nowhere", "no images in instance_data_dir='nowhere'"),
        ("train lora x --output_dir y", "both name the experiment"),
        ("train lora --output_dir .", "name becomes a file name"),
        ("sweep lora", "a sweep needs values"),
        ("report", "there are no experiments"),
        ("generate --prompts nowhere.json", "homework_a, homework_b or a JSON file"),
        ("table nothing_here", "Unknown base model or experiment: 'nothing_here'"),
        ("score nothing_here", "Make some: sdlab generate nothing_here"),
    ],
)
def test_what_fails_says_why_in_one_message(
    words: str, message: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(words, 1, capsys)


# The commands of homework B, as they stand in its report.
HOMEWORK_B_DREAMBOOTH = [
    "--pretrained_model_name_or_path=mini", "--instance_data_dir=faces", "--class_data_dir=class",
    "--output_dir=experiments/exp1_v1", "--instance_prompt=a photo of sks woman face",
    "--class_prompt=a photo of woman face", "--with_prior_preservation", "--prior_loss_weight=1.0",
    "--num_class_images=500", "--resolution=512", "--train_batch_size=1", "--gradient_accumulation_steps=1",
    "--learning_rate=2e-6", "--lr_scheduler=constant", "--lr_warmup_steps=0", "--max_train_steps=800",
    "--checkpointing_steps=800", "--use_8bit_adam", "--mixed_precision=no", "--train_text_encoder",
    "--seed", "31",
]  # fmt: skip
HOMEWORK_B_LORA = [
    "--pretrained_model_name_or_path=mini", "--resolution=512", "--learning_rate=1e-6",
    "--max_train_steps=200", "--checkpointing_steps=20", "--rank=96", "--seed=31", "--validation_epochs=50",
    "--validation_prompt=a photo of sks woman face in NYC, rain, dark, night, full moon, 4K",
]  # fmt: skip


def taken(words: list[str]) -> dict[str, Any]:
    """What a training command would run with."""
    run = parse(words)
    assert isinstance(run, partial)
    return run.keywords


def test_the_homeworks_dreambooth_command_can_be_pasted() -> None:
    seen = taken(["train", "dreambooth", *HOMEWORK_B_DREAMBOOTH])
    assert seen["output_dir"] == Path("experiments/exp1_v1")
    expected = DreamBooth(
        instance_data_dir="faces", class_data_dir="class", class_prompt="a photo of woman face",
        with_prior_preservation=True, num_class_images=500, resolution=512, learning_rate=2e-6,
        max_train_steps=800, checkpointing_steps=800, use_8bit_adam=True, train_text_encoder=True, seed=31,
        num_held_out_images=2, validation_steps=20,  # the profile's
    )  # fmt: skip
    assert seen["hyperparameters"] == expected


def test_the_homeworks_lora_command_can_be_pasted() -> None:
    chosen = taken(["train", "lora", "exp4", *HOMEWORK_B_LORA])
    hyperparameters = chosen["hyperparameters"]
    assert isinstance(hyperparameters, LoRA)
    assert (hyperparameters.rank, hyperparameters.learning_rate, hyperparameters.seed) == (96, 1e-6, 31)
    assert chosen["name"] == "exp4"
    assert hyperparameters.validation_epochs == 50
    assert (hyperparameters.validation_prompt or "").startswith("a photo of sks woman face in NYC")


def test_flags_that_need_no_setting_are_ignored_and_others_name_the_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken(["train", "lora", "x", "--center_crop", "--dataloader_num_workers", "2"])
    said = capsys.readouterr().err
    assert "--center_crop is ignored" in said and "--dataloader_num_workers is ignored" in said
    assert "Give --noise_offset 0.1" in fails("train lora --offset_noise", 2, capsys)


def test_the_profile_sets_what_is_not_given_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    seen = taken(["train", "dreambooth", "--max_train_steps", "7", "--no_with_prior_preservation"])
    hyperparameters = seen["hyperparameters"]
    assert isinstance(hyperparameters, DreamBooth)
    assert (hyperparameters.resolution, hyperparameters.max_train_steps) == (128, 7)
    assert not hyperparameters.with_prior_preservation
    said = capsys.readouterr().err
    assert "resolution=128" in said and "max_train_steps" not in said


def test_the_class_is_that_of_the_instance_prompt_and_only_what_is_not_given_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["train", "dreambooth", "--instance_prompt=a photo of ohwx man", "--resolution", "128"]
    assert taken(words)["hyperparameters"].class_prompt == "a photo of man"
    said = capsys.readouterr().err
    assert "class_prompt=a photo of man" in said and "resolution" not in said
    assert "instance_prompt" not in said.replace("class_prompt", "")


def test_where_an_experiment_goes_does_not_change_where_its_base_is(workplace: Path) -> None:
    base = Experiment("mine")
    base.begin(DreamBooth(), {})
    base.update(status="finished", base="mini")
    words = ["train", "lora", "--pretrained_model_name_or_path", "mine", "--output_dir", "runs/x"]
    seen: list[Any] = []
    cli.train(lambda *given, **options: seen.extend(given) or Experiment("x"), **taken(words))
    assert seen[0] == "x" and seen[1].pretrained_model_name_or_path == "experiments/mine"


def test_the_home_folder_is_found_without_a_shell() -> None:
    seen = taken(["train", "lora", "--instance_data_dir=~/photos", "--output_dir=~/runs/x"])
    assert seen["output_dir"] == Path.home() / "runs/x"
    assert seen["hyperparameters"].instance_data_dir == str(Path.home() / "photos")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="everything is allowed here")
def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("closed").mkdir(mode=0o500)
    said = fails("sync closed/place", 1, capsys)
    assert "closed" in said and "permission" in said.lower()


def test_a_name_that_is_too_long_is_said(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(f"table base --prompts homework_a --out {'x' * 300}.md", 1, capsys)
    assert "too long" in said and "shorter" in said


def test_a_console_that_lacks_a_sign_ends_nothing(workplace: Path) -> None:
    command = [sys.executable, "-m", "sdlab.cli", "homework", "B"]  # its prompts hold a Cyrillic letter
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    table = [sys.executable, "-m", "sdlab.cli", "--help"]
    assert "×".encode("cp1252") in subprocess.run(table, env=environment, capture_output=True).stdout


def test_a_warning_is_one_line_that_names_the_folder(workplace: Path) -> None:
    course.finished("mine", LoRA(), 1.0)
    shutil.copytree("experiments/mine", "experiments/mine - Copy")
    command = [sys.executable, "-m", "sdlab.cli", "check"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True).stderr.splitlines()
    assert [line for line in said if "is skipped" in line] == said[:1], said
    assert said[0].startswith("warning: experiments/mine - Copy is skipped: The experiment's name")


def test_prepare_and_table_do_their_work(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "data/raw_images").mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save("data/raw_images/a.jpg")
    (workplace / "data/raw_images/b.jpg").write_bytes(b"broken")
    with pytest.raises(SystemExit) as stop:  # the image is made, but one photo can't teach a person
        main(["prepare"])
    assert stop.value.code == 1
    seen = capsys.readouterr()
    assert "1 image of 128×128" in seen.out and "refused b.jpg" in seen.out and "_sheet.html" in seen.out
    assert "only 1 photo (at least 5)" in seen.err and Path("data/instance_images/a.png").is_file()

    Experiment("mine").begin(LoRA(), {})
    (workplace / "results/mine").mkdir(parents=True)
    Image.new("RGB", (128, 128)).save("results/mine/street_img1.png")
    main(["table", "mine", "--prompts", "homework_a", "--out", "t.webp", "--images_per_cell", "1"])
    assert "1 rows × 5 columns, 4 cells lack images" in capsys.readouterr().out
    with Image.open("t.webp") as drawn:
        assert drawn.width > 5 * 260


def test_it_starts_fast() -> None:
    # without torch, whose import alone takes seconds
    code = "import sys, sdlab.cli; sdlab.cli.main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_json_stands_alone_on_stdout(
    instance_images: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = f"--instance_data_dir {instance_images} --resolution 64 --train_batch_size 1 --max_train_steps 2"
    main(["preflight", "lora", "--json", *flags.split()])
    assert json.loads(capsys.readouterr().out)["seconds_per_step"] > 0
    main(["sweep", "lora", "--ranks", "1", "2", "--json", *flags.split(), "--checkpointing_steps", "2"])
    swept = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in swept.values()] == ["finished", "finished"]
    other = f"sweep lora --ranks 1 4 {flags} --max_train_steps 1"  # the first was begun with two steps
    with pytest.raises(SystemExit) as stop:
        main(other.split())
    assert stop.value.code == 1 and "1 of 2 failed" in capsys.readouterr().out
    main(["generate", "base", "--images_per_prompt", "1", "--num_inference_steps", "1", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert len(made) == 5 and all(Path(one["path"]).is_file() for one in made)
    main(["environment", "--json"])
    assert "mini: the whole course" in json.loads(capsys.readouterr().out)["can_run"]


def test_a_new_users_wrong_commands_never_need_a_folder_deleted(
    instance_images: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = workplace / "bad"
    bad.mkdir()
    (bad / "torn.png").write_bytes((sorted(instance_images.glob("*.png"))[0]).read_bytes()[:200])
    right = {"instance_data_dir": instance_images, "resolution": 64, "train_batch_size": 1}
    right |= {"max_train_steps": 2, "num_held_out_images": 0, "rank": 8}
    for wrong, code in (
        ({"instance_data_dir": "nowhere"}, 1),
        ({"instance_data_dir": bad}, 1),
        ({"pretrained_model_name_or_path": "mini2"}, 2),
        ({"rank": 0}, 2),
        ({"num_held_out_images": 99}, 1),
        ({"mixed_precision": "fp16"}, 1),
        ({"learning_rate": 1e30}, 1),  # diverges in its second step
        ({"rnk": 8}, 2),
    ):
        flags = " ".join(f"--{name} {value}" for name, value in {**right, **wrong}.items())
        said = fails(f"train lora mine {flags}", code, capsys)
        assert "begun with something else" not in said and "delete" not in said
    main(["train", "lora", "mine", *(f"--{name}={value}" for name, value in right.items())])
    assert Experiment("mine").status == "finished"
    assert Experiment("mine").hyperparameters.as_dict()["rank"] == 8


def test_a_table_of_two_subjects_needs_no_word_on_whom_the_prompts_mean(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, subject in {"of_a_man": "ohwx man", "of_a_dog": "sks dog"}.items():
        course.finished(name, LoRA(instance_prompt=f"a photo of {subject}"), 1.0)
        course.images(name, PromptSet({"moon": "moon"}), 1)
        course.recorded(name, PromptSet({"moon": "moon"}), 1)
    main(["table", "of_a_man", "of_a_dog", "of_a_man", "--out", "t.html"])
    assert "2 rows × 1 columns" in capsys.readouterr().out
    assert "different subjects" in fails("generate of_a_man of_a_dog", 1, capsys)


def test_prompts_that_name_no_subject_need_none_and_are_read_first(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, subject in {"of_a_man": "ohwx man", "of_a_dog": "sks dog"}.items():
        course.finished(name, LoRA(instance_prompt=f"a photo of {subject}"), 1.0)
    Path("p.json").write_text('{"a": ""}')
    assert "The prompt 'a' is empty" in fails("generate base --prompts p.json", 1, capsys)
    Path("p.json").write_text('{"moon": "a photo of a woman on the moon"}')
    main(["generate", "base", "--prompts=p.json", "--images_per_prompt=1", "--num_inference_steps=1"])
    assert "1 images of base" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_reader_that_is_gone_ends_no_training(instance_images: Path, workplace: Path) -> None:
    flags = f"--instance_data_dir {instance_images} --resolution 64 --train_batch_size 1 --max_train_steps 2"
    command = f"{sys.executable} -m sdlab.cli train lora piped {flags} --num_held_out_images 0"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", f"set -o pipefail; {command} 2>&1 | head -1"], env=environment, check=True)
    assert Experiment("piped").status == "finished"


@pytest.mark.parametrize("command", ["generate base", "prepare", "train lora", "class-images"])
def test_an_empty_subject_is_refused_as_one(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--subject", ""])
    assert "A subject is a rare word and its class" in capsys.readouterr().err
