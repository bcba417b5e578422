"""Control maps: edges, depth and pose of pictures of any mode and size, without stretching them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pillow_heif import register_heif_opener
from scipy.ndimage import distance_transform_edt

from recipes.mini import world
from sdlab import Control, mini
from sdlab.control import NothingFound, control_map
from sdlab.control.annotators import estimate_depth, estimate_pose
from sdlab.maps import COCO, KINDS, canny_map, depth_map, openpose_from_coco, pose_map

SIDE = 128


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A drawn portrait."""
    file = tmp_path / "portrait.png"
    person().save(file)
    return file


def person(size: int = 256) -> Image.Image:
    return world.draw(world.varied(world.sample(10_000_011), flaw="none", framing="portrait"), size)


def odd_pictures(folder: Path) -> list[Path]:
    """The portrait in the modes and sizes that users bring."""
    register_heif_opener()
    rgb = person()
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.new("L", rgb.size, 200))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    saved: dict[str, Image.Image] = {
        "grey.png": rgb.convert("L"),
        "one_bit.png": rgb.convert("1"),
        "grey_alpha.png": rgb.convert("LA"),
        "alpha.png": alpha,
        "palette.png": rgb.quantize(64),
        "palette.gif": rgb.quantize(16),
        "cmyk.jpg": rgb.convert("CMYK"),
        "cmyk.tiff": rgb.convert("CMYK"),
        "lab.tiff": rgb.convert("LAB"),
        "deep.png": deep,
        "deep.tiff": deep,
        "float.tiff": rgb.convert("F"),
        "ycbcr.jpg": rgb.convert("YCbCr"),
        "premultiplied.tiff": rgb.convert("RGBX"),
        "plain.bmp": rgb,
        "plain.webp": rgb,
        "plain.heic": rgb,
        "wide.png": rgb.resize((700, 200)),
        "tall.jpg": rgb.resize((200, 700)),
        "small.png": rgb.resize((64, 64)),
        "odd_size.png": rgb.resize((257, 391)),
        "large.jpg": rgb.resize((8000, 6000), Image.Resampling.NEAREST),
        "exact.png": rgb.resize((SIDE, SIDE)),
    }
    for name, image in saved.items():
        image.save(folder / name)
    (folder / "no_ending").write_bytes((folder / "plain.webp").read_bytes())
    rotated = Image.Exif()
    rotated[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=rotated)
    return sorted(file for file in folder.iterdir() if file.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_odd_pictures_become_maps_of_the_images_size(tmp_path: Path, kind: str) -> None:
    files = odd_pictures(tmp_path)
    assert len(files) == 25
    made, refused = [], []
    for file in files:
        for fit in ("crop", "fit"):
            try:
                one = control_map(Control(kind, file, fit=fit), SIDE)
            except NothingFound as error:  # a thin strip of a face may have no joints: that is said
                refused.append((file.name, str(error)))
                continue
            assert one.image.mode == "RGB" and one.image.size == one.reference.size == (SIDE, SIDE)
            assert one.image.convert("L").getextrema()[1] > 0
            made.append(file.name)
    assert len(made) >= 40, refused


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (40, 40), (64, 3000), (9000, 9000)])
def test_pictures_that_cannot_control_are_refused_with_their_size(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    file = tmp_path / "strip.png"
    Image.new("L", size).save(file)
    with pytest.raises(ValueError, match=rf"The control image .*{size[0]}×{size[1]}"):
        control_map(Control("canny", file), SIDE)


@pytest.mark.parametrize("fit", ["crop", "fit"])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (640, 320)])
def test_a_circle_stays_round(tmp_path: Path, fit: str, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "black")
    x, y, r = size[0] / 2, size[1] / 2, min(size) / 3
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill="white")
    image.save(tmp_path / "circle.png")
    made = control_map(Control("canny", tmp_path / "circle.png", fit=fit), SIDE).image
    left, top, right, bottom = made.getbbox()
    assert abs((right - left) - (bottom - top)) <= 1
    scale = SIDE / (min(size) if fit == "crop" else max(size))
    assert abs((right - left) - 2 * r * scale) <= 3


def test_an_unreadable_file_is_refused_and_a_missing_one_named(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<!doctype html><html>")
    with pytest.raises(ValueError, match=r"page\.jpg can't be used: it is a web page"):
        control_map(Control("canny", tmp_path / "page.jpg"), SIDE)
    with pytest.raises(FileNotFoundError, match=r"nobody.png' isn't there"):
        Control("canny", tmp_path / "nobody.png")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "cany"}, "'cany'. Did you mean 'canny'"),
        ({"scale": -1}, "scale must be 0 to 10, got -1"),
        ({"start": 0.5, "end": 0.5}, "start and end are shares of the steps"),
        ({"low_threshold": 300}, "low_threshold <= high_threshold, got 300 and 200"),
        ({"fit": "stretch"}, "'stretch'"),
    ],
)
def test_bad_values_name_the_rule(picture: Path, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Control(**{"kind": "canny", "image": picture} | values)


def test_nobody_and_no_edges_are_said(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), "#88aacc").save(tmp_path / "sky.png")
    with pytest.raises(NothingFound, match=r"No edges found in .*sky.png. Lower low_threshold"):
        control_map(Control("canny", tmp_path / "sky.png"), SIDE)
    with pytest.raises(NothingFound, match=r"No person found in .*sky.png. Take a picture of a person"):
        control_map(Control("pose", tmp_path / "sky.png"), SIDE)


