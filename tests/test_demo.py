"""The whole homework on the mini model: what is there at the end, and what a second run does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sdlab import mini
from sdlab.course.demonstration import demo
from sdlab.experiment import find
from sdlab.photos import prepare
from sdlab.profiles import PROFILES
from sdlab.reports import report

QUICK = {"max_train_steps": 3, "num_class_images": 2}


def times(folder: Path) -> dict[Path, int]:
    """When each file that takes computing was written."""
    return {
        path: path.stat().st_mtime_ns
        for pattern in ("**/*.safetensors", "**/*_img*.png", "data/**/*.png")
        for path in folder.glob(pattern)
    }


@pytest.mark.slow
def test_demo_goes_from_photos_to_report_and_does_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # how good the images are is not the question here, so three denoising steps will do
    monkeypatch.setitem(PROFILES, "mini", replace(PROFILES["mini"], num_inference_steps=3))
    page = demo(tmp_path, images_per_prompt=1, **QUICK)
    assert page == tmp_path / "results/report/report.html"
    said = capsys.readouterr().out
    assert all(f"[{stage}/7]" in said for stage in range(1, 8))
    assert "results/report/report.html" in said and "Finished in" in said

    names = [one.name for one in find(tmp_path / "experiments")]
    assert {one.status for one in find(tmp_path / "experiments")} == {"finished"}
    assert len([name for name in names if name.startswith("lora_rank4_")]) == 4
    assert len({re.search(r"rank(\d+)", name).group(1) for name in names if "lora" in name}) == 3  # type: ignore[union-attr]
    html = page.read_text(encoding="utf-8")
    for title in (
        "Dataset",
        "DreamBooth",
        "Learning rate of LoRA",
        "Rank of LoRA",
        "ControlNet",
        "Conclusion",
        "Reproducibility",
    ):
        assert f">{title}</h2>" in html
    assert "no images yet" not in html
    assert "likeness to the subject" in html and "PRES" in html
    places = {"results": tmp_path / "results", "root": tmp_path / "experiments"}
    again = report(out=tmp_path / "again", dataset=tmp_path / "data/instance_images", **places)
    assert "likeness to the subject" in again.read_text(encoding="utf-8")  # what was measured stays

    before = times(tmp_path)
    demo(tmp_path, images_per_prompt=1, **QUICK)
    assert times(tmp_path) == before


@pytest.mark.slow
def test_photos_of_the_user_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdlab.course.demonstration import _photos

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw_images").mkdir(parents=True)
    Image.new("RGB", (200, 200)).save(tmp_path / "data/raw_images/me.jpg")
    dataset = _photos(PROFILES["mini"])
    assert dataset.folder == Path("data/demo_instance_images")
    assert [path.name for path in (tmp_path / "data/raw_images").iterdir()] == ["me.jpg"]


def test_nothing_is_said_of_real_faces_in_drawn_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    album = mini.copy_photos("man", tmp_path / "raw")
    for photo in album[2:]:
        photo.unlink()
    dataset = prepare(tmp_path / "raw", tmp_path / "out", PROFILES["mini"])
    assert "face" not in capsys.readouterr().out + "".join(dataset.diagnosis())
    Image.new("RGB", (200, 200)).save(tmp_path / "raw/me.jpg")  # one photo that isn't of the album
    prepare(tmp_path / "raw", tmp_path / "out", PROFILES["mini"])
    assert "faces: " in capsys.readouterr().out
