"""A zip of photos is as good as a folder, and can't write anywhere else."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from sdlab.photos import prepare


def jpeg(shade: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").point(lambda value: (value + shade) % 256).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_drive_export_is_taken_as_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "drive-download.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("photos/", "")
        archive.writestr("photos/a.jpg", jpeg(10))
        archive.writestr("photos/more/b.jpg", jpeg(50))
        archive.writestr("photos/more/a.jpg", jpeg(120))  # the same name in another folder
        archive.writestr("photos/a copy of it.jpg", jpeg(10))  # an exact copy
        archive.writestr("__MACOSX/photos/._a.jpg", b"litter")
        archive.writestr("photos/.ipynb_checkpoints/a-checkpoint.jpg", jpeg(3))
        archive.writestr("photos/Thumbs.db", b"litter")
        archive.writestr("photos/list.txt", b"not a photo")
    dataset = prepare(tmp_path / "drive-download.zip", tmp_path / "out", 64, progress=False)
    assert {record["source"] for record in dataset.records} == {"photos_a.jpg", "photos_more_a.jpg", "b.jpg"}
    assert [entry["source"] for entry in dataset.refused] == ["a copy of it.jpg"]
    assert dataset.ignored == ("list.txt",)
    before = {path: path.stat().st_mtime_ns for path in dataset.images}
    again = prepare(tmp_path / "drive-download.zip", tmp_path / "out", 64, progress=False)
    assert {path: path.stat().st_mtime_ns for path in again.images} == before

    (tmp_path / "raw").mkdir()  # the zip put among photos
    (tmp_path / "drive-download.zip").rename(tmp_path / "raw/drive-download.zip")
    (tmp_path / "raw/own.jpg").write_bytes(jpeg(200))
    (tmp_path / "raw/torn.zip").write_bytes(b"PK\x03\x04 torn")
    mixed = prepare(tmp_path / "raw", tmp_path / "out2", 64, progress=False)
    assert len(mixed) == 4
    assert any("can't be read as a zip" in entry["reason"] for entry in mixed.refused)


def test_members_that_attack_are_refused_and_write_nothing_outside(tmp_path: Path) -> None:
    place = tmp_path / "deep/down"
    place.mkdir(parents=True)
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(place / "evil.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.jpg", jpeg())
        for name in ("../up.jpg", "a/../../up2.jpg", "/tmp/absolute.jpg", "C:\\windows.jpg", "..\\back.jpg"):
            archive.writestr(name, jpeg())
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bomb.png", bytes(50_000_000))
    locked = (place / "evil.zip").read_bytes()
    dataset = prepare(place / "evil.zip", place / "out", 64, progress=False)
    assert [record["source"] for record in dataset.records] == ["good.jpg"]
    reasons = {entry["source"]: entry["reason"] for entry in dataset.refused}
    assert len(reasons) == 7
    assert "unpacks to" in reasons["bomb.png"] and "limit is 200" in reasons["bomb.png"]
    assert "is a link" in reasons["link.jpg"]
    assert sum("leads out of the folder" in reason for reason in reasons.values()) == 3
    assert sum("absolute path" in reason for reason in reasons.values()) == 2
    assert {path.name for path in tmp_path.rglob("*.jpg")} == set()
    assert not Path("/tmp/absolute.jpg").exists()
    assert (place / "evil.zip").read_bytes() == locked


def test_a_broken_or_locked_zip_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", jpeg())
        archive.writestr("b.jpg", jpeg(1))
    whole = bytearray((tmp_path / "a.zip").read_bytes())
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.zip can't be read as a zip .* Download it again"):
        prepare(tmp_path / "cut.zip", tmp_path / "out", 64, progress=False)
    spoiled = bytearray(whole)
    spoiled[500] ^= 0xFF  # inside the first photo: its checksum no longer fits
    (tmp_path / "spoiled.zip").write_bytes(spoiled)
    dataset = prepare(tmp_path / "spoiled.zip", tmp_path / "out", 64, progress=False)
    assert [entry["source"] for entry in dataset.refused] == ["a.jpg"]
    assert "damaged in the zip" in dataset.refused[0]["reason"]
    for flags in (6, whole.index(b"PK\x01\x02") + 8):  # the bit that says "locked by a password"
        whole[flags] |= 1
    (tmp_path / "locked.zip").write_bytes(whole)
    dataset = prepare(tmp_path / "locked.zip", tmp_path / "out2", 64, progress=False)
    assert "locked by a password" in dataset.refused[0]["reason"]
