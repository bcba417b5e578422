"""Sweeps: names, what is skipped, what one failure does to the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.sweeps import experiment_name, plan, sweep
from sdlab.tables import duration, figures, summary
from sdlab.training import train


def test_names_are_made_from_what_varies() -> None:
    rates = plan(LoRA(rank=4), learning_rate=[2e-6, 2e-5, 2e-4, 2e-3])
    assert list(rates) == [f"lora_rank4_lr2e-{n}" for n in (6, 5, 4, 3)]
    ranks = plan(LoRA(learning_rate=2e-4), rank=[2, 4, 8])
    assert set(rates) & set(ranks) == {"lora_rank4_lr2e-4"}  # the two sweeps share one experiment
    prior = DreamBooth(learning_rate=2e-6, with_prior_preservation=True, class_prompt="a photo of woman face")
    weights = plan(prior, prior_loss_weight=[1.0, 1.2], prefix="exp")
    assert list(weights) == ["exp_lr2e-6_prior1", "exp_lr2e-6_prior1.2"]
    chosen = DreamBooth(with_prior_preservation=False)
    assert experiment_name(chosen, ["with_prior_preservation"]) == "dreambooth_lr2e-6_no_prior_preservation"


def test_grids_are_combined_in_order() -> None:
    planned = plan(LoRA(), rank=[2, 4], learning_rate=[1e-4, 1e-3])
    assert [(one.rank, one.learning_rate) for one in planned.values()] == [
        (2, 1e-4), (2, 1e-3), (4, 1e-4), (4, 1e-3)
    ]  # fmt: skip


def test_mistakes_are_found_before_anything_is_trained() -> None:
    with pytest.raises(ValueError, match="Did you mean 'learning_rate'"):
        plan(LoRA(), learning_rat=[1e-4])
    with pytest.raises(ValueError, match="needs a list of values, got 4"):
        plan(LoRA(), rank=4)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        plan(LoRA(), rank=[4, 0])
    with pytest.raises(ValueError, match="changes nothing without with_prior_preservation"):
        plan(LoRA(), prior_loss_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="Add lr_scheduler='polynomial'"):
        plan(LoRA(), lr_power=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"two experiments would be called lora_rank4_lr1\.234e-4"):
        plan(LoRA(), learning_rate=[1.2341e-4, 1.23412e-4])
    assert len(plan(LoRA(), learning_rate=np.logspace(-5, -3, 3), rank=np.array([2, 4]))) == 6
    assert len(plan(LoRA(), lr_scheduler=["linear", "polynomial"], lr_power=[1.0, 2.0])) == 4


@pytest.mark.slow
def test_a_failing_experiment_does_not_stop_the_sweep(
    workplace: Path, short: Callable[..., LoRA], capsys: pytest.CaptureFixture[str]
) -> None:
    common = short("lora", learning_rate=5e-3, max_train_steps=2)
    Experiment("lora_rank2_lr5e-3").begin(LoRA(rank=64), {})  # something else under this name
    Experiment("lora_rank2_lr5e-3").add_to_log({"step": 10})
    done = sweep(common, rank=[2, 4], progress=False)
    assert [(one.name, one.status) for one in done] == [("lora_rank4_lr5e-3", "finished")]
    assert "lora_rank2_lr5e-3 failed: " in capsys.readouterr().out

    weights = done[0].lora_file.stat().st_mtime_ns
    again = sweep(common, rank=[4], progress=False)
    assert again == done and again[0].lora_file.stat().st_mtime_ns == weights


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [[100_000, 2, 4], [2, 4, 100_000]])
def test_one_that_does_not_fit_into_memory_does_not_stop_the_others(
    ranks: list[int], workplace: Path, short: Callable[..., LoRA], capsys: pytest.CaptureFixture[str]
) -> None:
    done = sweep(short("lora", max_train_steps=2), rank=ranks, progress=False)
    status = {one.hyperparameters.rank: one.status for one in done}
    assert status == {100_000: "failed", 2: "finished", 4: "finished"}
    assert capsys.readouterr().out.count("failed: ") == 1


@pytest.mark.slow
def test_a_finished_one_stays_finished_when_more_steps_cant_begin(
    workplace: Path, short: Callable[..., LoRA], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = short("lora", max_train_steps=4, checkpointing_steps=2)
    before = train("mine", chosen, progress=False).record
    longer = replace(chosen, max_train_steps=6)
    for name, said in {"step_000002": "keeps the weights alone", "step_9": "must be 'latest' or one"}.items():
        with pytest.raises(ValueError, match=said):
            train("mine", longer, resume_from_checkpoint=name, progress=False)
        assert Experiment("mine").record == before

    def fails(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("sdlab.training.setup.load_model", fails)
        with pytest.raises(RuntimeError, match="Memory ran out"):
            train("mine", longer, progress=False)
    after = Experiment("mine").record
    assert {**after, "longer_from": None} == {**before, "longer_from": None} and not after["longer_from"]
    assert train("mine", longer, progress=False).record["steps"] == 6


def test_when_all_fail_the_reasons_are_given(workplace: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)every experiment of the sweep failed.*no images in instance"):
        sweep(LoRA(instance_data_dir="nowhere"), rank=[2, 4], progress=False)


def test_summary_shows_what_differs(workplace: Path) -> None:
    for rank in (2, 4):
        Experiment(f"r{rank}").begin(LoRA(rank=rank, seed=7), {})
        Experiment(f"r{rank}").update(
            status="finished", seconds=61.2, trainable_parameters=1234 * rank, steps=9
        )
    shown = summary(["base", "r2", "r4"], measurements={"base": {"likeness": 0.1}})
    assert [shown.index.name, *shown.columns] == [
        "experiment",
        "rank",
        "steps",
        "time",
        "trained weights",
        "likeness",
    ]
    assert shown.written()["trained weights"][1] == "2,468"
    assert shown.written()["time"][2] == "1 min 1 s"
    assert shown.written()["likeness"][0] == "0.10"
    assert shown.markdown().splitlines()[3].startswith("| `r2` | 2 | 9 |")
    assert shown.sort_values("rank", ascending=False)["time"].iloc[0] == 61.2
    assert str(shown).splitlines()[0].split() == [
        "experiment", "rank", "steps", "time", "trained", "weights", "likeness"
    ]  # fmt: skip


def test_one_name_needs_no_list_and_an_unknown_one_is_named(workplace: Path) -> None:
    Experiment("mine").begin(LoRA(), {})
    assert summary("mine").index.tolist() == summary(["mine"]).index.tolist() == ["mine"]
    with pytest.raises(ValueError, match=r"Unknown experiment in experiments: 'min'.* Did you mean 'mine'"):
        summary("min")


def test_figures_escape_what_they_show() -> None:
    shown = figures([{"experiment": "a", "message": "<img src=x onerror=alert(1)> | $x$"}])
    assert "<img" not in shown._repr_html_() and "<img" not in shown.markdown()
    assert shown.markdown().splitlines()[2].count("|") == 3


def test_durations_read_well() -> None:
    times = [0.31, 5.04, 48, 60, 365, 7400]
    assert [duration(t) for t in times] == ["0.31 s", "5 s", "48 s", "1 min", "6 min 5 s", "2 h 3 min"]
