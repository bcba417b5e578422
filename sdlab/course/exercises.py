"""Exercises: a student's function is run against cases, and what is wrong is said without the answer."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from sdlab.config import unknown

EXERCISES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)


class Case(NamedTuple):
    """One call of the student's function; `expected` is its value, or a test of the value."""

    arguments: tuple[Any, ...]
    expected: Any
    rule: str


def check(answer: Callable[..., Any]) -> None:
    """Runs the function that an exercise asks for against the exercise's cases, and says how it did.

    Args:
        answer: The student's function (or class); its name says which exercise it answers.

    Raises:
        ValueError: No exercise has that name.

    Taught in: all notebooks
    """
    name = getattr(answer, "__name__", None) or repr(answer)
    if name not in EXERCISES:
        raise ValueError(f"{unknown('exercise', name, EXERCISES)} Give the function itself: check(NAME).")
    cases = cases_of(name)
    for number, case in enumerate(cases, 1):
        if fault := _fault(answer, case):
            print(f"{name}, case {number} of {len(cases)}: {fault}")
            return
    print(f"{name}: right in all {len(cases)} cases.")


def cases_of(exercise: str) -> list[Case]:
    """The cases of an exercise, made from the expressions of exercises.toml."""
    import torch

    def noise(seed: int, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    rules = dict(EXERCISES[exercise])
    names: dict[str, Any] = {"torch": torch, "noise": noise}
    exec(rules.pop("given", ""), names)
    calls = [(call.split(" -> "), rule) for rule, calls in rules.items() for call in calls]
    return [Case(eval(f"({given},)", names), eval(value, names), rule) for (given, value), rule in calls]


def _fault(answer: Callable[..., Any], case: Case) -> str | None:
    """What is wrong with an answer in one case, None if nothing is."""
    import torch

    copies = deepcopy(case.arguments)  # an answer may work in place
    call = f"{answer.__name__}({', '.join(_short(value) for value in copies)})"
    try:
        value = answer(*copies)
    except Exception as error:
        return f"{call} raises {type(error).__name__}: {error}"
    if value is None or value is ...:
        return (
            "Not answered yet. Write the function's lines, let it return its value, and run the cell again."
        )
    expected = case.expected
    if isinstance(expected, torch.Tensor):
        if not isinstance(value, torch.Tensor):
            return f"{call} must return a tensor, got {type(value).__name__}."
        if value.shape != expected.shape:
            return f"{call} must have the shape {tuple(expected.shape)}, got {tuple(value.shape)}."
    try:
        holds = expected(value) if callable(expected) else _equal(value, expected)
    except (TypeError, ValueError, RuntimeError, AttributeError):  # a value of another kind
        holds = False
    return None if holds else f"{call} gives {_short(value)}, which doesn't hold. {case.rule}"


def _equal(value: Any, expected: Any) -> bool:
    """Whether two values are the same up to rounding."""
    import torch

    try:
        if isinstance(expected, list | tuple):
            return len(value) == len(expected) and all(map(_equal, value, expected))
        one, other = torch.as_tensor(value).double(), torch.as_tensor(expected).double()
    except (TypeError, ValueError, RuntimeError):  # no numbers
        return bool(value == expected)
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def _short(value: Any) -> str:
    """An argument as the message shows it."""
    shape = getattr(value, "shape", ())
    text = f"{type(value).__name__} {tuple(shape)}" if len(shape) else " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:76]} …"
