"""Exercises: a student's function is run against cases, and what is wrong is said without the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sdlab.config import unknown


class Case(NamedTuple):
    """One call of the student's function; `expected` is its value, or a test of the value."""

    arguments: tuple[Any, ...]
    expected: Any
    rule: str  # said where the case fails, so it must not give the answer away


def check(answer: Callable[..., Any]) -> None:
    """Runs the function that an exercise asks for against the exercise's cases, and says how it did.

    Args:
        answer: The student's function (or class); its name says which exercise it answers.

    Raises:
        ValueError: No exercise has that name.

    Taught in: all notebooks
    """
    name = answer.__name__
    if name not in EXERCISES:
        raise ValueError(unknown("exercise", name, list(EXERCISES)))
    cases = EXERCISES[name]()
    for number, case in enumerate(cases, 1):
        if fault := _fault(answer, case):
            print(f"{name}, case {number} of {len(cases)}: {fault}")
            return
    print(f"{name}: right in all {len(cases)} cases.")


def _fault(answer: Callable[..., Any], case: Case) -> str | None:
    """What is wrong with an answer in one case, None if nothing is."""
    import torch

    copies = [value.clone() if isinstance(value, torch.Tensor) else value for value in case.arguments]
    call = f"{answer.__name__}({', '.join(_short(value) for value in copies)})"
    try:
        value = answer(*copies)
    except Exception as error:
        return f"{call} raises {type(error).__name__}: {error}"
    if value is None or value is ...:
        return (
            "Not answered yet. Write the function's lines, let it return its value, and run the cell again."
        )
    if callable(case.expected):
        return None if case.expected(value) else f"{call} doesn't hold. {case.rule}"
    expected, value = case.expected, value.tolist() if _is_scalar(value) else value
    if isinstance(expected, torch.Tensor):
        if not isinstance(value, torch.Tensor):
            return f"{call} must return a tensor, got {type(value).__name__}."
        if value.shape != expected.shape:
            return f"{call} must have the shape {tuple(expected.shape)}, got {tuple(value.shape)}."
    return None if _equal(value, expected) else f"{call} doesn't hold. {case.rule}"


def _equal(value: Any, expected: Any) -> bool:
    """Whether two values are the same up to rounding."""
    import torch

    if isinstance(expected, str | set):
        return bool(value == expected)
    try:
        one, other = torch.as_tensor(value).double(), torch.as_tensor(expected).double()
    except (TypeError, ValueError, RuntimeError):
        return bool(value == expected)
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def _is_scalar(value: Any) -> bool:
    return getattr(value, "shape", None) == () and hasattr(value, "tolist")


def _short(value: Any) -> str:
    """An argument as the message shows it."""
    shape = getattr(value, "shape", ())
    text = f"{type(value).__name__} {tuple(shape)}" if len(shape) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} …"


