"""The report's files: README.md, report.html, report.pdf and pictures, written when all are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sdlab.experiment import Experiment
from sdlab.files import write_bytes
from sdlab.prompts import PromptSet
from sdlab.reports import html, markdown, pdf, places, prose, scan
from sdlab.reports.blocks import Block, Flags, Numbers, Paragraph, Place, Points, Section, numbered
from sdlab.reports.material import gather
from sdlab.reports.sections import all_sections
from sdlab.words import Words


def report(
    experiments: Iterable[str | Experiment] | None = None,
    prompts: PromptSet | None = None,
    *,
    out: str | Path = "results/report",
    results: str | Path = "results",
    root: str | Path = "experiments",
    dataset: str | Path = "data/instance_images",
    images_per_cell: int = 4,
    title: str | None = None,
    author: str = "",
    language: str = "en",
    measurements: Mapping[str, Mapping[str, Any]] | None = None,
    note: str = "",
    best: Mapping[str, str] | None = None,
) -> Path:
    """Write the report that is handed in.

    Args:
        experiments: names or experiments; None takes all that are in `root`.
        prompts: the prompt set of the images; None takes what the images' records say.
        out: folder for README.md, report.html, report.pdf and pictures/.
        results: folder of the images.
        root: folder of the experiments.
        dataset: folder of the prepared photos.
        images_per_cell: 1, 2 or 4.
        title: the report's title.
        author: name, group and year, in a line under the title.
        language: "en" or "ru".
        measurements: experiment (or "base") to the name and value of each measurement, higher is better,
            likeness first; a value is a number, or a mean with the ends of its interval. The conclusion
            speaks of these only. None takes the scores that `sdlab score` left beside the images.
        note: how the measurements were made, one or two sentences.
        best: "dreambooth" and "lora" to the experiments that are compared with each other, and "why".

    Returns:
        The path of report.html.

    Raises:
        ValueError: there are no experiments, `out` holds a README.md that this function didn't make, or the
            report would hold a token, a path of this machine or a picture with EXIF.

    Taught in: notebooks/05
    """
    out, say = Path(out), Words(language)
    kept = places.read_kept(out / "README.md")
    material = gather(
        experiments,
        prompts,
        results=Path(results),
        root=Path(root),
        dataset=Path(dataset),
        measurements=measurements,
        note=note,
        best=best,
        images_per_cell=images_per_cell,
        say=say,
    )
    drafted = [_shortened(section) for section in all_sections(material, title or say("title"), author)]
    sections = list(numbered(places.filled(drafted, kept, say), say))
    readme, pictures = markdown.render(sections)
    page = html.render_page(sections, out, say)
    own = _own_pictures(sections, out)
    scan.check({"README.md": readme, "report.html": page}, pictures | own)
    printed = pdf.render(sections, out, say)
    if kept.elsewhere:
        _keep_aside(out / "README.md")
    for link, content in pictures.items():
        write_bytes(out / link, content)
    write_bytes(out / "report.html", page.encode())
    write_bytes(out / "report.pdf", printed)
    write_bytes(out / "README.md", readme.encode())
    for link in kept.links - {*map(markdown.linked, pictures), *own}:  # of experiments that are gone
        (out / unquote(link)).unlink(missing_ok=True)
    return out / "report.html"


def _shortened(section: Section) -> Section:
    """The section with the last names of folders in place of paths on this machine."""
    return replace(section, blocks=tuple(map(_short_block, section.blocks)))


def _short_block(block: Block) -> Block:
    match block:
        case Paragraph(text):
            return Paragraph(scan.shortened(text))
        case Points(points):
            return Points(tuple(map(scan.shortened, points)))
        case Flags(flags):
            return Flags(tuple(map(scan.shortened, flags)))
        case Numbers(figures, caption):
            return Numbers(figures.map(lambda v: scan.shortened(v) if isinstance(v, str) else v), caption)
    return block


def _own_pictures(sections: Sequence[Section], out: Path) -> dict[str, bytes]:
    """The pictures that a student's own texts show, by their links."""
    texts = [block.text for section in sections for block in section.blocks if isinstance(block, Place)]
    links = [link for text in texts for link in prose.links(text)]
    return {link: (out / unquote(link)).read_bytes() for link in links if (out / unquote(link)).is_file()}


def _keep_aside(readme: Path) -> None:
    """Keeps a README.md that was changed outside of the places, under a name that is free."""
    number = 1
    while (aside := readme.with_name(f"README.before_{number}.md")).exists():
        number += 1
    write_bytes(aside, readme.read_bytes())
    print(f"README.md was changed outside of the marked places; as it was, it is kept in {aside}")
