"""The course's own photos: mixed as on a phone, with faults that the doctor names, fit to be trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from recipes.mini.world import album
from sdlab.photos import prepare
from sdlab.profiles import profile

RAW = Path(__file__).parents[3] / "data/raw_images"


def test_the_photos_in_the_repository_are_mixed_and_small() -> None:
    register_heif_opener()
    files = sorted(RAW.iterdir())
    assert 20 <= len(files) <= 24 and sum(file.stat().st_size for file in files) < 3_000_000
    assert {file.suffix for file in files} == {".jpg", ".heic", ".png", ".webp"}
    opened = [Image.open(file) for file in files]
    assert len({image.size for image in opened}) >= 6
    assert sum(image.width != image.height for image in opened) == 3
    assert {image.getexif().get(0x0112, 1) for image in opened} == {1, 6, 8}
    assert sum(image.mode == "RGBA" for image in opened) == 1


def test_the_doctor_finds_the_blurred_and_the_double_one_and_all_others_are_good(tmp_path: Path) -> None:
    dataset = prepare(RAW, tmp_path / "out", profile("mini"), progress=False)
    assert len(dataset) == len(list(RAW.iterdir())) and not dataset.refused
    found = {(f.kind, f.file) for f in dataset.findings if f.level != "note"}
    assert found == {("blurry", "vera_19.png"), ("duplicates", "vera_09_again.png")}
    # drawn photos are framed already, so the squares among them are kept whole
    squares = [record for record in dataset.records if record["size"][0] == record["size"][1]]
    assert len(squares) == len(dataset) - 3
    assert all(record["crop"] == [0, 0, *record["size"]] for record in squares)


def test_an_album_is_drawn_where_it_is_missing_and_files_that_are_there_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(album, "SIDES", (64,))
    (tmp_path / "otto_01.webp").write_bytes(b"mine")
    paths = album.album("man", tmp_path)
    assert len(paths) == 19 and paths[0].read_bytes() == b"mine"
    times = {path: path.stat().st_mtime_ns for path in paths}
    assert {path: path.stat().st_mtime_ns for path in album.album("man", tmp_path)} == times
    with pytest.raises(ValueError, match="must be one of woman, man, got 'dog'"):
        album.album("dog", tmp_path)
