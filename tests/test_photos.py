"""A folder of photos, some of them broken, becomes a dataset that can be trusted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from sdlab.photos import Dataset, instance_images, prepare
from sdlab.photos.captions import read_captions
from sdlab.photos.dataset import RECORD_FILE
from sdlab.profiles import profile
from tests.data import ROOT, shared


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
    dataset = prepare(raw, tmp_path / "out", profile("mini"))
    assert [path.name for path in dataset.images] == ["one.png", "three.png", "two.png"]
    for path in dataset.images:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((128, 128), "RGB")
    record = dataset.records[0]
    assert record["source"] == "one.jpg"
    left, top, right, low = record["crop"]
    assert (right - left, low - top) == (200, 200) and 0 <= left <= 100 and top == 0  # the largest square
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
    Image.new("RGB", (128, 128), "green").save(out / "extra.tiff")
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
    assert (
        "training reads .png" in {entry["source"]: entry["reason"] for entry in dataset.refused}["extra.tiff"]
    )
    prepare(raw, out, 64)
    assert files(out)["one.png"] == before["one.png"]


def test_killed_at_any_write_goes_on_and_ends_the_same(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from sdlab import files as writing

    (raw / "three.webp").unlink()
    prepare(raw, tmp_path / "out", 128)
    wanted = prepare(raw, tmp_path / "clean", 64)
    real_replace = os.replace
    # each of the two images has three hidden files and one in place; dataset.json is the seventh
    for survivors in (0, 2, 3, 6, 7, 8):
        out, moved = tmp_path / f"out{survivors}", []
        shutil.copytree(tmp_path / "out", out)

        def dies(source: Path, target: Path, moved: list = moved, survivors: int = survivors) -> None:
            if len(moved) == survivors:
                raise KeyboardInterrupt
            moved.append(target)
            real_replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(writing.os, "replace", dies)
            with pytest.raises(KeyboardInterrupt):
                prepare(raw, out, 64, progress=False)
        done = {path: path.stat().st_mtime_ns for path in moved if path.suffix == ".png"}
        repaired = prepare(raw, out, 64, progress=False)
        assert repaired.fingerprint == wanted.fingerprint
        assert all("made by hand" not in note for record in repaired.records for note in record["notes"])
        whole = {path for path in done if path.with_suffix(".json") in moved}
        assert all(path.stat().st_mtime_ns == done[path] for path in whole)  # not done again


def test_a_crop_edited_in_dataset_json_is_kept(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(raw, out, 64)
    content = json.loads((out / RECORD_FILE).read_text())
    content["images"][0]["crop"] = [0, 0, 100, 100]  # of one.jpg: the green corner, and some red
    (out / RECORD_FILE).write_text(json.dumps(content))
    for _ in range(2):
        record = prepare(raw, out, 64).records[0]
        assert (record["crop"], record["crop_by"]) == ([0, 0, 100, 100], "hand")
        assert "cropped by the box set by hand" in record["notes"]
    with Image.open(out / "one.png") as image:
        red, green, _ = image.getpixel((5, 5))
        assert green > 200 and red < 80
    assert prepare(raw, out, 128).records[0]["crop"] == [0, 0, 100, 100]  # at another resolution, too
    content = json.loads((out / RECORD_FILE).read_text())
    content["images"][0]["crop"] = None
    (out / RECORD_FILE).write_text(json.dumps(content))
    assert prepare(raw, out, 64).records[0]["crop_by"] == "saliency"


@pytest.mark.parametrize("box", [[0, 0, 100, 90], [0, 0, 5, 5], "all", [0, 0, 9e9, 9e9], [400, 0, 500, 100]])
def test_a_crop_that_cannot_be_is_named_and_nothing_is_changed(
    box: object, raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare(raw, out, 64)
    content = json.loads((out / RECORD_FILE).read_text())
    content["images"][0]["crop"] = box
    (out / RECORD_FILE).write_text(json.dumps(content))
    before = files(out)
    with pytest.raises(ValueError, match=r"the crop of one\.png in dataset\.json must be a square"):
        prepare(raw, out, 64)
    assert files(out) == before


def test_a_photo_can_be_dropped_and_taken_back(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number, name in enumerate(("one.jpg", "two.png", "three.webp")):
        noise = Image.effect_noise((3 + number, 4), 100).resize((300, 200), Image.Resampling.NEAREST)
        noise.convert("RGB").save(raw / name)
        noise.resize((150, 100)).save(raw / "again.png")  # in the end that of three.webp
    Image.new("RGB", (300, 300), "grey").save(raw / "flat.png")
    everything = prepare(raw, out, 64)
    assert {f.file for f in everything.findings if f.kind == "duplicates"} == {"again.png"}
    dataset = prepare(raw, out, 64, drop=["blurry", "duplicates"])
    assert [path.name for path in dataset.images] == ["one.png", "three.png", "two.png"]
    assert sorted(path.name for path in out.glob("[!.]*.png")) == ["one.png", "three.png", "two.png"]
    reasons = {record["source"]: record["dropped"] for record in dataset.dropped}
    assert "almost the same as three.png" in reasons["again.png"]
    assert reasons["flat.png"].startswith("blurry: ")
    assert "dropped flat.png" in Dataset.load(out).summary()
    known = Dataset.load(out)
    known.images[0].unlink()
    with pytest.warns(UserWarning, match=r"1 of \d+ images in .* are gone or were changed since"):
        assert Dataset.load(out).records == known.records[1:]
    assert prepare(raw, out, 64).fingerprint == everything.fingerprint
    with pytest.raises(ValueError, match=r"'ugly'\. Choose from: duplicates, blurry"):
        prepare(raw, out, 64, drop=["ugly"])


def test_captions_are_added_where_missing_and_survive(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(raw, out, 64)
    assert read_captions(out) == {}
    content = json.loads((out / RECORD_FILE).read_text())
    content["images"][1]["caption"] = "sks woman: smiling"
    (out / RECORD_FILE).write_text(json.dumps(content))
    (out / "captions.txt").write_text("one.png: sks woman, at night\n")
    prepare(raw, out, 64, captions="a photo of sks woman")
    assert read_captions(out) == {
        "one.png": "sks woman, at night",
        "three.png": "sks woman: smiling",
        "two.png": "a photo of sks woman",
    }
    (out / "captions.txt").write_text("no colon here")
    with pytest.raises(ValueError, match=r"line 1 .* must be `image\.png: caption`"):
        read_captions(out)


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
        "cut.jpg", "page.jpg", "empty.png", "words.png", "copy.jpg", "thin.png", "phone.heic"
    }  # fmt: skip
    assert "truncated" in reasons["cut.jpg"]
    assert "web page" in reasons["page.jpg"]
    assert "empty" in reasons["empty.png"]
    assert "same file as one.jpg" in reasons["copy.jpg"]
    assert "at least 64" in reasons["thin.png"]
    assert dataset.ignored == ("readme.txt",)
    assert "cut.jpg" in dataset.summary()


def test_no_photos_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder or a zip"):
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


def test_what_lies_deeper_or_is_no_photo_is_said(raw: Path, tmp_path: Path) -> None:
    (raw / "more/deep").mkdir(parents=True)
    photo().save(raw / "more/four.jpg")
    photo().save(raw / "more/deep/five.jpg")
    (raw / "empty").mkdir()
    photo().save(raw / "camera.dng", "TIFF")
    dataset = prepare(raw, tmp_path / "out", 64)
    assert [(one["source"], "raw file" in one["reason"]) for one in dataset.refused] == [("camera.dng", True)]
    assert dataset.ignored == ("empty/", "more/ (2 photos: move them up, or give this folder as --raw)")
    for name in ("more", "empty"):
        shutil.rmtree(raw / name)
    alone = tmp_path / "alone/holiday"
    alone.mkdir(parents=True)
    photo().save(alone / "one.jpg")
    with pytest.raises(ValueError, match=r"holds no photos.*holiday/ \(1 photo: move them up"):
        prepare(alone.parent, tmp_path / "out2", 64)


def test_training_says_which_pictures_it_does_not_read(raw: Path) -> None:
    said: list[str] = []
    photo().save(raw / "old.bmp")
    photo().save(raw / "scan.tiff")
    (raw / "10_sks woman").mkdir()
    photo().save(raw / "10_sks woman/a.png")
    images = instance_images(raw, said.append)
    assert [path.name for path in images] == ["one.jpg", "three.webp", "two.png"]
    assert "old.bmp, scan.tiff. Training reads png, jpg and webp" in said[0]
    assert "1 photo in 10_sks woman/. Move them up" in said[1] and len(said) == 2


def test_a_dog_needs_no_face_and_few_photos(tmp_path: Path) -> None:
    dataset = prepare(shared("dreambooth") / "dog6", tmp_path / "out", 128, subject_kind="animal")
    assert {record["crop_by"] for record in dataset.records} == {"centre"} and len(dataset) == 5
    said = dataset.summary().replace(str(tmp_path), "").casefold()
    assert "the doctor found nothing" in said and "face" not in said and "person" not in said
    assert Dataset.load(tmp_path / "out") == dataset
    assert "animal" in (tmp_path / "out" / RECORD_FILE).read_text()
    with pytest.raises(ValueError, match=r"subject_kind must be one of person, .*got 'dog'"):
        prepare(shared("dreambooth") / "dog6", tmp_path / "out", 128, subject_kind="dog")


def test_a_robot_is_no_person(tmp_path: Path) -> None:
    dataset = prepare(shared("dreambooth") / "robot_toy", tmp_path / "out", 128, subject_kind="thing")
    said = (dataset.summary() + dataset._repr_html_()).replace(str(tmp_path), "")
    kinds = {finding.kind for finding in dataset.findings}
    assert not kinds & {"several_faces", "no_face", "framing", "clothes", "count"}
    assert "a person" not in said and "face found" not in said and "no face" not in said


def test_a_home_folder_and_very_long_names_are_understood(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(raw)
    shutil.copy(raw / "one.jpg", raw / ("я" * 120 + ".jpg"))  # 244 bytes, with endings of ours too many
    (raw / "one.jpg").unlink()
    dataset = prepare("~/raw", "~/out", 64, progress=False)
    assert len(dataset) == 3 and (tmp_path / "out" / RECORD_FILE).is_file() and not (raw / "~").exists()


def test_a_place_that_cannot_be_written_to_is_named_with_the_way_out(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for out in (tmp_path / "file", tmp_path / "file/deeper", tmp_path / ("n" * 300)):
        with pytest.raises(OSError, match=r"the images can't be written to .*: .* --out"):
            prepare(raw, out, 64, progress=False)


def test_a_console_of_another_encoding_costs_no_work(raw: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from sdlab.cli import main; main()", "prepare", "--raw", raw, "--out", "ä→я"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert (tmp_path / "ä→я/one.png").is_file()
    said = run.stdout.decode("cp1252")
    assert "3 images of 128×128 in ä??" in said and "200 ? 128 pixels" in said
    assert b"only 3 photos (at least 5)" in run.stderr and b"codec" not in run.stderr
