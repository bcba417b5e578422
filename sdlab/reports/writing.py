"""The report's files: README.md, report.html, report.pdf and pictures, written when all are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sdlab import thumbnails
from sdlab.experiment import Experiment
from sdlab.files import write_bytes, write_json
from sdlab.prompts import PromptSet
from sdlab.reports import places, prose, scan
from sdlab.reports.blocks import (
    Block,
    Flags,
    Numbers,
    Paragraph,
    Pictures,
    Place,
    Plot,
    Points,
    Section,
    numbered,
    shares,
)
from sdlab.reports.material import gather
from sdlab.reports.sections import all_sections
from sdlab.templates import render
from sdlab.typeset import Sheet
from sdlab.words import Words

IN_README, IN_PAGE = 700_000, 1_000_000  # bytes of all pictures
PICTURES_MADE = "pictures/made.json"  # which pictures are the report's, not the student's


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
    out, words = Path(out), Words(language)
    kept = places.read_kept(out / "README.md")
    material = gather(
        experiments,
        prompts,
        results=Path(results),
        root=Path(root),
        dataset=Path(dataset),
        measurements=measurements,
        best=best,
        images_per_cell=images_per_cell,
        note=note,
        words=words,
    )
    drafted = [_shortened(section) for section in all_sections(material, title or words("title"), author)]
    sections = list(numbered(places.filled(drafted, kept, words), words))
    readme, pictures = _readme(sections)
    page = _page(sections, out, words)
    scan.check({"README.md": readme, "report.html": page}, pictures | _own_pictures(sections, out))
    printed = _printed(sections, out, words)
    if kept.elsewhere:
        _keep_aside(out / "README.md")
    _write_pictures(out, pictures)
    write_bytes(out / "report.html", page.encode())
    write_bytes(out / "report.pdf", printed)
    write_bytes(out / "README.md", readme.encode())
    return out / "report.html"


def _readme(sections: Sequence[Section]) -> tuple[str, dict[str, bytes]]:
    """README.md for GitHub, and path to content of its pictures."""
    pictures: dict[str, bytes] = {}
    share = shares(sections, IN_README)

    def linked(block: Plot) -> str:
        path = f"pictures/{block.name}.webp"
        pictures[path] = thumbnails.webp(block.image, quality=85)
        return quote(path)

    def table(block: Pictures) -> str:
        text, files = block.table.markdown_and_pictures(
            width=block.table.fitting(900, 150), max_bytes=share[id(block.table)], texts=False
        )
        pictures.update(files)
        return text

    body = render("report.md", sections=sections, linked=linked, table=table, marked=places.marked)
    return f"{places.head(body)}\n\n{body}", pictures


def _page(sections: Sequence[Section], folder: Path, words: Words) -> str:
    """report.html: one file that needs no other and prints well."""
    share = shares(sections, IN_PAGE)

    def table(block: Pictures) -> str:
        shown = block.table
        return shown.html(width=shown.fitting(1112, 160), max_bytes=share[id(shown)], texts=False)

    return render(
        "report.html",
        title=_title(sections),
        sections=sections,
        table=table,
        picture=partial(thumbnails.data_uri, quality=85),
        prose=partial(prose.html, folder=folder),
        words=words,
    )


def _printed(sections: Sequence[Section], folder: Path, words: Words) -> bytes:
    """report.pdf: A4 pages with numbers; no table is wider than its page, no picture is cut."""
    sheet = Sheet(_title(sections), words.language)
    sheet.blocks.append({"kind": "heading", "level": 1, "text": _title(sections)})
    for section in sections:
        if section.title:
            sheet.blocks.append({"kind": "heading", "level": 2, "text": section.title})
        for block in section.blocks:
            made: dict[str, Any]
            match block:
                case Plot(_, image, caption):
                    width = min(182.0, 90 * image.width / image.height)  # mm, a third of a page high
                    made = {"caption": caption, "picture": sheet.picture(image), "width": width}
                case Pictures(table, caption):
                    made = table.block(sheet, caption)
                case Numbers(figures, caption):
                    written = figures.written()
                    rows = written.to_numpy().tolist()
                    made = {"caption": caption, "head": list(written.columns), "rows": rows}
                case Place(key, text):
                    text = prose.title(text)[1] if key == "title" else text
                    made = {"nodes": prose.nodes(text, folder, sheet)}
                case _:
                    made = vars(block)
            sheet.blocks.append({"kind": block.kind} | made)
    return sheet.made()


def _title(sections: Sequence[Section]) -> str:
    """The report's title, as the student may have changed it."""
    texts = [block.text for block in sections[0].blocks if isinstance(block, Place)]
    return prose.title(texts[0])[0] or "sdlab"


def _shortened(section: Section) -> Section:
    """The section with the last names of folders in place of paths on this machine."""
    return replace(section, blocks=tuple(map(_short_block, section.blocks)))


def _short_block(block: Block) -> Block:
    match block:
        case Paragraph(text):
            return Paragraph(scan.shortened(text))
        case Points(points):
            return Points(tuple(map(scan.shortened, points)))
        case Flags(text):
            return Flags(scan.shortened(text))
        case Numbers(figures, caption):
            return Numbers(figures.map(lambda v: scan.shortened(v) if isinstance(v, str) else v), caption)
    return block


def _own_pictures(sections: Sequence[Section], out: Path) -> dict[str, bytes]:
    """The pictures that a student's own texts show, by their links."""
    texts = [block.text for section in sections for block in section.blocks if isinstance(block, Place)]
    links = [link for text in texts for link in prose.links(text)]
    return {link: (out / unquote(link)).read_bytes() for link in links if (out / unquote(link)).is_file()}


def _write_pictures(out: Path, pictures: Mapping[str, bytes]) -> None:
    """Writes the pictures and deletes those of experiments that are gone; what a student put there stays."""
    record = out / PICTURES_MADE
    before = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for path, content in pictures.items():
        write_bytes(out / path, content)
    write_json(record, {path: _sum(content) for path, content in pictures.items()})
    for path in set(before) - set(pictures):
        old = out / path
        if old.is_file() and _sum(old.read_bytes()) == before[path]:
            old.unlink()
            if not any(old.parent.iterdir()):
                old.parent.rmdir()


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _keep_aside(readme: Path) -> None:
    """Keeps a README.md that was changed outside of the places, under a name that is free."""
    number = 1
    while (aside := readme.with_name(f"README.before_{number}.md")).exists():
        number += 1
    write_bytes(aside, readme.read_bytes())
    print(f"README.md was changed outside of the marked places; as it was, it is kept in {aside}")
