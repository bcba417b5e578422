"""A folder of photos, some of them broken, becomes a dataset that can be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from sdlab.photos import Dataset, UnusablePhoto, decode, prepare
from sdlab.photos.dataset import RECORD_FILE


def photo(width: int = 300, height: int = 200) -> Image.Image:
    """Red left half, blue right half, a green corner top left."""
    image = Image.new("RGB", (width, height), "blue")
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((0, 0, width // 2, height), fill="red")
    drawing.rectangle((0, 0, width // 4, height // 4), fill="lime")
    return image


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    photo().save(folder / "one.jpg", quality=95)
    photo(200, 260).save(folder / "two.png")
    photo(256, 256).save(folder / "three.webp")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def test_each_photo_becomes_a_square_image_with_its_record(raw: Path, tmp_path: Path) -> None:
    dataset = prepare(raw, tmp_path / "out", resolution=128)
    assert [path.name for path in dataset.images] == ["one.png", "three.png", "two.png"]
    for path in dataset.images:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((128, 128), "RGB")
    record = dataset.records[0]
    assert record["source"] == "one.jpg"
    assert record["crop"] == [50, 0, 250, 200]  # the middle 200 of 300 pixels
    assert Dataset.load(tmp_path / "out") == dataset
    assert str(tmp_path) not in (tmp_path / "out" / RECORD_FILE).read_text()


def test_a_second_run_writes_no_image_again(raw: Path, tmp_path: Path) -> None:
    first = prepare(raw, tmp_path / "out", 128)
    times = {path: path.stat().st_mtime_ns for path in first.images}
    second = prepare(raw, tmp_path / "out", 128)
    assert {path: path.stat().st_mtime_ns for path in second.images} == times
    assert second.fingerprint == first.fingerprint


def test_changed_and_removed_photos_are_followed(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(raw, out, 128)
    (raw / "two.png").unlink()
    Image.new("RGB", (200, 200), "white").save(raw / "one.jpg")
    second = prepare(raw, out, 128)
    assert sorted(files(out)) == [RECORD_FILE, "one.png", "three.png"]
    assert second.fingerprint != first.fingerprint
    with Image.open(out / "one.png") as image:
        assert image.getpixel((3, 3)) == (255, 255, 255)


def test_files_of_the_user_are_kept(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(raw, out, 128)
    Image.new("RGB", (128, 128), "yellow").save(out / "one.png")  # a crop of the user's own
    Image.new("RGB", (128, 128), "green").save(out / "extra.png")
    (out / "notes.txt").write_text("mine")
    before = files(out)
    (raw / "one.jpg").unlink()  # even when its photo is gone
    dataset = prepare(raw, out, 64)
    after = files(out)
    assert {name: after[name] for name in ("one.png", "extra.png", "notes.txt")} == {
        name: before[name] for name in ("one.png", "extra.png", "notes.txt")
    }
    by_hand = {r["file"] for r in dataset.records if r["notes"] == ["made by hand, kept as it is"]}
    assert by_hand == {"one.png", "extra.png"}
    prepare(raw, out, 64)
    assert files(out)["one.png"] == before["one.png"]


def test_killed_between_record_and_images_is_repaired(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from sdlab.photos import preparation

    out = tmp_path / "out"
    prepare(raw, out, 128)
    wanted = prepare(raw, tmp_path / "clean", 64)
    real_replace, moved = os.replace, []

    def dies_at_the_sixth(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) == 6:  # three parts, the record, one image are in place
            raise KeyboardInterrupt
        real_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(preparation.os, "replace", dies_at_the_sixth)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, out, 64)
    repaired = prepare(raw, out, 64)
    assert repaired.fingerprint == wanted.fingerprint
    assert all(record["notes"] != ["made by hand, kept as it is"] for record in repaired.records)
    assert not list(out.glob(".sdlab-part-*"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_picture(orientation: int, tmp_path: Path) -> None:
    turned_back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = photo(320, 240)
    if orientation > 1:
        stored = stored.transpose(turned_back[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    decoded = decode(tmp_path / "a.jpg")
    assert decoded.size == decoded.image.size == (320, 240)
    red, green, _ = decoded.image.getpixel((20, 20))
    assert green > 200 and red < 80  # the green corner is top left again
    assert not decoded.image.getexif()


def test_transparency_grey_cmyk_and_sixteen_bits_become_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (100, 100), (255, 0, 0, 0)).save(tmp_path / "alpha.png")
    Image.new("L", (100, 100), 77).save(tmp_path / "grey.png")
    Image.new("CMYK", (100, 100), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    Image.new("I;16", (100, 100), 32768).save(tmp_path / "deep.png")
    palette = Image.new("P", (100, 100), 1)
    palette.putpalette([0, 0, 0, 10, 200, 10])
    palette.save(tmp_path / "palette.png")
    seen = {p.stem: decode(p).image.getpixel((50, 50)) for p in tmp_path.iterdir()}
    assert seen["alpha"] == (255, 255, 255)
    assert seen["grey"] == (77, 77, 77)
    assert seen["cmyk"][0] > 200 and seen["cmyk"][1] < 60
    assert seen["deep"] == (128, 128, 128)  # 32768 of 65535: scaled, not saturated
    assert seen["palette"] == (10, 200, 10)


def test_unusable_files_are_refused_by_name_with_a_reason(raw: Path, tmp_path: Path) -> None:
    whole = (raw / "one.jpg").read_bytes()
    (raw / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (raw / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (raw / "empty.png").write_bytes(b"")
    (raw / "words.png").write_text("hello")
    (raw / "copy.jpg").write_bytes(whole)
    photo(40, 400).save(raw / "thin.png")
    (raw / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    (raw / ".hidden.jpg").write_bytes(whole)
    (raw / "Thumbs.db").write_bytes(b"x")
    (raw / "readme.txt").write_text("not a photo")
    dataset = prepare(raw, tmp_path / "out", 128)
    reasons = {entry["source"]: entry["reason"] for entry in dataset.refused}
    assert set(reasons) == {
        "cut.jpg", "page.jpg", "empty.png", "words.png", "one.jpg", "thin.png", "phone.heic"
    }  # fmt: skip
    assert "truncated" in reasons["cut.jpg"]
    assert "web page" in reasons["page.jpg"]
    assert "empty" in reasons["empty.png"]
    assert "same file as copy.jpg" in reasons["one.jpg"]
    assert "at least 64" in reasons["thin.png"]
    assert dataset.passed_over == ("readme.txt",)
    assert "cut.jpg" in dataset.summary()


@pytest.mark.parametrize("part", [0.05 * i for i in range(1, 20)])
def test_a_photo_cut_anywhere_is_refused(part: float, tmp_path: Path) -> None:
    for name, options in {"a.jpg": {"quality": 90}, "a.png": {}, "a.webp": {"lossless": True}}.items():
        path = tmp_path / name
        Image.effect_noise((128, 128), 80).convert("RGB").save(path, **options)
        path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
        with pytest.raises(UnusablePhoto):
            decode(path)


@pytest.mark.parametrize("side", [12000, 20000])
def test_pixel_bombs_are_refused_before_decoding(side: int, tmp_path: Path) -> None:
    # a 1-bit PNG of 20000×20000 is 50 KB on disk and 1.2 GB as RGB; Pillow itself stops at 179 million pixels
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(UnusablePhoto, match="limit"):
        decode(tmp_path / "bomb.png")


def test_no_photos_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "raw").mkdir()
    with pytest.raises(ValueError, match="holds no photos"):
        prepare(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "raw" / "a.jpg").write_text("x")
    with pytest.raises(ValueError, match=r"(?s)none of the 1 photos.*a\.jpg: it is not a picture"):
        prepare(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(ValueError, match=r"divisible by 8.*got 100"):
        prepare(tmp_path / "raw", tmp_path / "out", 100)


def test_same_stem_in_two_formats_gives_two_images(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    photo().save(raw / "a.jpg")
    photo().save(raw / "A.png")
    assert len({path.name.casefold() for path in prepare(raw, tmp_path / "out", 64).images}) == 2


def test_images_carry_no_metadata(raw: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    photo().save(raw / "private.png", exif=exif)
    prepare(raw, tmp_path / "out", 64)
    assert b"taken at home" not in (tmp_path / "out" / "private.png").read_bytes()


def test_contact_sheet_escapes_names(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    photo().save(raw / "<img src=x onerror=alert(1)>.jpg")
    html = prepare(raw, tmp_path / "out", 64)._repr_html_()
    assert "onerror=alert(1)&gt;" in html and "<img src=x" not in html
    assert json.loads((tmp_path / "out" / RECORD_FILE).read_text())["images"][0]["file"].endswith(".png")