def _noise(seed: int, *shape: int) -> Any:
    """Normal noise that is the same for everybody."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _predicted_x0() -> list[Case]:
    import torch

    original, noise = _noise(0, 1, 4, 8, 8), _noise(1, 1, 4, 8, 8)
    rule = "Noise the result again with equation 4: it must be latents. Solve that equation for z_0."
    levels = (torch.tensor(one) for one in (1.0, 0.5, 0.01))
    return [
        Case((one.sqrt() * original + (1 - one).sqrt() * noise, noise, one), original, rule) for one in levels
    ]


def _rescaled() -> list[Case]:
    guided, conditional = 5 * _noise(0, 2, 4, 8, 8) + 1, 2 * _noise(1, 2, 4, 8, 8)
    guided[1] *= 3
    dims = (1, 2, 3)
    right = guided * conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    return [
        Case((conditional[:1], conditional[:1]), conditional[:1], "Without any guidance nothing may change."),
        Case(
            (guided[:1], conditional[:1]),
            right[:1],
            "The result is guided times one number, and its standard deviation is conditional's.",
        ),
        Case(
            (guided, conditional),
            right,
            "Each image of the batch has a deviation of its own: std(dim=(1, 2, 3), keepdim=True).",
        ),
    ]


def _square_crop() -> list[Case]:
    inside = "The square must lie inside the photo: move it until it does, and don't shrink it."
    return [
        Case((400, 400, 200, 200), (0, 0, 400, 400), "A square photo stays whole."),
        Case(
            (600, 400, 300, 100), (100, 0, 500, 400), "Its side is the photo's shorter one, around the face."
        ),
        Case((600, 400, 50, 200), (0, 0, 400, 400), inside),
        Case((400, 600, 200, 580), (0, 200, 400, 600), inside),
    ]


def _sharpness() -> list[Case]:
    import torch

    point = torch.zeros(5, 5)
    point[2, 2] = 1
    rule = "At each pixel that has four neighbours: 4 times it, less the four. Then their variance."
    picture = _noise(0, 12, 16)
    laplacian = 4 * picture[1:-1, 1:-1] - sum(
        picture[1 + y : 11 + y, 1 + x : 15 + x] for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))
    )
    return [
        Case((torch.full((6, 8), 0.5),), 0.0, "A grey wall has no sharpness."),
        Case((torch.arange(48.0).reshape(6, 8),), 0.0, "An even slope isn't an edge."),
        Case((point,), lambda value: abs(float(value) - 2.22) < 0.3, rule),
        Case((picture,), lambda value: abs(float(value) / float(laplacian.var()) - 1) < 0.02, rule),
    ]


def _best_step() -> list[Case]:
    rows = [
        {"step": 10, "loss": 0.1},
        {"step": 20, "loss": 0.2, "validation_loss": 0.30},
        {"step": 40, "loss": 0.05, "validation_loss": 0.10},
        {"step": 60, "loss": 0.01, "validation_loss": 0.20},
    ]
    return [
        Case((rows[1:],), 40, "It is the validation loss that must be lowest, not the training loss."),
        Case((rows,), 40, "Rows without a validation loss don't count."),
        Case((rows[::-1],), 40, "The rows may come in any order."),
    ]


def _dreambooth_loss() -> list[Case]:
    prediction, noise = _noise(0, 4, 4, 8, 8), _noise(1, 4, 4, 8, 8)
    prediction[2:] *= 2
    photos, of_class = (prediction - noise).square().view(2, -1).mean(dim=1).tolist()
    return [
        Case((noise, noise, 1.0), 0.0, "A prediction without a fault has no loss."),
        Case((prediction, noise, 0.0), photos, "With weight 0 only the first half of the batch counts."),
        Case((prediction, noise, 1.0), photos + of_class, "Each half has a mean of its own; they are added."),
        Case((prediction, noise, 0.3), photos + 0.3 * of_class, "The weight is that of the class images."),
    ]


def _snr_weight() -> list[Case]:
    import torch

    alpha_bar = torch.tensor([0.999, 0.9, 0.5, 0.1])
    rule = (
        "The ratio is alpha_bar / (1 - alpha_bar); what is above gamma counts as gamma, divided by the ratio."
    )
    return [
        Case(
            (alpha_bar[2:], 5.0), torch.ones(2), "Where the ratio is below gamma, the loss keeps its weight."
        ),
        Case((alpha_bar, 5.0), torch.tensor([5 / 999, 5 / 9, 1.0, 1.0]), rule),
        Case((alpha_bar, 1.0), torch.tensor([1 / 999, 1 / 9, 1.0, 1.0]), rule),
    ]


def _lora_parameters() -> list[Case]:
    return [
        Case((1, 10, 10), 20, "At rank 1, B is one column and A one row. Count both."),
        Case((4, 320, 768), 4352, "B is (d, rank), A is (rank, k)."),
    ]


def _merged() -> list[Case]:
    weight, down, up = _noise(0, 6, 5), _noise(1, 2, 5), _noise(2, 6, 2)
    rule = "The product B A is multiplied with scale and with alpha over the rank, and added to W."
    return [
        Case((weight, down, up, 2.0, 0.0), weight, "At scale 0 the weights are as they were."),
        Case((weight, down, up, 2.0, 1.0), weight + up @ down, "With alpha = rank the factor is 1."),
        Case((weight, down, up, 4.0, 0.5), weight + up @ down, rule),
        Case((weight, down, up, 1.0, 0.7), weight + 0.35 * up @ down, rule),
    ]


def _share_of_rank() -> list[Case]:
    import torch

    update = _noise(0, 6, 2) @ _noise(1, 2, 5)
    values = torch.diag(torch.tensor([3.0, 4.0, 0.0]))
    return [
        Case((update, 2), 1.0, "An update of rank 2 has all of itself in two singular values."),
        Case((values, 1), 16 / 25, "The squares of the singular values, the largest first."),
        Case((5 * values, 1), 16 / 25, "It is a share: an update five times as large has the same."),
    ]


def _controlled_features() -> list[Case]:
    features = [_noise(seed, 1, 8, 4, 4) for seed in range(3)]
    residuals = [_noise(seed, 1, 8, 4, 4) for seed in range(3, 6)]
    rule = "Each block's residual, times the scale, is added to the same block's features."

    def holds(scale: float) -> Callable[[Any], bool]:
        right = [one + scale * other for one, other in zip(features, residuals, strict=True)]
        return lambda value: len(value) == 3 and all(map(_equal, value, right))

    return [
        Case((features, residuals, 0.0), holds(0), "At scale 0 the UNet must be as it was."),
        Case((features, residuals, 1.0), holds(1), rule),
        Case((features, residuals, 0.3), holds(0.3), rule),
    ]


def _controlled_steps() -> list[Case]:
    return [
        Case((4, 0.0, 1.0), [0, 1, 2, 3], "From 0 to 1 is all of them; the first step is 0."),
        Case(
            (20, 0.0, 0.5),
            list(range(10)),
            "Step i takes the share from i/n to (i + 1)/n; it must be over by end.",
        ),
        Case((10, 0.25, 1.0), list(range(3, 10)), "A step that begins before start isn't controlled."),
        Case((4, 0.3, 0.4), [], "No step may lie between start and end: then nothing is controlled."),
    ]


def _depth_to_grey() -> list[Case]:
    import torch

    depth = torch.tensor([[2.0, 3.0], [4.0, 4.0]])
    rule = "The farthest is 0 and the nearest 255, in whole numbers; in between it is even."
    return [
        Case((depth,), torch.tensor([[0, 128], [255, 255]]), rule),
        Case((-5 * depth + 3,), torch.tensor([[255, 128], [0, 0]]), rule),
        Case(
            (torch.ones(2, 3),), torch.zeros(2, 3), "Where all is equally near, nothing may be divided by 0."
        ),
    ]


def _mean_and_margin() -> list[Case]:
    rule = "The margin is 1.96 standard errors; the standard error is the standard deviation over √n."
    return [
        Case(([0.5, 0.5, 0.5],), (0.5, 0.0), "Values that don't differ have no margin."),
        Case(([0.0, 1.0],), (0.5, 0.98), rule + " Of a sample: divide by n - 1 in the variance."),
        Case(([0.2, 0.4, 0.6, 0.8] * 4,), (0.5, 0.11317), rule),
    ]


def _unbeaten() -> list[Case]:
    figures = {"base": (0.2, 0.9), "a": (0.8, 0.7), "b": (0.7, 0.6), "c": (0.9, 0.3)}
    return [
        Case(({"a": (0.5, 0.5)},), {"a"}, "One alone is beaten by nobody."),
        Case(({"a": (0.5, 0.5), "b": (0.6, 0.6)},), {"b"}, "Higher in both beats."),
        Case((figures,), {"base", "a", "c"}, "To be beaten, one must be lower in likeness and in fidelity."),
        Case(
            ({"a": (0.5, 0.5), "b": (0.5, 0.6)},), {"b"}, "Equal in one and higher in the other beats, too."
        ),
    ]


EXERCISES: dict[str, Callable[[], list[Case]]] = {
    "predicted_x0": _predicted_x0,  # 00
    "rescaled": _rescaled,
    "square_crop": _square_crop,  # 01
    "sharpness": _sharpness,
    "dreambooth_loss": _dreambooth_loss,  # 02
    "best_step": _best_step,
    "snr_weight": _snr_weight,
    "lora_parameters": _lora_parameters,  # 03
    "merged": _merged,
    "share_of_rank": _share_of_rank,
    "controlled_features": _controlled_features,  # 04
    "controlled_steps": _controlled_steps,
    "depth_to_grey": _depth_to_grey,
    "mean_and_margin": _mean_and_margin,  # 05
    "unbeaten": _unbeaten,
}
