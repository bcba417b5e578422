"""The homeworks by name, and finished work that outlives the machine."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from pathlib import Path

import pytest

import sdlab
from sdlab.cli import parse
from sdlab.experiment import DreamBooth, Experiment, LoRA


def test_homework_a_sweeps_the_rate_and_then_the_rank() -> None:
    homework = sdlab.homework("a", "sd15")
    assert list(homework.dreambooths) == ["dreambooth_v1"]
    assert {name: (one.rank, one.learning_rate) for name, one in homework.loras.items()} == {
        "dreambooth_lora_k4_lr_2e_6": (4, 2e-6),
        "dreambooth_lora_k4_lr_2e_5": (4, 2e-5),
        "dreambooth_lora_k4_lr_2e_4": (4, 2e-4),
        "dreambooth_lora_k4_lr_2e_3": (4, 2e-3),
        "dreambooth_lora_k8_lr_2e_4": (8, 2e-4),
        "dreambooth_lora_k2_lr_2e_4": (2, 2e-4),
    }
    assert homework.best_lora in homework.loras and homework.best_dreambooth in homework.dreambooths
    assert list(homework.prompts.prompts) == ["street", "desert", "forest", "kitchen", "moon"]


def test_there_is_no_homework_c() -> None:
    with pytest.raises(ValueError, match="homework A and homework B, got 'C'"):
        sdlab.homework("C")


def test_a_homework_follows_its_subject() -> None:
    homework = sdlab.homework("B", subject="ohwx dog")
    assert homework.prompts.prompts["prompt5"].startswith("a face of ohwx dog, astronaut")
    for one in (*homework.dreambooths.values(), *homework.loras.values()):
        assert one.instance_prompt == "a photo of ohwx dog" and one.class_prompt == "a photo of dog"
        assert (one.validation_prompt or "a photo of ohwx dog").startswith("a photo of ohwx dog")


def experiment(name: str, root: Path, status: str, chosen: DreamBooth | LoRA) -> Experiment:
    made = Experiment(name, root)
    made.begin(chosen, {})
    made.lora_file.write_bytes(b"weights")
    (made.checkpoints_folder / "step_000100").mkdir(parents=True)
    (made.checkpoints_folder / "step_000100" / "state").write_bytes(b"large")
    made.update(status=status)
    return made


def test_finished_work_comes_back_on_a_new_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drive, first, second = (tmp_path / name for name in ("drive", "first", "second"))
    for machine in (first, second):
        machine.mkdir()
    monkeypatch.chdir(first)
    experiment("lora_done", Path("experiments"), "finished", LoRA())
    experiment("lora_half", Path("experiments"), "stopped", LoRA())
    Path("results/lora_done").mkdir(parents=True)
    Path("results/lora_done/street_img1.png").write_bytes(b"image")
    sdlab.sync(drive)
    assert "0 files brought back, 3 copied there" in capsys.readouterr().out

    monkeypatch.chdir(second)
    Path("results/lora_done").mkdir(parents=True)
    Path("results/lora_done/street_img1.png").write_bytes(b"of this machine")
    sdlab.sync(drive)
    back = Experiment("lora_done")
    assert back.status == "finished" and back.lora_file.read_bytes() == b"weights"
    assert not back.checkpoints_folder.exists() and not Experiment("lora_half").path.exists()
    # nothing of this machine's is overwritten
    assert Path("results/lora_done/street_img1.png").read_bytes() == b"of this machine"


def test_a_copy_that_broke_off_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment("lora_done", Path("experiments"), "finished", LoRA())
    torn = Path("drive/experiments/lora_done")
    torn.mkdir(parents=True)
    (torn / "pytorch_lora_weights.safetensors").write_bytes(b"wei")  # its record would have come last
    sdlab.sync("drive")
    assert (torn / "pytorch_lora_weights.safetensors").read_bytes() == b"weights"
    assert Experiment("lora_done", Path("drive/experiments")).status == "finished"


def test_photos_deleted_here_never_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    (first / "data/raw_images").mkdir(parents=True)
    monkeypatch.chdir(first)
    for name in ("asks_us.jpg", "stays.jpg"):
        Path("data/raw_images", name).write_bytes(b"photo")
    sdlab.sync(tmp_path / "drive")
    Path("data/raw_images/asks_us.jpg").unlink()
    sdlab.sync(tmp_path / "drive")
    said = capsys.readouterr().out
    assert f"still in {tmp_path / 'drive'}: data/raw_images/asks_us.jpg" in said and "Delete them" in said
    monkeypatch.chdir(second)  # a new machine
    sdlab.sync(tmp_path / "drive")
    assert [path.name for path in Path("data/raw_images").iterdir()] == ["stays.jpg"]
    assert (tmp_path / "drive/data/raw_images/asks_us.jpg").is_file()  # deleting there is left to the user


def test_an_experiment_trained_again_replaces_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    experiment("lora_done", Path("experiments"), "finished", LoRA())
    sdlab.sync("drive")
    shutil.rmtree("experiments/lora_done")
    again = experiment("lora_done", Path("experiments"), "finished", LoRA(rank=8))
    again.lora_file.write_bytes(b"better")
    capsys.readouterr()
    sdlab.sync("drive")
    assert "lora_done: trained again here, replaces the copy in drive" in capsys.readouterr().out
    copy = Experiment("lora_done", Path("drive/experiments"))
    assert copy.lora_file.read_bytes() == b"better" and copy.record == again.record


def test_sync_without_a_place_does_nothing_and_drive_is_only_on_colab(tmp_path: Path) -> None:
    sdlab.sync(None)
    with pytest.raises(ValueError, match="Google Drive, which only Colab has"):
        sdlab.sync("/content/drive/MyDrive/sdlab")


def test_sync_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment("lora_done", Path("experiments"), "finished", LoRA())
    run = parse(shlex.split("sync drive"))
    assert run is not None
    run()
    assert Path("drive/experiments/lora_done/experiment.json").is_file()


def test_a_photo_deleted_on_one_machine_isnt_revived_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine in ("first", "second"):
        (tmp_path / machine / "data/raw_images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "first")
    photo = Path("data/raw_images/asks_us.jpg")
    photo.write_bytes(b"photo")
    sdlab.sync(tmp_path / "drive")
    monkeypatch.chdir(tmp_path / "second")
    sdlab.sync(tmp_path / "drive")  # it comes to the second machine, and stays there
    monkeypatch.chdir(tmp_path / "first")
    photo.unlink()
    sdlab.sync(tmp_path / "drive")
    monkeypatch.chdir(tmp_path / "second")
    sdlab.sync(tmp_path / "drive")
    monkeypatch.chdir(tmp_path / "first")
    sdlab.sync(tmp_path / "drive")
    assert not photo.exists()
    photo.write_bytes(b"the person agrees again")
    os.utime(photo, (time.time() + 60,) * 2)
    sdlab.sync(tmp_path / "drive")
    monkeypatch.chdir(tmp_path / "second")
    sdlab.sync(tmp_path / "drive")
    assert (tmp_path / "drive" / photo).read_bytes() == b"the person agrees again"


def test_a_photo_deleted_in_the_place_too_stays_deleted_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, drive = Path("data/raw_images/asks_us.jpg"), tmp_path / "drive"

    def sync_on(machine: str) -> str:
        monkeypatch.chdir(tmp_path / machine)
        sdlab.sync(drive)
        return capsys.readouterr().out

    for machine in ("first", "second"):
        (tmp_path / machine / "data/raw_images").mkdir(parents=True)
    (tmp_path / "first" / photo).write_bytes(b"photo")
    sync_on("first"), sync_on("second")
    (tmp_path / "first" / photo).unlink()
    assert "Delete them there" in sync_on("first")
    (drive / photo).unlink()
    sync_on("first")
    assert f"still on this machine: {photo}" in sync_on("second")
    assert not (drive / photo).exists() and (tmp_path / "second" / photo).is_file()  # never deletes here
    sync_on("first")
    assert not (tmp_path / "first" / photo).exists()
    (tmp_path / "second" / photo).write_bytes(b"the person agrees again")
    os.utime(tmp_path / "second" / photo, (time.time() + 60,) * 2)
    assert "1 copied there" in sync_on("second") and "1 files brought back" in sync_on("first")


@pytest.mark.parametrize("place", [".", "experiments", "results/copy", "data/raw_images"])
def test_a_place_among_the_work_itself_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    experiment("lora_done", Path("experiments"), "finished", LoRA())
    with pytest.raises(ValueError, match=r"is where the work itself is\. Name a folder elsewhere"):
        sdlab.sync(place)
    assert [path.name for path in Path().iterdir()] == ["experiments"]
