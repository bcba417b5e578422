"""The crop follows the face in every orientation and format, keeps the whole head and stretches nothing."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdlab.photos import faces, preparation, prepare
from sdlab.photos.crop import FRAMINGS, crop_around_face, crop_without_face
from sdlab.photos.faces import YUNET, Detector, Face, choose_detector, face_weights, find_faces
from sdlab.photos.making import Settings, make
from sdlab.photos.sources import Source
from tests.data import shared
from tests.test_decoding import saved

# The face of scikit-image's astronaut, read off by hand: hairline to chin, ear to ear; the top of her hair.
ASTRONAUT = Face(173, 62, 104, 118)
HAIR_TOP = 16


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


@pytest.fixture(scope="module")
def weights() -> Path:
    return shared("faces") / faces.YUNET


@pytest.fixture
def detector(weights: Path) -> Detector:
    return Detector("yunet", "", weights)


def overlap(one: Face, other: Face) -> float:
    """Intersection over union of two faces, 0 to 1."""
    width = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    height = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    shared = max(0, width) * max(0, height)
    return shared / (one.width * one.height + other.width * other.height - shared)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "heic"])
def test_the_face_is_found_and_inside_the_crop_at_every_exif_orientation(
    ending: str, tmp_path: Path, detector: Detector
) -> None:
    crops, images = [], []
    for orientation in range(1, 9):
        path = saved(scene(), tmp_path / f"{orientation}.{ending}", orientation)
        record, _ = made(path, "head_and_shoulders", detector)
        assert record["faces"] == 1 and overlap(Face(*record["face"]), FACE) > 0.5
        left, top, right, low = record["crop"]
        assert left <= FACE.left and top <= FACE.top
        assert right >= FACE.left + FACE.width and low >= FACE.top + FACE.height
        crops.append(Face(left, top, right - left, low - top))
        square = saved(astronaut().resize((256, 256)), path, orientation)
        images.append(made(square, "mixed", detector)[1])
    # lossy formats store other pixels in each orientation, which moves the face that is found a little
    assert all(overlap(crop, crops[0]) > 0.85 for crop in crops)
    # the astronaut is square and kept whole: the same picture each time, within JPEG's error
    assert all(np.abs(image - images[0]).mean() < 2 for image in images)


def made(path: Path, framing: str, detector: Detector) -> tuple[dict[str, Any], np.ndarray]:
    """Record and pixels of the instance image."""
    record, content, _ = make(
        Source(path, path.name, "0" * 64, "a.png"), Settings(128, framing, "white", detector)
    )
    with Image.open(io.BytesIO(content)) as image:
        return record, np.asarray(image, dtype=int)


@pytest.mark.parametrize("degrees", [0, 20, 35, 50, 65, 90, -90, -120, 180])
def test_a_head_is_found_and_whole_however_the_photo_is_held(degrees: int, weights: Path) -> None:
    photo = astronaut().rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    centre = turned(ASTRONAUT.centre, degrees, photo.size)
    hair = turned((225, HAIR_TOP), degrees, photo.size)
    found = find_faces(photo, weights)
    assert len(found) == 1
    assert np.hypot(*np.subtract(found[0].centre, centre)) < 30
    for framing in FRAMINGS[1:]:
        left, top, right, low = crop_around_face(photo.size, found[0], "yunet", framing, 128).box
        for x, y in (centre, hair):
            assert left <= x <= right and top <= y <= low, framing


def turned(point: tuple[float, float], degrees: float, size: tuple[int, int]) -> tuple[float, float]:
    """Where a point of the astronaut is in the picture turned left."""
    x, y, angle = point[0] - 256, point[1] - 256, np.deg2rad(degrees)
    return (
        size[0] / 2 + x * np.cos(angle) + y * np.sin(angle),
        size[1] / 2 - x * np.sin(angle) + y * np.cos(angle),
    )


@pytest.mark.parametrize("side", [1024, 2000, 4000])
def test_a_person_far_away_is_found(side: int, weights: Path, tmp_path: Path) -> None:
    photo = Image.new("RGB", (side, side * 3 // 4), (70, 90, 110))
    small = side // 20  # of the whole portrait
    photo.paste(astronaut().resize((small, small), Image.Resampling.LANCZOS), (side // 3, side // 4))
    photo.save(tmp_path / "far.png")
    record, _ = made(tmp_path / "far.png", "mixed", Detector("yunet", "", weights))
    wanted = ASTRONAUT.scaled(small / 512)
    assert record["faces"] == 1
    moved = Face(wanted.left + side // 3, wanted.top + side // 4, wanted.width, wanted.height)
    assert overlap(Face(*record["face"]), moved) > 0.3


@pytest.mark.parametrize("degrees", [20, 35, 50, 90])
def test_a_tilted_head_far_away_is_found(degrees: int, weights: Path, tmp_path: Path) -> None:
    photo = Image.new("RGB", (2400, 1800), (70, 90, 110))
    small = astronaut().resize((120, 120), Image.Resampling.LANCZOS).convert("RGBA")
    small = small.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    photo.paste(small, (1500, 400), small)
    photo.save(tmp_path / "far.png")
    record, _ = made(tmp_path / "far.png", "face", Detector("yunet", "", weights))
    centre = turned(ASTRONAUT.centre, degrees, (512 * small.width / 120, 512 * small.height / 120))
    x, y = (start + value * 120 / 512 for start, value in zip((1500, 400), centre, strict=True))
    left, top, right, low = record["crop"]
    assert record["faces"] == 1 and left < x < right and top < y < low and right - left < 100


@pytest.mark.parametrize("upright", [True, False])
def test_a_person_in_a_panorama_is_found(upright: bool, weights: Path, tmp_path: Path) -> None:
    photo = Image.new("RGB", (8000, 1200), (70, 90, 110))
    photo.paste(astronaut().resize((256, 256)), (6500, 600))
    (photo if upright else photo.rotate(90, expand=True)).save(tmp_path / "wide.jpg")
    record, _ = made(tmp_path / "wide.jpg", "whole", Detector("yunet", "", weights))
    assert record["faces"] == 1 and record["crop"][2] - record["crop"][0] == 1200
    if upright:
        wanted = ASTRONAUT.scaled(0.5)
        moved = Face(wanted.left + 6500, wanted.top + 600, wanted.width, wanted.height)
        assert overlap(Face(*record["face"]), moved) > 0.5


@pytest.mark.parametrize("framing", [name for name in FRAMINGS if name != "mixed"])
@pytest.mark.parametrize("size", [(900, 600), (600, 900), (600, 600), (1600, 200)])
def test_crops_are_squares_inside_the_picture_that_hold_the_head(framing: str, size: tuple[int, int]) -> None:
    for left in (0, size[0] // 2, size[0] - 100):
        for top in (0, size[1] // 2 - 20, size[1] - 110):
            face = Face(left, top, 100, 110)
            box = crop_around_face(size, face, "yunet", framing, 512).box
            assert box[2] - box[0] == box[3] - box[1]
            assert 0 <= box[0] <= face.left and face.left + face.width <= box[2] <= size[0]
            assert 0 <= box[1] <= face.top and face.top + face.height <= box[3] <= size[1]


@pytest.mark.parametrize("framing", [name for name in FRAMINGS if name != "mixed"])
@pytest.mark.parametrize("up", [(0, -1), (0, 1), (1, 0), (-1, 0), (0.6, -0.8)])
def test_the_hair_is_in_the_crop_wherever_the_photo_has_it(framing: str, up: tuple[float, float]) -> None:
    for size in ((900, 600), (600, 900), (700, 700)):
        for left, top, height in ((80, 90, 120), (200, 150, 300), (0, 0, 200), (400, 300, 180)):
            face = Face(left, top, height, height, up)
            box = crop_around_face(size, face, "yunet", framing, 512).box
            for axis in (0, 1):
                first, last = max(0, face.head[axis]), min(size[axis], face.head[axis + 2])
                assert last - first > min(size) or (box[axis] <= first + 1 and box[axis + 2] >= last - 1)


def test_wider_framings_show_more() -> None:
    face = Face(1400, 700, 300, 300)
    sides = {name: crop_around_face((3000, 4000), face, "yunet", name, 512).box for name in FRAMINGS[1:]}
    widths = [sides[name][2] - sides[name][0] for name in FRAMINGS[1:]]
    assert widths == sorted(set(widths)) and widths[-1] == 3000


def test_mixed_framing_is_mixed_keeps_squares_and_enlarges_nothing() -> None:
    face = Face(1400, 700, 300, 300)
    chosen = [crop_around_face((3000, 4000), face, "yunet", "mixed", 512, n).framing for n in range(5)]
    assert sorted(chosen) == ["face", "head_and_shoulders", "head_and_shoulders", "upper_body", "whole"]
    assert crop_around_face((3000, 3000), face, "yunet", "mixed", 512, 1).framing == "whole"
    small = crop_around_face((3000, 4000), Face(1400, 700, 150, 150), "yunet", "mixed", 512, 1)
    assert small.framing == "upper_body"  # 1.9 and 3.2 times 150 pixels are fewer than 512
    assert small.notes == ("wider than face, so that it isn't enlarged",)


def test_nothing_is_mirrored_a_head_larger_than_the_picture_gets_the_largest_square() -> None:
    wide = crop_around_face((600, 200), Face(200, 5, 190, 190), "yunet", "face", 128)
    assert wide.box == (195, 0, 395, 200)
    tall = crop_around_face((200, 600), Face(5, 200, 190, 250), "yunet", "face", 128)
    assert tall.box[0] == 0 and tall.box[2] == 200 and 100 < tall.box[1] < 200


def test_without_a_face_the_square_lies_where_something_is() -> None:
    picture = Image.effect_noise((600, 200), 5).convert("RGB")
    picture.paste(astronaut().resize((150, 150)), (440, 20))
    crop = crop_without_face(picture, picture.size)
    assert crop.by == "saliency" and crop.box[0] > 250 and crop.box[2] <= 600
    tall = crop_without_face(picture.rotate(-90, expand=True), (200, 600))  # she is at the bottom
    assert tall.box[1] > 250 and tall.box[3] <= 600
    flat = crop_without_face(Image.new("RGB", (600, 200)), (600, 200))
    assert flat.box == (200, 0, 400, 200)


def test_of_several_faces_the_largest_is_taken(tmp_path: Path, detector: Detector) -> None:
    both = Image.new("RGB", (1100, 640), (70, 90, 110))
    both.paste(astronaut().crop((60, 0, 400, 400)), (20, 100))
    both.paste(astronaut().crop((60, 0, 400, 400)).resize((544, 640)), (500, 0))
    both.save(tmp_path / "two.png")
    record, _ = made(tmp_path / "two.png", "face", detector)
    assert record["faces"] == 2 and record["face"][0] > 500
    assert "2 faces, the largest taken" in record["notes"]


def test_no_face_is_seen_where_there_is_none(weights: Path) -> None:
    from skimage import data

    pictures = [
        Image.fromarray(getattr(data, name)()) for name in ("coffee", "chelsea", "brick", "rocket", "page")
    ]
    for picture in [*pictures, *map(Image.open, sorted((shared("dreambooth") / "vase").iterdir()))]:
        assert find_faces(picture.convert("RGB"), weights) == []


def test_photos_that_were_cropped_without_a_detector_are_done_again_when_it_is_there(
    weights: Path, workplace: Path
) -> None:
    (workplace / "raw").mkdir()
    scene().save("raw/a.png")
    without = prepare("raw", "out", 128, progress=False)
    assert without.records[0]["crop_by"] == "saliency" and not without.findings_of("a.png")
    put = workplace / faces.WEIGHTS_FOLDER / faces.YUNET
    put.parent.mkdir(parents=True)
    put.write_bytes(weights.read_bytes())
    found = prepare("raw", "out", 128, progress=False)
    assert (found.records[0]["crop_by"], found.records[0]["faces"]) == ("yunet", 1)
    put.unlink()
    assert prepare("raw", "out", 128, progress=False).records == found.records  # what was better stays


def test_weights_are_downloaded_once_from_one_of_two_places_and_checked(
    weights: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from huggingface_hub import constants

    hub, zoo = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("zoo")
    place = hub / "opencv/face_detection_yunet/resolve/main"
    folder = zoo / "face_detection_yunet"
    place.mkdir(parents=True)
    folder.mkdir()
    (place / faces.YUNET).write_text("<html>a hotel's login page</html>")
    (folder / faces.YUNET).write_bytes(weights.read_bytes())
    monkeypatch.setattr(constants, "ENDPOINT", hub.as_uri())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(faces, "ZOO", zoo.as_uri())
    found = face_weights(YUNET)
    assert found == faces.WEIGHTS_FOLDER / faces.YUNET and found.read_bytes() == weights.read_bytes()
    (folder / faces.YUNET).unlink()
    assert face_weights(YUNET) == found
    found.write_bytes(b"torn")
    assert face_weights(YUNET) is None


def test_an_unreachable_hub_costs_seconds_and_one_line_that_names_the_way_out(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(faces, "ZOO", "http://127.0.0.1:9")
    start = time.perf_counter()
    detector = choose_detector()
    assert time.perf_counter() - start < 10
    if detector.name == "none":  # it may be in the hub's cache
        assert "\n" not in detector.why and "cache_dir" in detector.why and detector.find(astronaut()) == []
    assert choose_detector("thing").why == "not looked for, the subject is no person"


def test_in_a_group_the_person_of_the_other_photos_is_taken(
    weights: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = workplace / faces.WEIGHTS_FOLDER / faces.YUNET
    put.parent.mkdir(parents=True)
    put.write_bytes(weights.read_bytes())
    (workplace / "raw").mkdir()
    person, stranger = astronaut(), Image.merge("RGB", astronaut().split()[::-1])  # a blue-faced stranger
    for number, angle in enumerate((-8, 0, 7)):
        person.rotate(angle).save(f"raw/{number}.png")
    group = Image.new("RGB", (1100, 640), (70, 90, 110))
    group.paste(person.crop((60, 0, 400, 400)), (20, 100))
    group.paste(stranger.crop((60, 0, 400, 400)).resize((544, 640)), (500, 0))
    group.save("raw/group.png")
    largest = prepare("raw", "out", 128, progress=False, framing="face")
    assert largest.records[-1]["face"][0] > 500 and "the largest taken" in str(largest.records[-1]["notes"])
    monkeypatch.setattr(preparation, "face_weights", lambda file: weights)
    monkeypatch.setattr(faces, "face_features", by_colour)  # SFace itself is 37 MB
    for _ in range(2):
        shared_one = prepare("raw", "out", 128, progress=False, framing="face").records[-1]
        assert shared_one["face"][0] < 500 and shared_one["crop"][2] < 500
        assert "2 faces, the one that most photos share taken" in shared_one["notes"]
    with Image.open("out/group.png") as image:
        red, _, blue = np.asarray(image.resize((1, 1)), dtype=int)[0, 0]
        assert red > blue


def by_colour(pictures: list[Image.Image], yunet: Path, sface: Path) -> np.ndarray:
    """Features that tell the two apart: how red the middle of a picture is, and how blue."""
    middles = [picture.resize((9, 9)).getpixel((4, 4)) for picture in pictures]
    found = np.array([(red, blue) for red, _, blue in middles], dtype=float) - 128
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("shown", [60, 80, 100, 140])
def test_a_face_that_fills_the_photo_is_found_and_nothing_is_added_to_it(shown: int, weights: Path) -> None:
    x, y, half = 225, 118, shown // 2  # pixels of the astronaut around her nose
    photo = astronaut().crop((x - half, y - half, x + half, y + half)).resize((900, 900))
    (face,) = find_faces(photo, weights)
    assert np.hypot(*np.subtract(face.centre, 450)) < 100 and face.side > 600
    for framing in FRAMINGS[1:]:
        box = crop_around_face(photo.size, face, "yunet", framing, 512).box
        assert min(box) >= 0 and max(box) <= 900


def test_the_courses_drawn_photos_are_not_searched(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """YuNet knows photographed faces, and finds those of some drawings only, so nothing is said of them."""
    from sdlab import mini

    for subject in ("woman", "man"):
        mini.copy_photos(subject, tmp_path / subject)
        dataset = prepare(tmp_path / subject, tmp_path / f"{subject}_images", 128)
        assert "face" not in capsys.readouterr().out + dataset.summary()