def test_a_map_that_the_user_brings_stays_as_it_is(tmp_path: Path) -> None:
    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    drawn.save(tmp_path / "map.png")
    made = control_map(Control("pose", tmp_path / "map.png", is_map=True), SIDE).image
    assert np.array_equal(np.asarray(made), np.asarray(drawn))


def test_controlnet_aux_is_only_imported_where_asked_for(picture: Path) -> None:
    pytest.importorskip("torch")
    try:
        import controlnet_aux  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'sdlab\[controlnet-aux\]'"):
            control_map(Control("canny", picture, annotator="controlnet_aux"), SIDE)
    else:
        made = control_map(Control("canny", picture, annotator="controlnet_aux"), SIDE).image
        assert made.size == (SIDE, SIDE)


def test_the_homeworks_canny_detector_agrees_with_ours() -> None:
    pytest.importorskip("controlnet_aux")
    for file in sorted((Path(__file__).parent.parent / "data/control_images").glob("*.png")):
        ours, theirs = (
            np.asarray(control_map(Control("canny", file, annotator=one), 512).image.convert("L")) > 127
            for one in (None, "controlnet_aux")
        )
        # OpenCV's gradient is |x| + |y| of the strongest colour there, so it finds some edges more
        assert near(ours, theirs) > 0.99 and near(theirs, ours) > 0.7


def near(edges: np.ndarray, others: np.ndarray) -> float:
    """Share of edges with one of the others within 2 pixels."""
    return float((distance_transform_edt(~others)[edges] <= 2).mean())


@pytest.mark.parametrize("fit", ["crop", "fit"])
@pytest.mark.parametrize("size", [(192, 128), (96, 160)])
def test_maps_have_the_images_width_and_height(picture: Path, size: tuple[int, int], fit: str) -> None:
    for kind in KINDS:
        made = control_map(Control(kind, picture, fit=fit), size)
        assert made.image.size == made.reference.size == size
        left, top, right, bottom = made.image.getbbox()
        drawn = min(size) + 2 if fit == "fit" else max(size)  # a square picture that isn't stretched
        assert right - left <= drawn and bottom - top <= drawn


def test_a_folder_and_a_home_directory_as_control_image(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="is a folder: name a picture in it"):
        Control("canny", picture.parent)
    monkeypatch.setenv("HOME", str(picture.parent))
    assert control_map(Control("canny", "~/portrait.png"), SIDE).record["image"] == "portrait.png"


def test_canny_follows_its_thresholds() -> None:
    image = Image.new("L", (64, 64), 100)
    image.paste(130, (32, 0, 64, 64))  # a step of 30: Sobel's gradient there is 4 × 30 = 120
    assert canny_map(image, 50, 100).convert("L").getextrema() == (0, 255)
    assert canny_map(image, 60, 130).convert("L").getextrema() == (0, 0)


def test_depth_is_stretched_and_the_nearest_is_white() -> None:
    made = np.asarray(depth_map(np.array([[2.0, 3.0], [4.0, 4.0]])).convert("L"))
    assert made.tolist() == [[0, 128], [255, 255]]
    assert depth_map(np.ones((2, 2))).getextrema()[0] == (0, 0)


def test_pose_is_drawn_as_openpose_draws_it() -> None:
    points = np.zeros((17, 3))
    points[5], points[6] = (380, 256, 1), (132, 256, 1)  # left and right shoulder
    person = openpose_from_coco(points)
    assert person[1].tolist() == [256, 256, 1]  # the neck between them
    made = pose_map([person], (512, 512))
    assert made.getpixel((132, 256)) == (255, 170, 0)  # the right shoulder's colour
    assert made.getpixel((190, 256)) == (153, 0, 0)  # the limb to it: 0.6 of red
    assert made.getpixel((190, 300)) == (0, 0, 0)
    points[6, 2] = 0
    assert openpose_from_coco(points)[1, 2] == 0  # no neck without both shoulders
    assert pose_map([], (64, 48)).size == (64, 48)


def test_minis_annotators_see_drawn_people() -> None:
    from scipy.stats import spearmanr

    correlations, near = [], []
    for seed in range(10_000_020, 10_000_028):
        truth = world.truth(world.varied(world.sample(seed), flaw="none"))
        depth = estimate_depth(truth.image, str(mini.annotator_path("depth")))
        correlations.append(spearmanr(depth.ravel(), truth.depth.ravel()).statistic)
        (found,) = estimate_pose(truth.image, str(mini.annotator_path("pose")))
        known = openpose_from_coco(truth.keypoints[list(COCO)])
        seen = known[:, 2] > 0
        near += (np.hypot(*(found - known)[seen, :2].T) < 0.06 * SIDE).tolist()
    assert np.mean(correlations) > 0.85 and np.mean(near) > 0.85  # the benchmark's bars for whole images
