"""Exercises: the solutions are accepted, wrong answers are refused, and no message gives the answer away."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

import sdlab
from sdlab.course.exercises import EXERCISES, cases_of

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def solutions(notebook: Path) -> dict[str, Callable[..., Any]]:
    found = runpy.run_path(str(FOLDER / "solutions" / f"{notebook.stem}.py"))
    return {name: one for name, one in found.items() if name in EXERCISES}


def said(answer: Callable[..., Any], name: str, capsys: pytest.CaptureFixture[str]) -> str:
    answer.__name__ = name
    sdlab.check(answer)
    return capsys.readouterr().out


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_every_exercise_has_a_check_and_a_solution_that_holds(
    notebook: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "\n".join(cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code")
    asked = re.findall(r"^sdlab\.check\((\w+)\)", code, re.MULTILINE)
    assert asked and set(asked) == set(solutions(notebook))
    for name, solution in solutions(notebook).items():
        assert re.search(rf"^(class|def) {name}\(", code, re.MULTILINE), "a frame to fill in"
        assert "right in all" in said(solution, name, capsys)


def test_every_exercise_belongs_to_a_notebook() -> None:
    assert {name for notebook in NOTEBOOKS for name in solutions(notebook)} == set(EXERCISES)


def test_nothing_yet_isnt_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    for name in EXERCISES:
        assert "Not answered yet" in said(lambda *_, **__: ..., name, capsys)


WRONG = {
    "predicted_x0": lambda latents, noise, alpha_bar: latents - noise,
    "rescaled": lambda guided, conditional: guided * conditional.std() / guided.std(),
    "square_crop": lambda width, height, x, y: (
        x - min(width, height) // 2, 0, x + min(width, height) // 2, min(width, height)
    ),
    "sharpness": lambda grey: grey.var(),
    "best_step": lambda rows: rows[-1]["step"],
    "dreambooth_loss": lambda prediction, noise, weight: (prediction - noise).square().mean(),
    "snr_weight": lambda alpha_bar, gamma: (alpha_bar / (1 - alpha_bar)).clamp(max=gamma),
    "merged": lambda W, A, B, alpha, scale: W + scale * B @ A,
    "share_of_rank": lambda update, rank: update.svd().S[:rank].sum() / update.svd().S.sum(),
    "lora_parameters": lambda rank, d, k: d * k,
    "controlled_features": lambda features, residuals, scale: features,
    "controlled_steps": lambda steps, start, end: list(range(steps)),
    "depth_to_grey": lambda depth: depth * 255,
    "mean_and_margin": lambda values: (sum(values) / len(values), 0.0),
    "unbeaten": lambda figures: set(figures),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_refused_with_the_rule_and_without_the_answer(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = said(WRONG[name], name, capsys)
    assert "doesn't hold" in message and "right in all" not in message
    for case in cases_of(name):
        assert f" {case.expected}" not in message.split("doesn't hold")[1]


def test_a_mistake_in_the_code_and_a_wrong_shape_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*arguments: Any) -> None:
        raise KeyError("loss")

    assert "raises KeyError: 'loss'" in said(broken, "best_step", capsys)
    assert "must have the shape (1, 4, 8, 8), got (1,)" in said(
        lambda latents, *_: latents[:, 0, 0, 0], "predicted_x0", capsys
    )
    assert "must return a tensor, got float" in said(lambda *_: 1.0, "rescaled", capsys)


def test_an_answer_may_work_in_place_and_an_odd_value_is_no_crash(capsys: pytest.CaptureFixture[str]) -> None:
    def controlled_features(features: Any, residuals: Any, scale: Any) -> Any:
        for feature, residual in zip(features, residuals, strict=True):
            feature += scale * residual
        return features

    assert "right in all" in said(controlled_features, "controlled_features", capsys)
    assert "gives ndarray (2,), which doesn't hold" in said(lambda _: np.ones(2), "mean_and_margin", capsys)
    with pytest.raises(ValueError, match=r"Unknown exercise: '3'.*Give the function itself"):
        sdlab.check(3)  # type: ignore[arg-type]


def test_an_unknown_exercise_is_named() -> None:
    def predicted_x_0() -> None: ...

    with pytest.raises(ValueError, match=r"'predicted_x_0'.*predicted_x0"):
        sdlab.check(predicted_x_0)
