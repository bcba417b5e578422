"""The doctor names what will spoil the training, with value and threshold, and leaves good photos alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image, ImageFilter

from sdlab.photos import Dataset, prepare, save_sheet
from sdlab.photos.dataset import RECORD_FILE
from sdlab.photos.doctor import KINDS, examine


def astronaut() -> Image.Image:
    from skimage.data import astronaut

    return Image.fromarray(astronaut())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Real photos with one fault each, from scikit-image's wheel."""
    from skimage import data

    raw = tmp_path_factory.mktemp("photos") / "raw"
    raw.mkdir()
    good = astronaut()
    good.save(raw / "good.jpg", quality=95)
    good.resize((400, 400)).save(raw / "again.jpg", quality=80)
    cat = Image.fromarray(data.chelsea())
    cat.resize((1353, 900)).filter(ImageFilter.GaussianBlur(20)).save(raw / "blurry.jpg")
    coffee = Image.fromarray(data.coffee())
    coffee.point(lambda value: value // 5).save(raw / "dark.jpg")
    Image.fromarray(data.rocket()).point(lambda value: 200 + value // 6).save(raw / "bright.jpg")
    Image.fromarray(data.camera()).save(raw / "grey.png")
    coffee.rotate(180).resize((150, 100)).save(raw / "small.jpg")
    return prepare(raw, raw.parent / "out", 256, progress=False)


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("duplicates", "again.png"), ("blurry", "blurry.png"), ("dark", "dark.png"), ("bright", "bright.png"),
        ("black_and_white", "grey.png"), ("low_resolution", "small.png"),
    ],
)  # fmt: skip
def test_each_fault_is_found_in_its_photo_with_value_and_threshold(
    kind: str, file: str, dataset: Dataset
) -> None:
    found = [finding for finding in dataset.findings if finding.kind == kind]
    assert file in {finding.file for finding in found}
    finding = next(finding for finding in found if finding.file == file)
    assert "limit" in finding.text and finding.effect == KINDS[kind] and finding.level == "warning"
    assert finding.text in dataset.summary() and KINDS[kind] in dataset.summary()


def test_a_good_photo_has_no_finding(dataset: Dataset) -> None:
    assert dataset.findings_of("good.png") == []


def test_dataset_json_holds_findings_and_no_place_of_this_machine(dataset: Dataset) -> None:
    text = (dataset.folder / RECORD_FILE).read_text()
    images = {record["file"]: record for record in json.loads(text)["images"]}
    assert images["grey.png"]["findings"][0]["kind"] == "black_and_white"
    assert {"value", "threshold", "effect"} <= set(images["grey.png"]["findings"][0])
    assert str(dataset.folder.parent) not in text
    assert Dataset.load(dataset.folder).findings == dataset.findings


def test_the_contact_sheet_shows_every_photo_and_is_no_training_image(dataset: Dataset) -> None:
    path = save_sheet(dataset)
    assert path == dataset.folder.with_name("out_sheet.html")
    page = path.read_text("utf-8")
    assert page.count("<figure") == len(dataset) and page.count("data:image/webp") == 2 * len(dataset)
    save_sheet(dataset)  # its own sheet is replaced
    path.with_name("mine.html").write_text("mine")
    with pytest.raises(ValueError, match=r"no contact sheet of sdlab's"):
        save_sheet(dataset, path.with_name("mine.html"))
    html = dataset._repr_html_()
    assert html.count("<figure") == len(dataset) and "too dark" in html
    assert len(html) < 400_000


def record(number: int, **measured: Any) -> dict[str, Any]:
    """A record that the doctor has nothing to say about, but for what is given."""
    plain = {
        "blur": 0.4, "darkest": 20, "brightest": 200, "colourfulness": 40, "enlarged": 0.5, "face_share": 0.2,
        "photo_hash": f"{(0x9E3779B97F4A7C15 * (number + 1)) % 2**64:016x}", "clothes": None,
        "background": [[20 * (number % 5), 25 * number, 0]] * 4,
    }  # fmt: skip
    return {"file": f"{number:02d}.png", "faces": 1, "measured": plain | measured}


def kinds(records: list[dict[str, Any]]) -> dict[str, str]:
    return {finding.kind: finding.level for finding in examine(records)}


def test_fewer_than_15_photos_are_a_warning_and_fewer_than_5_an_error() -> None:
    assert kinds([record(n) for n in range(15)]) == {}
    assert kinds([record(n) for n in range(14)]) == {"count": "warning"}
    assert kinds([record(n) for n in range(4)]) == {"count": "error"}


def test_close_ups_only_same_backgrounds_and_same_clothes_are_named() -> None:
    assert kinds([record(n, face_share=0.5) for n in range(15)]) == {"framing": "warning"}
    assert kinds([record(n, face_share=0.5 if n < 11 else 0.2) for n in range(15)]) == {}
    wall = [[80, 0, n / 10] for n in range(4)]
    assert kinds([record(n, background=wall) for n in range(15)]) == {"backgrounds": "warning"}
    assert kinds([record(n, clothes=[30, 40, 5]) for n in range(15)]) == {"clothes": "warning"}


def test_black_and_white_is_a_fault_among_colour_only() -> None:
    assert kinds([record(n, colourfulness=2 if n == 3 else 40) for n in range(15)]) == {
        "black_and_white": "warning"
    }
    assert kinds([record(n, colourfulness=2) for n in range(15)]) == {}
