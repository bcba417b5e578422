from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdlab.experiment import DreamBooth, Experiment, Locked, LoRA, find
from sdlab.training.checkpoint import tidy

_HOLD = """
import sys, time
from sdlab.experiment import Experiment
with Experiment(sys.argv[1], sys.argv[2]).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def begun(root: Path, name: str = "exp1.1") -> Experiment:
    experiment = Experiment(name, root)
    experiment.begin(LoRA(rank=4), {"base_fingerprint": "b", "instance_images": "i"})
    return experiment


def holder(experiment: Experiment) -> subprocess.Popen[str]:
    """Another process that has the experiment's lock."""
    command = [sys.executable, "-c", _HOLD, experiment.name, str(experiment.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_lock_says_who_has_it_and_dies_with_its_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = begun(tmp_path)
    assert experiment.status == "stopped"  # its record says running, but nobody works on it
    with holder(experiment) as process:
        assert experiment.status == "running"
        with pytest.raises(Locked, match=f"process {process.pid} on .* since"), experiment.lock():
            pytest.fail("locked twice")
        process.kill()
    with experiment.lock():
        assert f"taking over from process {process.pid}" in capsys.readouterr().out


def test_the_same_again_is_taken_and_something_else_is_refused(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    experiment.add_to_log({"step": 1, "loss": 0.1})
    same = {"base_fingerprint": "b", "instance_images": "i"}
    experiment.add_to_log({"step": 10})
    experiment.begin(LoRA(rank=4, instance_data_dir="elsewhere", checkpointing_steps=7), same)
    experiment.begin(
        LoRA(rank=4), same | {"instance_images": None}
    )  # the photos are gone: nothing to compare
    with pytest.raises(ValueError, match=r"rank was 4, is 8.*Take another name.*or delete .*exp1\.1"):
        experiment.begin(LoRA(rank=8), same)
    with pytest.raises(ValueError, match="instance_images was 'i', is 'j'"):
        experiment.begin(LoRA(rank=4), same | {"instance_images": "j"})
    with pytest.raises(ValueError, match="method was 'lora', is 'dreambooth'"):
        experiment.begin(DreamBooth(learning_rate=2e-4), same)


def test_what_took_no_step_begins_anew(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    experiment.add_to_log({"step": 0, "validation_loss": 0.1})  # before the first step
    experiment.update(status="failed", message="a photo can't be read")
    experiment.begin(DreamBooth(), {"base_fingerprint": "c", "instance_images": "j"})
    assert experiment.hyperparameters == DreamBooth()
    assert experiment.record["method"] == "dreambooth" and experiment.record["instance_images"] == "j"


def test_what_failed_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    experiment.add_to_log({"step": 20, "loss": 9.0})
    experiment.update(status="failed", message="the loss is no number")
    experiment.begin(LoRA(learning_rate=1e-5), {})
    assert experiment.hyperparameters == LoRA(learning_rate=1e-5)
    (experiment.checkpoints_folder / "step_000010").mkdir(parents=True)
    experiment.update(status="failed")
    with pytest.raises(ValueError, match=r"learning_rate was 1e-05, is 0\.0002"):
        experiment.begin(LoRA(), {})


def test_more_steps_than_before_are_taken_and_fewer_refused(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    experiment.add_to_log({"step": 800})
    experiment.update(status="finished")
    experiment.begin(LoRA(rank=4, max_train_steps=1000), {})
    assert experiment.status != "finished" and experiment.record["longer_from"] == [800]
    with pytest.raises(ValueError, match="max_train_steps was 1000, is 800"):
        experiment.begin(LoRA(rank=4), {})


def test_an_experiment_is_found_by_name_and_by_folder(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    assert Experiment.load("exp1.1", tmp_path) == experiment == Experiment.load(experiment.path)
    assert experiment.hyperparameters == LoRA(rank=4)
    assert find(tmp_path) == [experiment]
    with pytest.raises(ValueError, match=r"Did you mean 'exp1\.1'\? Choose from: exp1\.1"):
        Experiment.load("exp11", tmp_path)


def test_a_torn_row_of_the_log_is_left_out(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    for step in (10, 20):
        experiment.add_to_log({"step": step, "loss": 0.1})
    with open(experiment.path / "log.jsonl", "a") as file:
        file.write('{"step": 30, "lo')
    assert [row["step"] for row in experiment.log()] == [10, 20]
    experiment.cut_log(10)
    experiment.add_to_log({"step": 20, "loss": 0.2})
    assert experiment.log()[-1] == {"step": 20, "loss": 0.2}


def test_a_damaged_record_or_log_says_what_to_do(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    experiment.add_to_log({"step": 10})
    with open(experiment.path / "log.jsonl", "a") as file:
        file.write('{"step" 20}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*log\.jsonl can't be read.*Delete that line"):
        experiment.log()
    (experiment.path / "experiment.json").unlink()
    with pytest.raises(ValueError, match=r"is missing or empty\. Bring it back, or delete .* to train"):
        experiment.hyperparameters  # noqa: B018


def test_what_was_stopped_can_end_earlier_but_not_before_its_checkpoint(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    (experiment.checkpoints_folder / "step_000100").mkdir(parents=True)
    experiment.update(status="stopped")
    with pytest.raises(ValueError, match="max_train_steps was 800, is 99"):
        experiment.begin(LoRA(max_train_steps=99), {})
    experiment.begin(LoRA(max_train_steps=100), {})
    assert experiment.hyperparameters.max_train_steps == 100


@pytest.mark.parametrize("name", ["base", "report", "a/b", "..", ""])
def test_a_name_that_would_collide_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Experiment(name)


@pytest.mark.parametrize(
    "name", ["base", "Base", "report", "photos", "mini", "sd15", "sd15-8gb", "lora+lora"]
)
def test_a_name_that_means_something_else_is_refused_and_the_other_is_allowed(name: str) -> None:
    with pytest.raises(ValueError, match=r"is reserved: it means .*Try 'my_") as refused:
        Experiment(name)
    Experiment(str(refused.value).rsplit("Try '", 1)[1][:-2])


@pytest.mark.skipif(os.name == "nt", reason="another lock there")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_enough(
    code: int, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def without(*_: object) -> None:  # as some network drives answer
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", without)
    experiment = Experiment("mine")
    with experiment.lock():
        experiment.begin(LoRA(), {})
        with pytest.raises(Locked), experiment.lock():
            pass
    assert experiment.status == "stopped"


def test_a_start_that_did_no_step_protects_nothing(tmp_path: Path) -> None:
    experiment = begun(tmp_path)
    experiment.update(status="failed", message="a photo can't be read")
    experiment.begin(DreamBooth(learning_rate=2e-4), {"base_fingerprint": "other", "instance_images": "j"})
    record = experiment.record
    assert (record["method"], record["status"], record["instance_images"]) == ("dreambooth", "running", "j")
    assert "message" not in record
    experiment.add_to_log({"step": 1, "loss": 0.1})
    with pytest.raises(ValueError, match=r"method was 'dreambooth', is 'lora'"):
        experiment.begin(LoRA(), {})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("lora - Copy", None, "becomes a file name"),
        ("torn", '{"name": "torn", "me', "torn.experiment.json can't be read as JSON"),
        ("edited", '{"name": "edited", "method": "lora"}', "holds no usable hyperparameters"),
        ("misspelt", '{"hyperparameters": {"method": "lora", "rnak": 3}}', "Did you mean 'rank'"),
    ],
)
def test_one_bad_folder_stops_nothing_and_is_named(
    name: str, content: str | None, reason: str, tmp_path: Path
) -> None:
    experiment = begun(tmp_path, "good")
    bad = tmp_path / name
    bad.mkdir()
    record = (experiment.path / "experiment.json").read_text() if content is None else content
    (bad / "experiment.json").write_text(record)
    with pytest.warns(UserWarning, match=f"{name} is skipped: .*{reason}"):
        assert find(tmp_path) == [experiment]
    with pytest.raises(ValueError, match=reason):
        Experiment.load(bad)


@pytest.mark.parametrize("name", ["photos", "mini", "sd15", "full+lora"])
def test_a_name_that_means_something_else_is_refused_with_one_that_is_free(name: str) -> None:
    with pytest.raises(ValueError, match=r"is reserved: it means .* Try 'my_"):
        Experiment(name)


def test_a_folder_of_the_users_is_no_experiment_to_write_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("my notes")
    with pytest.raises(ValueError, match=r"mine holds other things than an experiment: README\.md"):
        Experiment("mine", tmp_path).begin(LoRA(), {})
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["README.md"]


def test_copies_beside_the_checkpoints_are_the_users(tmp_path: Path) -> None:
    folder = Experiment("lora", tmp_path).checkpoints_folder
    for name in ("step_000002", "step_000010", "step_000010_keep", "step_000010 (1)", "step_x"):
        (folder / name).mkdir(parents=True)
    tidy(folder, keep=1)
    assert [place.name for place in Experiment("lora", tmp_path).checkpoints] == ["step_000010"]
    assert {place.name for place in folder.iterdir()} == {
        "step_000010", "step_000010_keep", "step_000010 (1)", "step_x",
    }  # fmt: skip
