"""The report's files: README.md, report.html, report.pdf and pictures, written when all are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sdlab import thumbnails, typeset
from sdlab.experiment import Experiment, photos_of
from sdlab.files import read_text, write_bytes, write_json
from sdlab.images import BASE
from sdlab.prompts import PromptSet
from sdlab.reports import prose, scan
from sdlab.reports.document import Part, parts_of, read_places, readme_head, title_given
from sdlab.reports.material import Material, find_experiments
from sdlab.sampling import IMAGE_ENDINGS
from sdlab.tables import prompts_of
from sdlab.templates import markdown_text, render
from sdlab.words import Words

IN_README, IN_PAGE = 700_000, 2_400_000  # bytes of all pictures
PICTURES_MADE = "pictures/made.json"  # which pictures are the report's, not the student's


def report(
    experiments: str | Experiment | Iterable[str | Experiment] | None = None,
    prompts: PromptSet | None = None,
    *,
    out: str | Path = "results/report",
    results: str | Path = "results",
    root: str | Path = "experiments",
    dataset: str | Path | None = None,
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
        dataset: folder of the prepared photos; None takes the one that the experiments were trained on.
        images_per_cell: 1, 2 or 4.
        setting: which of the settings that the images were made with is shown, 1 the newest.
        title: the report's title.
        author: name, group and year, in a line under the title.
        language: "en" or "ru".
        measurements: experiment (or "base") to a measurement's name to a number, or a mean and its interval's
            ends; higher is better, likeness first; `PRES` is the class's. None takes those of `sdlab score`.
        note: how the measurements were made, one or two sentences.
        best: "dreambooth" and "lora" to the experiments that are compared with each other, and "why".

    Returns:
        The path of report.html.

    Raises:
        ValueError: no experiments, a README.md that isn't a report, or a token, path or EXIF in the report.

    Taught in: notebooks/05
    """
    root, results = Path(root).expanduser(), Path(results).expanduser()
    chosen, elsewhere = find_experiments(experiments, root, results)
    material = Material(
        experiments=chosen,
        elsewhere=elsewhere,
        prompts=prompts or prompts_of([*(one.name for one in chosen), BASE], results=results),
        results=results,
        photos=Path(photos_of(chosen) if dataset is None else dataset).expanduser(),
        given=measurements,
        pair=best,
        images_per_cell=images_per_cell,
        nth_setting=setting,
        note=note,
        words=Words(language),
    )
    return _write(material, title, author, Path(out).expanduser())


def _write(material: Material, title: str | None, author: str, out: Path) -> Path:
    """Writes the report in its three forms, once all of them are made and hold nothing private."""
    words = material.words
    written, changed = read_places(out / "README.md")
    if "title" in written and (title or author):
        print("the title in README.md is your own and stays; --title and --author are ignored")
    before = "" if title or author else title_given(out / "README.md")
    title = title or words("title", kind=words.name(f"one {material.subject.kind}"))
    parts = parts_of(material, title, author, written, before)
    readme, pictures = _readme(parts)
    page = _page(parts, out, words)
    scan.check({"README.md": readme, "report.html": page}, pictures | _own_pictures(parts, out))
    printed = _printed(parts, out, words)
    if changed:
        _keep_aside(out / "README.md")
    _write_pictures(out, pictures)
    write_bytes(out / "report.html", page.encode())
    write_bytes(out / "report.pdf", printed)
    write_bytes(out / "README.md", readme.encode())
    return out / "report.html"


def _readme(parts: Sequence[Part]) -> tuple[str, dict[str, bytes]]:
    """README.md for GitHub, and path to content of its pictures."""
    pictures: dict[str, bytes] = {}

    def markdown(part: Part) -> str:
        caption = f"*{markdown_text(part.text)}*"
        match part.kind:
            case "heading":
                return f"## {markdown_text(part.text)}"
            case "place":
                return part.marked()
            case "numbers":
                return f"{caption}\n\n{part.content.markdown()}"
            case "plot":
                path = f"pictures/{part.key}.webp"
                pictures[path] = thumbnails.webp(part.content, quality=85)
                image = f'<img src="{quote(path)}" width="700" alt="{markdown_text(part.text)}">'
                return f"{image}\n\n{caption}"
            case "pictures":
                width, share = part.content.fitting(900), _share(part, parts, IN_README)
                text, files = part.content.markdown_and_pictures(width=width, max_bytes=share)
                pictures.update(files)
                return f"{caption}\n\n{text}"
        return part.text

    body = "\n\n".join(markdown(part).strip() for part in parts) + "\n"
    return f"{readme_head(body)}\n\n{body}", pictures


def _page(parts: Sequence[Part], folder: Path, words: Words) -> str:
    """report.html: one file that needs no other and prints well."""

    def table(part: Part) -> str:
        width, share = part.content.fitting(1112), _share(part, parts, IN_PAGE)
        return str(part.content.html(width=width, max_bytes=share))

    return render(
        "report.html",
        title=_title(parts),
        parts=parts,
        table=table,
        picture=partial(thumbnails.data_uri, quality=85),
        prose=partial(prose.html, folder=folder),
        words=words,
    )


def _printed(parts: Sequence[Part], folder: Path, words: Words) -> bytes:
    """report.pdf: A4 pages with numbers; no table is wider than its page, no picture is cut."""
    blocks: list[dict[str, Any]] = [{"kind": "heading", "level": 1, "text": _title(parts)}]
    for part in parts:
        shown: dict[str, Any] = {"kind": part.kind, "text": part.text}
        match part.kind:
            case "heading":
                shown["level"] = 2
            case "numbers":
                written = part.content.written()
                shown |= {"head": list(written.columns), "rows": written.to_numpy().tolist()}
            case "plot":
                across = part.content.width / part.content.height
                shown |= {"picture": part.content, "width": min(182.0, 90 * across)}  # mm, a third of a page
            case "pictures":
                shown |= part.content.block()
            case _:
                text = prose.title(part.text)[1] if part.key == "title" else part.text
                shown["nodes"] = prose.nodes(text, folder)
        blocks.append(shown)
    return typeset.pages(_title(parts), blocks, words.language)


def _share(part: Part, parts: Sequence[Part], total: int) -> int:
    """How many bytes a table's pictures may take, by its number of cells."""
    cells = {
        id(one): len(one.content.rows) * len(one.content.columns) for one in parts if one.kind == "pictures"
    }
    return total * cells[id(part)] // sum(cells.values())


def _title(parts: Sequence[Part]) -> str:
    """The report's title, as the student may have changed it."""
    return prose.title(parts[0].text)[0] or "sdlab"


def _own_pictures(parts: Sequence[Part], out: Path) -> dict[str, bytes]:
    """The pictures that a student's own texts show, by their links."""
    texts = [part.text for part in parts if part.kind == "place"]
    links = [link for text in texts for link in prose.links(text)]
    named = [
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS
    ]
    links += [link for link in named if any(link in text or quote(link) in text for text in texts)]
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
