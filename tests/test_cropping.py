"""The crop follows the face, in every orientation and format, and never stretches a picture."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdlab.photos.crop import FRAMINGS, crop_around_face, crop_without_face, cut
from sdlab.photos.faces import Detector, Face, choose_detector, find_by_lbp, overlap, yunet_weights
from sdlab.photos.making import Settings, make
from sdlab.photos.sources import Source
from tests.test_decoding import saved

# The face of scikit-image's astronaut, read off by hand: hairline to chin, ear to ear.
ASTRONAUT = Face(173, 62, 104, 118)


@cache
def astronaut() -> Image.Image:
    from skimage.data import astronaut

    return Image.fromarray(astronaut())


def scene() -> Image.Image:
    """The astronaut at the left of a landscape photo, 450×300."""
    wide = Image.new("RGB", (900, 600), (70, 90, 110))
    wide.paste(astronaut(), (40, 80))
    return wide.resize((450, 300))


FACE = Face(ASTRONAUT.left + 40, ASTRONAUT.top + 80, ASTRONAUT.width, ASTRONAUT.height).scaled(0.5)
LBP = Detector("lbp", find_by_lbp)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "heic"])
def test_the_face_is_found_and_inside_the_crop_at_every_exif_orientation(ending: str, tmp_path: Path) -> None:
    crops, images = [], []
    for orientation in range(1, 9):
        path = saved(scene(), tmp_path / f"{orientation}.{ending}", orientation)
        record, _ = made(path, "head_and_shoulders")
        assert record["faces"] == 1 and overlap(Face(*record["face"]), FACE) > 0.5
        left, top, right, low = record["crop"]
        assert left <= FACE.left and top <= FACE.top
        assert right >= FACE.left + FACE.width and low >= FACE.top + FACE.height
        crops.append(Face(left, top, right - left, low - top))
        images.append(made(saved(astronaut().resize((256, 256)), path, orientation), "mixed")[1])
    # lossy formats store other pixels in each orientation, which moves the face that is found a little
    assert all(overlap(crop, crops[0]) > 0.85 for crop in crops)
    # the astronaut is square and kept whole: the same picture each time, within JPEG's error
    assert all(np.abs(image - images[0]).mean() < 2 for image in images)


def made(path: Path, framing: str) -> tuple[dict[str, Any], np.ndarray]:
    """Record and pixels of the instance image."""
    result = make(Source(path, path.name, "0" * 64, "a.png"), Settings(128, framing, "white", LBP))
    with Image.open(io.BytesIO(result.image)) as image:
        return result.record, np.asarray(image, dtype=int)


@pytest.mark.parametrize("framing", [name for name in FRAMINGS if name != "mixed"])
@pytest.mark.parametrize("size", [(900, 600), (600, 900), (600, 600), (1600, 200)])
def test_crops_are_squares_inside_the_picture_that_hold_the_head(framing: str, size: tuple[int, int]) -> None:
    for left in (0, size[0] // 2, size[0] - 100):
        for top in (0, size[1] // 2 - 20, size[1] - 110):
            face = Face(left, top, 100, 110)
            box = crop_around_face(size, face, "lbp", framing, 512).box
            assert box[2] - box[0] == box[3] - box[1]
            assert 0 <= box[0] <= face.left and face.left + face.width <= box[2] <= size[0]
            assert 0 <= box[1] <= face.top and face.top + face.height <= box[3] <= size[1]


def test_wider_framings_show_more() -> None:
    face = Face(1400, 700, 300, 300)
    sides = {name: crop_around_face((3000, 4000), face, "lbp", name, 512).box for name in FRAMINGS[1:]}
    widths = [sides[name][2] - sides[name][0] for name in FRAMINGS[1:]]
    assert widths == sorted(set(widths)) and widths[-1] == 3000


def test_mixed_framing_is_mixed_keeps_squares_and_enlarges_nothing() -> None:
    face = Face(1400, 700, 300, 300)
    chosen = [crop_around_face((3000, 4000), face, "lbp", "mixed", 512, n).framing for n in range(5)]
    assert sorted(chosen) == ["face", "head_and_shoulders", "head_and_shoulders", "upper_body", "whole"]
    assert crop_around_face((3000, 3000), face, "lbp", "mixed", 512, 1).framing == "whole"
    small = crop_around_face((3000, 4000), Face(1400, 700, 150, 150), "lbp", "mixed", 512, 1)
    assert small.framing == "upper_body"  # 1.9 and 3.2 times 150 pixels are fewer than 512
    assert small.notes == ("wider than face, so that it isn't enlarged",)


def test_a_head_larger_than_the_picture_is_mirrored_at_the_edge_not_stretched() -> None:
    picture = Image.new("RGB", (600, 200), "blue")
    picture.paste("red", (0, 0, 600, 20))
    crop = crop_around_face((600, 200), Face(200, 5, 190, 190), "lbp", "face", 128)
    assert crop.box[1] < 0 and crop.box[3] > 200 and "mirrored" in crop.notes[0]
    seen = np.asarray(cut(picture, crop.box, picture.size, crop.box[2] - crop.box[0]))
    edge = -crop.box[1]
    assert seen.shape[0] == seen.shape[1]
    assert (seen[: edge + 20, 50] == (255, 0, 0)).all()  # the red edge and its mirror image
    assert (seen[edge + 20 : edge + 200, 50] == (0, 0, 255)).all()


def test_without_a_face_the_square_lies_where_something_is() -> None:
    picture = Image.effect_noise((600, 200), 5).convert("RGB")
    picture.paste(astronaut().resize((150, 150)), (440, 20))
    crop = crop_without_face(picture, picture.size)
    assert crop.by == "saliency" and crop.box[0] > 250 and crop.box[2] <= 600
    tall = crop_without_face(
        picture.rotate(-90, expand=True), (200, 600)
    )  # the astronaut is at the bottom now
    assert 0 < tall.box[1] < 200
    flat = crop_without_face(Image.new("RGB", (600, 200)), (600, 200))
    assert flat.box == (200, 0, 400, 200)


def test_of_several_faces_the_largest_is_taken(tmp_path: Path) -> None:
    both = Image.new("RGB", (1100, 640), (70, 90, 110))
    both.paste(astronaut().crop((60, 0, 400, 400)), (20, 100))
    both.paste(astronaut().crop((60, 0, 400, 400)).resize((544, 640)), (500, 0))
    both.save(tmp_path / "two.png")
    record, _ = made(tmp_path / "two.png", "face")
    assert record["faces"] == 2 and record["face"][0] > 500
    assert "2 faces, the largest taken" in record["notes"]


def test_no_face_is_seen_where_there_is_none() -> None:
    from skimage import data

    for name in ("coffee", "chelsea", "brick", "rocket", "page"):
        assert find_by_lbp(Image.fromarray(getattr(data, name)()).convert("RGB")) == [], name


def test_the_choice_of_detector_says_why() -> None:
    detector = choose_detector()
    assert detector.name in ("lbp", "yunet") and len(detector.why) > 20
    if detector.name == "yunet":
        assert overlap(detector.faces(astronaut())[0], ASTRONAUT) > 0.5


def test_an_unreachable_hub_costs_seconds_not_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from huggingface_hub import constants

    yunet_weights.cache_clear()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    start = time.perf_counter()
    assert yunet_weights() is None or yunet_weights().is_file()
    assert time.perf_counter() - start < 10
    yunet_weights.cache_clear()
