"""The section on scores: all measures of all experiments, the plot, and the choice that follows."""

from __future__ import annotations

from sdlab.reports.blocks import Block, Numbers, Paragraph, Plot, Points, Section
from sdlab.reports.curves import picture
from sdlab.reports.material import Material
from sdlab.scores import MEASURES, Scores, recommend
from sdlab.scores.plots import tradeoff
from sdlab.words import Words


def scores_section(material: Material) -> Section | None:
    """What was measured, how, and what follows from it by the rule.

    Args:
        material: what is on disk.

    Returns:
        The section; None where nothing was measured.
    """
    say, scores = material.say, _without_controlled(material)
    names = [one.name for one in material.experiments]
    measured = material.measured([*names, *(k for k in material.measurements if k not in names)])
    figures = scores.table(say.language) if scores.tallies else measured
    if figures.empty:
        return None
    blocks: list[Block] = [Paragraph(material.note)] if material.note else _note(scores, say)
    blocks.append(Numbers(figures, say("scores_table")))
    fidelity = scores.of("CLIP-T")
    if fidelity and any(name in fidelity for name in scores.of(scores.likeness)):
        blocks.append(Plot("tradeoff", picture(tradeoff(scores, say.language)), say("tradeoff")))
    if any(name in scores.of(scores.likeness) for name in names):
        choice = recommend(scores, language=say.language)
        blocks.append(Paragraph(f"{choice.sentence} {say('chosen_by', rule=choice.rule)}"))
    return Section("scores", say("scores"), tuple(blocks))


def _without_controlled(material: Material) -> Scores:
    """The scores of experiments; what control costs is a thing of its own."""
    folders = {image.path.parent.name for image in material.controlled}
    return Scores({name: tally for name, tally in material.scores.tallies.items() if name not in folders})


def _note(scores: Scores, say: Words) -> list[Block]:
    """What each measure means, and by which model it was taken."""
    shown = [name for name in MEASURES if any(name in one.figures for one in scores.tallies.values())]
    if not shown:
        return []
    tally = next(iter(scores.tallies.values()))
    models = ", ".join(
        say("scores_model", name=one["name"], source=say.name(one["source"]))
        for one in tally.models
        if "revision" in one
    )
    meanings = tuple(f"{say.name(name)}: {say.name(MEASURES[name])}" for name in shown)
    return [Points(meanings), Paragraph(say("scores_models", models=models))]
