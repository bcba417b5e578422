"""Sliders over the checkpoints of a training and over the scales of a LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdlab import notebook
from sdlab.experiment import Experiment
from sdlab.images import generate
from sdlab.models import checkpoint_names, resolve
from sdlab.panels.explorer import Explorer, new_key, pictures
from sdlab.prompts import PromptSet
from sdlab.tables import Table, table
from sdlab.templates import render

SCALES = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)


def checkpoint_slider(
    experiment: str | Experiment,
    prompts: PromptSet,
    *,
    root: str | Path = "experiments",
    results: str | Path = "results",
    progress: bool = True,
    **sampling: Any,
) -> Explorer:
    """Shows the same prompts and seed over the steps of a training.

    Args:
        experiment: Finished; train with `checkpoints_total_limit=None` to have all its checkpoints.
        prompts: The prompt set, its subject filled in.
        root: The folder of all experiments.
        results: What is missing is generated to `<results>/<experiment>@step<N>/`.
        progress: Show a progress bar while generating.
        **sampling: For `generate`, such as `seed`.

    Returns:
        The explorer; its table has a row for what the training began from and one for each checkpoint.

    Raises:
        ValueError: There is no such experiment, or it isn't finished.

    Taught in: notebooks/03
    """
    found = _find(experiment, root)
    below = resolve(found.hyperparameters.pretrained_model_name_or_path, found.root).experiment
    between = checkpoint_names(found.path, root)
    names = [below.name if below else "base", *between, found.name]
    labels = ["0", *(name.rpartition("@step")[2] for name in between), str(found.record["steps"])]
    shown = _generated(names, prompts, {"root": found.root, "results": results}, progress, sampling)
    return _slider("step", labels, shown)


def lora_scale_slider(
    experiment: str | Experiment,
    prompts: PromptSet,
    scales: Sequence[float] = SCALES,
    *,
    root: str | Path = "experiments",
    results: str | Path = "results",
    progress: bool = True,
    **sampling: Any,
) -> Explorer:
    """Shows the same prompts and seed with more and more of a LoRA added to its base.

    Args:
        experiment: A finished LoRA.
        prompts: The prompt set, its subject filled in.
        scales: How much of it, from 0 on; 1 is as trained.
        root: The folder of all experiments.
        results: What is missing is generated to `<results>/<experiment>@<scale>/`.
        progress: Show a progress bar while generating.
        **sampling: For `generate`, such as `seed`.

    Returns:
        The explorer; its table has a row for each scale, named as `generate` names it.

    Raises:
        ValueError: It is no finished LoRA, or there is no scale.

    Taught in: notebooks/03
    """
    if not scales:
        raise ValueError("scales needs one value at least, got none. Usual: 0 to 1.5.")
    found = _find(experiment, root)
    names = [f"{found.name}@{scale:g}" for scale in scales]
    for name in names:
        resolve(name, found.root)  # raises where it is no LoRA, before anything is made
    shown = _generated(names, prompts, {"root": found.root, "results": results}, progress, sampling)
    return _slider("scale", [f"{scale:g}" for scale in scales], shown)


def _find(experiment: str | Experiment, root: str | Path) -> Experiment:
    """The experiment, if it is finished; `resolve` says what to do if it isn't."""
    found = Experiment.load(experiment.path if isinstance(experiment, Experiment) else experiment, root)
    resolve(found.path, found.root)
    return found


def _generated(
    names: list[str],
    prompts: PromptSet,
    places: dict[str, str | Path],
    progress: bool,
    sampling: dict[str, Any],
) -> Table:
    """One image for each name and prompt, generated as far as missing."""
    import tqdm.auto

    # on a page, a bar of text leaves an empty red line; without one, a widget leaves a widget
    bar = tqdm.auto.tqdm if notebook.has_widgets() else tqdm.tqdm
    options: dict[str, Any] = {"images_per_prompt": 1, "progress": False, **places, **sampling}
    base = resolve(names[-1], places["root"]).root_name
    for name in bar(names, desc="images", unit="row", leave=False, disable=not progress):
        generate(name, prompts, base=base, **options)
    return table(names, prompts, images_per_cell=1, root=places["root"], results=places["results"])


def _slider(what: str, labels: list[str], shown: Table) -> Explorer:
    """A slider that shows one row of the table at a time."""

    def build() -> Any:
        import ipywidgets

        key, made = new_key(), pictures(shown)
        rows = [[made[cell.name] for cell in row] for row in shown.cells]
        frames = render("frames.html", key=key, rows=rows, columns=shown.columns, labels=labels, what=what)
        chosen = ipywidgets.HTML()
        slider = ipywidgets.SelectionSlider(
            options=[(label, index) for index, label in enumerate(labels)],
            value=len(labels) - 1,
            description=what,
            layout=ipywidgets.Layout(width="100%", max_width="480px"),
        )

        def choose(change: object = None) -> None:
            chosen.value = f"<style>.{key} .frame:nth-of-type({slider.value + 1}) {{ display: flex }}</style>"

        slider.observe(choose, "value")
        choose()
        return ipywidgets.VBox([slider, ipywidgets.HTML(frames), chosen])

    return Explorer(lambda: shown, build)
