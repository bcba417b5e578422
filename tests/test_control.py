"""Control image -> control map -> images: through experiments on `mini`, with what the records say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt

from recipes.mini import world
from sdlab import Control, PromptSet, generate
from sdlab.control import control_map, with_controlnets
from sdlab.control.maps import KINDS, canny_map
from sdlab.experiment import DreamBooth, LoRA
from sdlab.files import file_sha256
from sdlab.images import ImageRecord, load_images
from sdlab.mini import annotator_path, controlnet_path
from sdlab.sampling import choose_sampling, read_record, ready_pipeline
from sdlab.tables import control_table
from sdlab.training import train

ROOT = Path(__file__).parent.parent
PROMPTS = PromptSet({"desert": "portrait of sks woman, in the desert", "moon": "a face of sks woman, moon"})


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn control image that no model was trained on."""
    file = tmp_path_factory.mktemp("pictures") / "waving woman.png"
    drawn = world.varied(
        world.sample(10_000_004), scene="studio", framing="half body", pose="waving", flaw="none"
    )
    world.draw(drawn, 256).save(file)
    return file


@pytest.fixture(scope="module")
def place(short: Callable[..., DreamBooth | LoRA], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one trained experiment, `lora`."""
    folder = tmp_path_factory.mktemp("place")
    train("lora", short("lora", learning_rate=1e-2), root=folder / "experiments", progress=False)
    return folder


def run(
    place: Path, experiments: list[str], control: object, steps: int = 2, count: int = 1
) -> list[ImageRecord]:
    return generate(
        experiments,
        PROMPTS,
        control=control,
        images_per_prompt=count,
        num_inference_steps=steps,
        sampler="unipc",
        root=place / "experiments",
        results=place / "results",
        progress=False,
    )


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"), dtype=int)


def near_edges(control: Image.Image, image: Image.Image) -> float:
    """Share of the control map's edges with an edge of the image within 2 pixels."""
    wanted, there = (np.asarray(one.convert("L")) > 127 for one in (control, canny_map(image)))
    return float((distance_transform_edt(~there)[wanted] <= 2).mean()) if there.any() else 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_images_lie_with_their_map_and_say_how_they_were_made(place: Path, picture: Path, kind: str) -> None:
    control = Control(kind, picture, scale=0.7, end=0.8)
    records = run(place, ["base", "lora"], control)
    folders = [f"{name}_{kind}_waving_woman_scale0.7" for name in ("base", "lora")]
    assert list(dict.fromkeys(record.path.parent.name for record in records)) == folders
    assert [record.experiment for record in records] == ["base", "base", "lora", "lora"]
    assert load_images(folders[1], results=place / "results") == records[2:]
    (said,) = records[2].control
    assert read_record(records[2].path)["control"] == [said]
    assert (said["kind"], said["scale"], said["end"]) == (kind, 0.7, 0.8)
    assert said["image_sha256"] == file_sha256(picture)[:16]
    shown = Image.open(records[2].path.parent / said["map"])
    assert np.array_equal(np.asarray(shown), np.asarray(control_map(control, 128).image))


def test_no_control_and_scale_0_are_the_same_images(place: Path, picture: Path) -> None:
    plain = run(place, ["base"], ())
    assert "control" not in plain[0].as_dict()
    still = run(place, ["base"], Control("canny", picture, scale=0))
    for one, other in zip(plain, still, strict=True):
        assert np.abs(pixels(one.path) - pixels(other.path)).max() <= 1
    steered = run(place, ["base"], Control("canny", picture))
    assert np.abs(pixels(plain[0].path) - pixels(steered[0].path)).mean() > 2


def test_finished_images_are_kept_until_the_control_changes(place: Path, picture: Path) -> None:
    def times(records: list[ImageRecord]) -> list[int]:
        return [record.path.stat().st_mtime_ns for record in records]

    first = times(run(place, ["base"], Control("depth", picture, start=0.1)))
    assert times(run(place, ["base"], Control("depth", picture, start=0.1))) == first
    again = times(run(place, ["base"], Control("depth", picture, start=0.2)))
    assert not set(again) & set(first)


def test_another_control_of_the_same_name_makes_room_with_a_word_and_comes_back(
    place: Path, picture: Path, tmp_path: Path
) -> None:
    first = run(place, ["lora"], Control("pose", picture))
    before = [pixels(one.path) for one in first]
    other = tmp_path / picture.name  # another picture under the same name
    Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
    for control in (Control("pose", picture, end=0.5), Control("pose", other)):
        with pytest.warns(UserWarning, match="made with another control"):
            changed = run(place, ["lora"], control)
        assert not any(
            np.array_equal(pixels(one.path), old) for one, old in zip(changed, before, strict=True)
        )
    with pytest.warns(UserWarning, match="they come back"):
        again = run(place, ["lora"], Control("pose", picture))
    assert all(np.array_equal(pixels(one.path), old) for one, old in zip(again, before, strict=True))


def test_control_in_landscape_format(place: Path, picture: Path) -> None:
    records = generate(
        "base", PROMPTS, control=[Control("pose", picture), Control("canny", picture, fit="fit")],
        images_per_prompt=1, num_inference_steps=1, sampler="unipc", width=192, height=128,
        results=place / "landscape", progress=False,
    )  # fmt: skip
    shown = [records[0].path, *(records[0].path.parent / one["map"] for one in records[0].control)]
    assert [Image.open(file).size for file in shown] == [(192, 128)] * 3


def test_several_controls_at_once(place: Path, picture: Path) -> None:
    controls = [Control("canny", picture, scale=0.5), Control("pose", picture)]
    both = run(place, ["lora"], controls)
    assert both[0].path.parent.name == "lora_canny_waving_woman_scale0.5+pose_waving_woman"
    assert [one["kind"] for one in both[0].control] == ["canny", "pose"]
    alone = run(place, ["lora"], controls[:1])
    assert not np.array_equal(pixels(both[0].path), pixels(alone[0].path))


def test_several_controls_steer_every_image_of_a_batch_alike(place: Path, picture: Path) -> None:
    controls = [Control("canny", picture, scale=0.5), Control("pose", picture, scale=0.9)]
    together = run(place, ["base"], controls, count=3)  # six images, two ControlNets
    for number, seed in ((1, 0), (3, 2)):
        alone = generate(
            "base", PROMPTS, control=controls, images_per_prompt=1, seed=seed, batch_size=1,
            num_inference_steps=2, sampler="unipc", results=place / f"alone{seed}", progress=False,
        )  # fmt: skip
        batched = [one for one in together if one.number == number]
        for one, other in zip(batched, alone, strict=True):
            assert np.abs(pixels(one.path) - pixels(other.path)).max() <= 2


def test_canny_puts_edges_where_the_control_image_has_them(place: Path, picture: Path) -> None:
    made = control_map(Control("canny", picture), 128).image
    with_control = run(place, ["base"], Control("canny", picture), steps=8, count=4)
    without = run(place, ["base"], (), steps=8, count=4)
    near, by_chance = (
        np.mean([near_edges(made, Image.open(one.path)) for one in records])
        for records in (with_control, without)
    )
    assert near > by_chance + 0.2  # benchmarks/control.py measures both on 100 pictures


def test_weights_are_shared_and_loaded_once(picture: Path) -> None:
    sampling = choose_sampling("mini", num_inference_steps=1, sampler="unipc")
    pipelines = [ready_pipeline("mini", sampling) for _ in range(2)]
    made = [control_map(Control("canny", picture), 128)]
    controlled = [with_controlnets(pipeline, made) for pipeline in pipelines]
    assert controlled[0].unet is pipelines[0].unet and controlled[0].vae is pipelines[0].vae
    assert controlled[0].text_encoder is pipelines[0].text_encoder
    assert controlled[0].controlnet is controlled[1].controlnet
    assert controlled[0].dtype == pipelines[0].dtype
    assert type(controlled[0].scheduler).__name__ == "UniPCMultistepScheduler"


def test_a_controlnet_of_another_base_is_refused(tmp_path: Path, picture: Path, place: Path) -> None:
    from diffusers import ControlNetModel

    ControlNetModel(
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        cross_attention_dim=32,
        conditioning_embedding_out_channels=(8, 8),
    ).save_pretrained(tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"made for another base model: its in_channels is 4, the UNet's is 8"
    ):
        run(place, ["base"], Control("canny", picture, model=str(tmp_path / "other")))


def test_a_folder_without_a_controlnet_is_named(tmp_path: Path, picture: Path, place: Path) -> None:
    with pytest.raises(ValueError, match=r"is no ControlNet: a folder with config.json"):
        run(place, ["base"], Control("canny", picture, model=str(tmp_path)))


@pytest.mark.slow  # the hub is asked five times
def test_a_missing_controlnet_is_named_with_the_way_out(place: Path, picture: Path) -> None:
    with pytest.raises(OSError, match=r"'nobody/nothing' isn't on this machine .* base 'mini'"):
        run(place, ["base"], Control("canny", picture, model="nobody/nothing"))


def test_the_embedded_weights_are_standard_and_small() -> None:
    import torch
    from diffusers import ControlNetModel

    for kind in KINDS:
        network = ControlNetModel.from_pretrained(controlnet_path(kind))
        assert network.dtype == torch.float32 and network.config.in_channels == 8

    def size(folder: Path) -> float:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6

    weights = controlnet_path("canny").parent.parent
    assert size(weights / "control") < 8.6  # the limits are what the package may hold
    assert size(annotator_path("depth").parent) < 0.9
    assert size(weights) < 30


def test_without_control_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, sdlab\n"
        "sdlab.generate('base', sdlab.PromptSet({'a': 'a woman'}), images_per_prompt=1, "
        "num_inference_steps=1, resolution=64, results=sys.argv[1], progress=False)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "sdlab" in loaded and not loaded & {"controlnet_aux", "timm", "mediapipe"}


def test_tables_of_kinds_scales_and_experiments(place: Path, picture: Path, tmp_path: Path) -> None:
    images = []
    for kind in ("canny", "pose"):
        for scale in (0, 1):
            images += run(place, ["base", "lora"], Control(kind, picture, scale=scale))
    by_prompt = control_table([one for one in images if one.experiment == "base"], root=place / "experiments")
    assert [heading.title for heading in by_prompt.rows] == ["canny", "pose"]
    titles = [heading.title for heading in by_prompt.columns]
    assert titles == ["control image", "control map", "desert", "moon"]
    assert [len(cell.images) for cell in by_prompt.cells[0]] == [1, 1, 1, 1]
    by_scale = control_table(images, columns="scale", root=place / "experiments")
    assert [heading.title for heading in by_scale.columns[2:]] == ["scale 0", "scale 1"]
    folder, _ = by_scale.cells[1][3].name
    assert "scale1" not in folder and "pose" in folder
    by_experiment = control_table(images, columns="experiment", root=place / "experiments")
    assert [heading.title for heading in by_experiment.columns[2:]] == ["base model", "lora"]
    assert by_experiment.save(tmp_path / "table.png").stat().st_size > 10_000
    assert "waving woman.png" in by_experiment.markdown(tmp_path)
    with pytest.raises(ValueError, match="rows and columns must differ"):
        control_table(images, rows="scale", columns="scale")


def test_the_command_makes_images_and_a_table(
    place: Path, picture: Path, capsys: pytest.CaptureFixture
) -> None:
    from sdlab.cli import main

    words = [
        "control",
        "--image",
        str(picture),
        "--kind",
        "canny",
        "--kind",
        "pose",
        "--experiments",
        "base",
        "lora",
    ]
    words += ["--num_inference_steps", "1", "--columns", "experiment", "--scale", "0.5"]
    words += ["--root", str(place / "experiments"), "--results", str(place / "results")]
    main(words)
    assert "control_experiment.png: 2 rows × 4 columns" in capsys.readouterr().out
    assert (place / "results" / "lora_pose_waving_woman_scale0.5" / "moon_img1.png").is_file()


def test_a_control_image_of_the_course_needs_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Control("pose", "data/control_images/raised_arms.png").file.is_file()
    with pytest.raises(FileNotFoundError, match=r"mine/raised_arms\.png"):
        Control("pose", "mine/raised_arms.png")


def test_the_courses_control_images_are_what_the_world_draws(tmp_path: Path) -> None:
    from recipes.mini.world.references import write

    drawn = write(tmp_path)
    assert len(drawn) >= 3
    for file in drawn:
        assert np.array_equal(pixels(file), pixels(ROOT / "data" / "control_images" / file.name))
