"""The report's files: README.md, report.html and the pictures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdlab import thumbnails
from sdlab.atomic import write_bytes
from sdlab.experiment import Experiment, find
from sdlab.photos import Dataset
from sdlab.photos.dataset import RECORD_FILE
from sdlab.prompts import PromptSet
from sdlab.report.conclusion import highest
from sdlab.report.sections import Material, Section, all_sections
from sdlab.scores import load_scores
from sdlab.table import prompts_of
from sdlab.templates import markdown_text, render

MADE_BY = "<!-- made by `sdlab report`; what you write in the conclusion is kept -->"
# Of all pictures, so that the folder stays below 2 MB; README.md's tables share most of theirs.
MAX_BYTES = {"README.md": 900_000, "report.html": 1_150_000}
BEGIN, END = "<!-- conclusion {draft}: edit below -->", "<!-- end of the conclusion -->"


def report(
    experiments: Iterable[str | Experiment] | None = None,
    prompts: PromptSet | None = None,
    *,
    out: str | Path = "results/report",
    results: str | Path = "results",
    root: str | Path = "experiments",
    dataset: str | Path = "data/instance_images",
    images_per_cell: int = 4,
    title: str = "Teaching Stable Diffusion one person",
    measurements: Mapping[str, Mapping[str, Any]] | None = None,
    note: str = "",
    best: Mapping[str, str] | None = None,
) -> Path:
    """Write the report that is handed in.

    Args:
        experiments: names or experiments; None takes all that are in `root`.
        prompts: the prompt set of the images; None takes what the images' records say.
        out: folder for README.md, report.html and pictures/.
        results: folder of the images.
        root: folder of the experiments.
        dataset: folder of the prepared photos.
        images_per_cell: 1, 2 or 4.
        title: the report's title.
        measurements: experiment (or "base") to the name and value of each measurement, higher is better; a
            value is a number, or a mean with the ends of its interval. The conclusion speaks of these only.
            None takes the scores that lie beside the images, as far as `sdlab score` left some.
        note: how the measurements were made, one or two sentences.
        best: "dreambooth" and "lora" to the experiments that are compared with each other, and "why".

    Returns:
        The path of report.html.

    Raises:
        ValueError: there are no experiments, or `out` holds a README.md that this function didn't make.

    Taught in: notebooks/02
    """
    chosen = _experiments(experiments, Path(root))
    if measurements is None:  # what `sdlab score` left beside the images
        scores = load_scores(["base", *(one.name for one in chosen)], results)
        measurements, note = scores.measurements(), note or scores.note()
    found = prompts or prompts_of([one.name for one in chosen], results=results)
    out = Path(out)
    kept = _edited_conclusion(out / "README.md")
    material = Material(
        experiments=tuple(chosen),
        prompts=found,
        results=Path(results),
        dataset=Dataset.load(dataset) if (Path(dataset) / RECORD_FILE).is_file() else None,
        measurements=measurements,
        best=best or _best(chosen, measurements),
        images_per_cell=images_per_cell,
        note=note,
    )
    sections = all_sections(material)
    write_bytes(out / "README.md", _without_places(_markdown(title, sections, out, kept)).encode())
    write_bytes(out / "report.html", _without_places(_html(title, sections, kept)).encode())
    return out / "report.html"


def _experiments(experiments: Iterable[str | Experiment] | None, root: Path) -> list[Experiment]:
    if experiments is None:
        chosen = find(root)
    else:
        chosen = [
            e if isinstance(e, Experiment) else Experiment.load(e, root) for e in experiments if e != "base"
        ]
    if not chosen:
        raise ValueError(
            f"there are no experiments in {root}. Train some: `sdlab train dreambooth --name ...`."
        )
    return chosen


def _best(experiments: list[Experiment], measurements: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The best of each method by the first measurement, or the only ones that there are."""
    names = dict.fromkeys(name for values in measurements.values() for name in values)
    by_method = {
        method: [e for e in experiments if e.hyperparameters.method == method]
        for method in ("dreambooth", "lora")
    }
    for name in names:
        best = {method: highest(name, group, measurements) for method, group in by_method.items()}
        if all(best.values()):
            why = f"The experiment of each method with the highest {name}."
            return {method: one.name for method, one in best.items() if one} | {"why": why}
    if all(len(group) == 1 for group in by_method.values()):
        return {method: group[0].name for method, group in by_method.items()}
    return {}


def _markdown(title: str, sections: list[Section], out: Path, kept: str) -> str:
    shares = _shares(sections, MAX_BYTES["README.md"])
    parts = [MADE_BY, f"# {markdown_text(title)}"]
    for section in sections:
        parts.append(f"## {markdown_text(section.title)}")
        parts += [markdown_text(text) for text in section.paragraphs if text]
        if section.flags:
            parts.append("```\n" + _lines(section.flags).replace("```", "'''") + "\n```")
        if section.figures is not None:
            parts.append(section.figures.markdown())
        if section.curve:
            name = f"pictures/loss_{section.key}.webp"
            write_bytes(out / name, section.curve)
            parts.append(f'<img src="{name}" width="700" alt="Training loss over steps: {section.title}">')
        if section.table is not None:
            parts.append(section.table.markdown(out, max_bytes=shares[section.title], texts=False))
        points = "\n".join(f"- {markdown_text(point)}" for point in section.points)
        parts.append(_marked(points, kept) if section.editable else points)
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _html(title: str, sections: list[Section], kept: str) -> str:
    lines = [line.removeprefix("- ").strip() for line in kept.splitlines() if line.strip()]
    return render(
        "report.html",
        title=title,
        sections=sections,
        kept=lines,
        shares=_shares(sections, MAX_BYTES["report.html"]),
        uri=thumbnails.data_uri,
    )


def _shares(sections: list[Section], total: int) -> dict[str, int]:
    """How many bytes each section's table may take, by its number of cells."""
    cells = {s.title: sum(map(len, s.table.cells)) for s in sections if s.table is not None}
    return {title: total * count // sum(cells.values()) for title, count in cells.items()}


def _lines(flags: Iterable[str], width: int = 88) -> str:
    """Flags side by side, as many as fit into a line."""
    lines = [""]
    for flag in flags:
        if lines[-1] and len(lines[-1]) + len(flag) + 2 > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + flag
    return "\n".join(lines)


def _marked(draft: str, kept: str) -> str:
    """The conclusion between its marks, the student's own words where there are any."""
    return f"{BEGIN.format(draft=_hash(draft))}\n\n{kept or draft}\n\n{END}"


def _edited_conclusion(readme: Path) -> str:
    """What the student wrote in place of the draft; empty where the draft is as it was made."""
    if not readme.is_file():
        return ""
    text = readme.read_text(encoding="utf-8")
    if MADE_BY not in text:
        raise ValueError(
            f"{readme} wasn't made by `sdlab report`. Move it away, or choose another folder with --out."
        )
    pattern = re.escape(BEGIN).replace(re.escape("{draft}"), "([0-9a-f]+)") + "(.*?)" + re.escape(END)
    found = re.search(pattern, text, re.DOTALL)
    if found is None or _hash(found.group(2)) == found.group(1):
        return ""
    return found.group(2).strip()


def _hash(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]


def _without_places(text: str) -> str:
    """The text without folders of this machine, which say who made it and mean nothing elsewhere."""
    for place in (str(Path.cwd()), str(Path.home())):
        if len(place) > 1:
            text = re.sub(re.escape(place) + r"(?=[/\\\s\"'<]|$)[/\\]?", "", text)
    return text
