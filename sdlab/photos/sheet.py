"""The contact sheet: before and after of each photo, with the crop drawn and the findings beneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sdlab import thumbnails
from sdlab.files import write_bytes
from sdlab.lettering import broken, font
from sdlab.photos.cache import Cache
from sdlab.photos.dataset import Dataset, Record
from sdlab.photos.faces import Face
from sdlab.templates import render

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SIDE, GAP, MARGIN = 168, 8, 32
CARD = 2 * SIDE + GAP
COLUMNS = 4
LINE = 18
PAPER, INK, QUIET, CROP, FACE, ALARM = "#ffffff", "#1d1f24", "#676d78", "#e0356b", "#f5b400", "#b3261e"
HOW_TO_READ = "Each photo as it came, with the crop (red) and the face (yellow), and the image made of it."
MADE_BY = "contact sheet by sdlab"


@dataclass(frozen=True)
class _Card:
    before: Image.Image | None
    after: Image.Image
    lines: tuple[tuple[str, str, bool], ...]  # text, colour, bold


def save_sheet(dataset: Dataset, path: str | Path | None = None) -> Path:
    """Write the contact sheet as PNG.

    Args:
        dataset: prepared.
        path: where; None takes `<folder>_sheet.png` beside the dataset's folder, since a picture in the
            folder would be trained on.

    Returns:
        The path.

    Raises:
        ValueError: there is another picture, which isn't overwritten.
    """
    import io

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path = Path(path) if path else dataset.folder.with_name(f"{dataset.folder.name}_sheet.png")
    if path.exists():
        with Image.open(path) as there:
            if there.info.get("Software") != MADE_BY:
                raise ValueError(
                    f"{path} is no contact sheet of sdlab's. Move it away, or choose another name."
                )
    info = PngInfo()
    info.add_text("Software", MADE_BY)
    buffer = io.BytesIO()
    draw_sheet(dataset).save(buffer, "PNG", pnginfo=info)
    return write_bytes(path, buffer.getvalue())


def draw_sheet(dataset: Dataset) -> Image.Image:
    """Draw the contact sheet.

    Args:
        dataset: prepared.

    Returns:
        An RGB picture, four photos wide.
    """
    from PIL import Image, ImageDraw

    cards = [_card(dataset, record) for record in _shown(dataset)]
    columns = min(COLUMNS, max(2, len(cards)))
    width = 2 * MARGIN + columns * CARD + (columns - 1) * MARGIN
    measuring = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    head = _head(dataset, measuring, width - 2 * MARGIN)
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [SIDE + GAP + LINE * max(len(card.lines) for card in row) + MARGIN for row in rows]
    top = MARGIN + 40 + LINE * len(head) + 16
    sheet = Image.new("RGB", (width, top + sum(heights)), PAPER)
    drawing = ImageDraw.Draw(sheet)
    drawing.text((MARGIN, MARGIN - 6), _title(dataset), fill=INK, font=font(24, bold=True))
    _write(drawing, head, MARGIN, MARGIN + 36)
    for row, height in zip(rows, heights, strict=True):
        for index, card in enumerate(row):
            _paste(sheet, drawing, card, MARGIN + index * (CARD + MARGIN), top)
        top += height
    return sheet


def sheet_html(dataset: Dataset, side: int = 112) -> str:
    """The contact sheet for a notebook.

    Args:
        dataset: prepared.
        side: of a picture in pixels.

    Returns:
        HTML that carries its pictures in itself.
    """
    pictures = []
    for record in _shown(dataset):
        card = _card(dataset, record)
        both = [thumbnails.fitted(picture, side) for picture in (card.before, card.after) if picture]
        pictures.append(
            {
                "name": record["source"] or record["file"],
                "uris": [thumbnails.data_uri(picture) for picture in both],
                "notes": record["notes"],
                "findings": [text for text, _, bold in _texts(dataset, record)[1:] if bold],
            }
        )
    return render(
        "dataset.html", dataset=dataset, pictures=pictures, side=side, diagnosis=dataset.diagnosis()[1:]
    )


def before_picture(dataset: Dataset, record: Record, side: int = SIDE) -> Image.Image | None:
    """The small whole photo with the crop and the face drawn; None for an image that the user put there.

    Args:
        dataset: of the image.
        record: of the image.
        side: of the longer side in pixels.

    Returns:
        An RGB picture.
    """
    from PIL import ImageDraw

    path = Cache(dataset.folder).before(record["file"])
    if record["crop"] is None or not path.is_file():
        return None
    picture = thumbnails.fitted(thumbnails.opened(path), side)
    scale = max(picture.size) / max(record["size"])
    drawing = ImageDraw.Draw(picture)
    if record["face"]:
        face = Face(*record["face"]).scaled(scale)
        drawing.rectangle(
            (face.left, face.top, face.left + face.width, face.top + face.height), outline=FACE, width=2
        )
    left, top, right, low = (round(value * scale) for value in record["crop"])
    edge = (max(0, left), max(0, top), min(picture.width, right) - 1, min(picture.height, low) - 1)
    drawing.rectangle(edge, outline=CROP, width=3)
    return picture


def _shown(dataset: Dataset) -> list[Record]:
    return [record for record in dataset.records if (dataset.folder / record["file"]).is_file()]


def _card(dataset: Dataset, record: Record) -> _Card:
    from PIL import Image, ImageDraw

    measuring = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    texts = _texts(dataset, record)
    after = thumbnails.fitted(thumbnails.opened(dataset.folder / record["file"]), SIDE)
    return _Card(before_picture(dataset, record), after, tuple(_lines(measuring, texts, CARD)))


def _texts(dataset: Dataset, record: Record) -> list[tuple[str, str, bool]]:
    """Name, notes and findings of a photo, each with its colour and whether it is bold."""
    found = [finding for finding in dataset.findings_of(record["file"]) if finding.level != "note"]
    notes = [("; ".join(record["notes"]), QUIET, False)] if record["notes"] else []
    name = (record["source"] or record["file"], INK, True)
    return [name, *notes, *((finding.text, ALARM, True) for finding in found)]


def _lines(
    drawing: ImageDraw.ImageDraw, texts: Sequence[tuple[str, str, bool]], width: int
) -> list[tuple[str, str, bool]]:
    return [
        (line, colour, bold)
        for text, colour, bold in texts
        for line in broken(partial(drawing.textlength, font=font(13, bold=bold)), text, width)
    ]


def _title(dataset: Dataset) -> str:
    return f"{len(dataset)} images of {dataset.resolution}×{dataset.resolution}"


def _head(dataset: Dataset, drawing: ImageDraw.ImageDraw, width: int) -> list[tuple[str, str, bool]]:
    """How to read the sheet, what is wrong with the dataset as a whole, and which photos aren't in it."""
    texts = [(HOW_TO_READ, QUIET, False)]
    texts += [
        (f"{finding.text}: {finding.effect}", ALARM, True) for finding in dataset.findings if not finding.file
    ]
    texts += [(f"refused {entry['source']}: {entry['reason']}", INK, False) for entry in dataset.refused]
    texts += [(f"dropped {record['source']}: {record['dropped']}", INK, False) for record in dataset.dropped]
    return _lines(drawing, texts, width)


def _paste(sheet: Image.Image, drawing: ImageDraw.ImageDraw, card: _Card, left: int, top: int) -> None:
    for index, picture in enumerate((card.before, card.after)):
        if picture is not None:
            x = left + index * (SIDE + GAP) + (SIDE - picture.width) // 2
            sheet.paste(picture, (x, top + (SIDE - picture.height) // 2))
        else:
            box = (left, top, left + SIDE, top + SIDE)
            drawing.rounded_rectangle(box, radius=8, fill="#eef0f3")
            middle = (left + SIDE // 2, top + SIDE // 2)
            drawing.text(middle, "made by hand", fill=QUIET, font=font(13), anchor="mm")
    _write(drawing, card.lines, left, top + SIDE + GAP)


def _write(drawing: ImageDraw.ImageDraw, lines: Sequence[tuple[str, str, bool]], x: int, y: int) -> None:
    for text, colour, bold in lines:
        drawing.text((x, y), text, fill=colour, font=font(13, bold=bold))
        y += LINE
