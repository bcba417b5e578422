"""The report's files: README.md, report.html, report.pdf and pictures, written when all are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from sdlab import thumbnails
from sdlab.experiment import Experiment
from sdlab.files import read_text, write_bytes, write_json
from sdlab.prompts import PromptSet
from sdlab.reports import places, prose, scan
from sdlab.reports.blocks import Block, Section, changed, numbered
from sdlab.reports.material import Material, find_experiments
from sdlab.reports.sections import all_sections
from sdlab.tables import Table, prompts_of
from sdlab.templates import render
from sdlab.typeset import Sheet
from sdlab.words import Words

if TYPE_CHECKING:
    from PIL import Image

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
    setting: int = 1,
    title: str | None = None,
    author: str = "",
    language: str = "en",
    measurements: Mapping[str, Mapping[str, Any]] | None = None,
    note: str = "",
    best: Mapping[str, str] | None = None,
) -> Path:
    """Write the report that is handed in.

    Args:
        experiments: names or experiments, also folders of images made elsewhere; None takes all in `root`.
        prompts: the prompt set of the images; None takes what the images' records say.
        out: folder for README.md, report.html, report.pdf and pictures/.
        results: folder of the images.
        root: folder of the experiments.
        dataset: folder of the prepared photos.
        images_per_cell: 1, 2 or 4.
        setting: which of the settings that the images were made with is shown, 1 the newest.
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
    chosen, elsewhere = find_experiments(experiments, Path(root), Path(results))
    prompts = prompts or prompts_of([one.name for one in chosen], results=results)
    material = Material(
        experiments=chosen,
        elsewhere=elsewhere,
        prompts=prompts,
        results=Path(results),
        photos=Path(dataset),
        given=measurements,
        pair=best,
        images_per_cell=images_per_cell,
        nth_setting=setting,
        note=note,
        words=words,
    )
    title = title or words("title", kind=words.name(f"one {material.subject.kind}"))
    drafted = changed(all_sections(material, title, author), _shortened)
    sections = numbered(places.filled(drafted, kept, words), words)
    return _write(sections, out, words, aside=kept.elsewhere)


def _write(sections: Sequence[Section], out: Path, words: Words, *, aside: bool) -> Path:
    """Makes all files, looks through them, then writes them; `aside` keeps README.md as it was."""
    readme, pictures = _readme(sections)
    page = _page(sections, out, words)
    scan.check({"README.md": readme, "report.html": page}, pictures | _own_pictures(sections, out))
    printed = _printed(sections, out, words)
    if aside:
        _keep_aside(out / "README.md")
    _write_pictures(out, pictures)
    write_bytes(out / "report.html", page.encode())
    write_bytes(out / "report.pdf", printed)
    write_bytes(out / "README.md", readme.encode())
    return out / "report.html"


def _readme(sections: Sequence[Section]) -> tuple[str, dict[str, bytes]]:
    """README.md for GitHub, and path to content of its pictures."""
    pictures: dict[str, bytes] = {}

    def linked(name: str, image: Image.Image) -> str:
        path = f"pictures/{name}.webp"
        pictures[path] = thumbnails.webp(image, quality=85)
        return quote(path)

    def table(shown: Table) -> str:
        text, files = shown.markdown_and_pictures(
            width=shown.fitting(900, 150), max_bytes=_share(shown, sections, IN_README), texts=False
        )
        pictures.update(files)
        return text

    body = render("report.md", sections=sections, linked=linked, table=table, marked=places.marked)
    return f"{places.head(body)}\n\n{body}", pictures


def _page(sections: Sequence[Section], folder: Path, words: Words) -> str:
    """report.html: one file that needs no other and prints well."""

    def table(shown: Table) -> str:
        width, share = shown.fitting(1112, 160), _share(shown, sections, IN_PAGE)
        return shown.html(width=width, max_bytes=share, texts=False)

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
    sheet.add("heading", level=1, text=_title(sections))
    for section in sections:
        if section.title:
            sheet.add("heading", level=2, text=section.title)
        for block in section.blocks:
            sheet.add(block.kind, text=block.text, points=block.points, **_shown(block, sheet, folder))
    return sheet.made()


def _shown(block: Block, sheet: Sheet, folder: Path) -> dict[str, Any]:
    """What templates/pages.typ shows of a block beside its text."""
    if block.image is not None:
        width = min(182.0, 90 * block.image.width / block.image.height)  # mm, a third of a page high
        return {"picture": sheet.picture(block.image), "width": width}
    if block.table is not None:
        return block.table.block(sheet)
    if block.figures is not None:
        written = block.figures.written()
        return {"head": list(written.columns), "rows": written.to_numpy().tolist()}
    if block.kind == "place":
        text = prose.title(block.text)[1] if block.key == "title" else block.text
        return {"nodes": prose.nodes(text, folder, sheet)}
    return {}


def _share(table: Table, sections: Sequence[Section], total: int) -> int:
    """How many bytes a table's pictures may take, by its number of cells."""
    tables = [block.table for section in sections for block in section.blocks if block.table is not None]
    count = sum(len(one.rows) * len(one.columns) for one in tables)
    return total * len(table.rows) * len(table.columns) // count


def _title(sections: Sequence[Section]) -> str:
    """The report's title, as the student may have changed it."""
    return prose.title(sections[0].blocks[0].text)[0] or "sdlab"


def _shortened(block: Block) -> Block:
    """The block with the last names of folders in place of paths on this machine."""

    def short(value: Any) -> Any:
        return scan.shortened(value) if isinstance(value, str) else value

    figures = None if block.figures is None else block.figures.map(short)
    return replace(block, text=short(block.text), points=list(map(short, block.points)), figures=figures)


def _own_pictures(sections: Sequence[Section], out: Path) -> dict[str, bytes]:
    """The pictures that a student's own texts show, by their links."""
    texts = [block.text for section in sections for block in section.blocks if block.kind == "place"]
    links = [link for text in texts for link in prose.links(text)]
    return {link: (out / unquote(link)).read_bytes() for link in links if (out / unquote(link)).is_file()}


def _write_pictures(out: Path, pictures: Mapping[str, bytes]) -> None:
    """Writes the pictures and deletes those of experiments that are gone; what a student put there stays."""
    record = out / PICTURES_MADE
    before: dict[str, str] = {}
    with suppress(OSError, ValueError):  # without a readable list nothing is known to be the report's
        before = dict(json.loads(read_text(record)))
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
