"""What was made by other programs: images as rows of a table, LoRAs on a base, checkpoints of odd kinds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

torch = pytest.importorskip("torch")

from diffusers import DDIMScheduler, EDMEulerScheduler, StableDiffusionPipeline  # noqa: E402
from peft.tuners.lora import LoraLayer  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from sdlab import mini  # noqa: E402
from sdlab.experiment import DreamBooth, Experiment, LoRA  # noqa: E402
from sdlab.exports import export_lora, export_model  # noqa: E402
from sdlab.formats import NotACheckpoint, convert  # noqa: E402
from sdlab.images import images_from_elsewhere, load_images  # noqa: E402
from sdlab.models import load_pipeline, resolve  # noqa: E402
from tests.test_export import made  # noqa: E402
from tests.test_formats import image  # noqa: E402

Short = Callable[..., DreamBooth | LoRA]
A1111 = (
    "a portrait of sks woman, castle\nNegative prompt: blurry, hat\n"
    "Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 1234, Size: 64x64, Model hash: ab12, "
    'Model: dreamshaper, Lora hashes: "sks: 12, other: 3"'
)
COMFYUI = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "model": ["4", 0],
            "positive": ["6", 0], "negative": ["7", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "sks woman in a desert", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
}  # fmt: skip


def picture(seed: int, side: int = 64) -> Image.Image:
    """A smooth picture, as photos are."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def with_text(key: str, text: str) -> PngInfo:
    info = PngInfo()
    info.add_text(key, text)
    return info


def test_images_of_other_programs_are_rows_that_say_what_they_know(tmp_path: Path) -> None:
    folder = tmp_path / "friend"
    folder.mkdir()
    picture(1).save(folder / "castle_img1.png", pnginfo=with_text("parameters", A1111))
    picture(2).save(folder / "desert_img2.png", pnginfo=with_text("prompt", json.dumps(COMFYUI)))
    picture(3).save(folder / "moon_img1.jpg")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    picture(4).save(folder / "street_img1.webp", exif=exif)
    (folder / "torn_img1.png").write_bytes(b"torn")
    assert load_images("friend", results=tmp_path) == []
    with pytest.warns(UserWarning, match=r"torn_img1\.png is skipped"):
        castle, desert, moon, street = images_from_elsewhere("friend", results=tmp_path)
    assert (castle.prompt, castle.negative_prompt) == ("a portrait of sks woman, castle", "blurry, hat")
    assert (castle.num_inference_steps, castle.guidance_scale, castle.seed) == (25, 6.5, 1234)
    assert (castle.sampler, castle.model, castle.elsewhere) == ("DPM++ 2M Karras", "dreamshaper", "A1111")
    assert street.prompt == castle.prompt and street.seed == 1234
    assert (desert.prompt, desert.negative_prompt, desert.number) == ("sks woman in a desert", "ugly", 2)
    assert (desert.seed, desert.guidance_scale, desert.elsewhere) == (7, 8.0, "ComfyUI")
    assert (moon.prompt_name, moon.prompt, moon.width, moon.elsewhere) == ("moon", "", 64, "another program")


def test_a_grid_is_taken_apart_and_a_single_picture_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "friend"
    folder.mkdir()
    grid = Image.new("RGB", (128, 128))
    for n in range(4):
        grid.paste(picture(n), (64 * (n % 2), 64 * (n // 2)))
    grid.save(folder / "castle.jpg", quality=95)
    picture(9, 128).save(folder / "moon.jpg")
    *castle, moon = images_from_elsewhere("friend", results=tmp_path)
    assert [one.number for one in castle] == [1, 2, 3, 4] and moon.path == folder / "moon.jpg"
    for n, one in enumerate(castle):
        found = np.asarray(Image.open(one.path), dtype=int)
        assert np.abs(found - np.asarray(picture(n), dtype=int)).mean() < 8  # JPEG's loss
    assert sorted(file.name for file in folder.iterdir()) == [".tiles", "castle.jpg", "moon.jpg"]


@pytest.fixture(scope="module")
def trained(short: Short, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return made(short, tmp_path_factory.mktemp("trained"), ["to_q", "to_k", "to_v", "to_out.0"])


@pytest.mark.parametrize("format", ["kohya", "diffusers"])
def test_a_loras_file_is_added_to_a_model_by_name(format: str, trained: Experiment, tmp_path: Path) -> None:
    file = export_lora(trained.path, tmp_path / "some.safetensors", format=format)
    model = resolve(f"mini+{file}@0.5")
    model.check(128, 128)
    assert model.label == "mini+some@0.5" and model.root_name == "mini"
    ours = image(load_pipeline(f"{trained.path}@0.5"))
    assert float((image(model.load()) - ours).abs().max()) < 1e-3
    with pytest.raises(ValueError, match=r"needs a model that it is added to\. Name both: sd15\+"):
        resolve(f"{file}@0.5")
    with pytest.raises(NotACheckpoint, match=r"is a LoRA, .*add it to one: sd15\+.*some\.safetensors"):
        resolve(file).check()


def test_each_layer_of_kohyas_file_has_its_own_alpha(trained: Experiment, tmp_path: Path) -> None:
    file = export_lora(trained.path, tmp_path / "some.safetensors")
    weights = load_file(file)
    alphas = [name for name in weights if name.endswith(".alpha")]
    for number, name in enumerate(alphas):
        weights[name] = torch.tensor(float(1 + number % 3))
    save_file(weights, file)
    pipeline = load_pipeline(f"mini+{file}")
    for name, layer in pipeline.unet.named_modules():
        if isinstance(layer, LoraLayer):
            alpha = float(weights[f"lora_unet_{name.replace('.', '_')}.alpha"])
            assert list(layer.scaling.values()) == [alpha / rank for rank in layer.r.values()]


def test_graphs_and_texts_that_say_little_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "friend").mkdir()
    upscaled = {"1": {"class_type": "ImageScale", "inputs": {"text": []}}}
    picture(1).save(tmp_path / "friend/a_img1.png", pnginfo=with_text("prompt", json.dumps(upscaled)))
    odd = A1111.replace("Seed: 1234", "Seed: inf")
    picture(2).save(tmp_path / "friend/b_img1.png", pnginfo=with_text("parameters", odd))
    one, other = images_from_elsewhere("friend", results=tmp_path)
    assert (one.elsewhere, other.seed, other.num_inference_steps) == ("another program", -1, 25)


def test_a_loras_file_with_another_ending_is_the_same(trained: Experiment, tmp_path: Path) -> None:
    file = Path(shutil.copy(trained.lora_file, tmp_path / "some.SAFETENSORS"))
    assert torch.equal(image(load_pipeline(f"mini+{file}")), image(load_pipeline(trained.path)))


def test_a_lora_of_no_numbers_is_refused(trained: Experiment, tmp_path: Path) -> None:
    weights = {name: weight * float("nan") for name, weight in load_file(trained.lora_file).items()}
    save_file(weights, tmp_path / "some.safetensors")
    with pytest.raises(NotACheckpoint, match="weights that are no numbers"):
        resolve(f"mini+{tmp_path / 'some.safetensors'}").check()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"lora_unet_x.hada_w1_a": (4, 4)}, "is a LoHa, which can't be added"),
        ({"lora_unet_x.lokr_w1": (4, 4)}, "is a LoKr"),
        ({"lora_unet_x.lora_down.weight": (4, 4), "lora_unet_x.dora_scale": (4, 1)}, "is a DoRA"),
        ({"conv_in.weight": (4, 4)}, "is no LoRA"),
        ({"lora_unet_a_attn2_to_k.lora_down.weight": (4, 768)}, "was made for Stable Diffusion 1.5, and"),
        ({"lora_unet_a_attn2_to_k.lora_down.weight": (4, 2048)}, "was made for Stable Diffusion XL"),
    ],
)
def test_what_cannot_be_added_is_named(
    weights: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "odd.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in weights.items()}, file)
    with pytest.raises(NotACheckpoint, match=message):
        resolve(f"mini+{file}").check()


@pytest.fixture(scope="module")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model("mini", tmp_path_factory.mktemp("single") / "mini.safetensors")


def _without_text_model(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace(".text_model.", "."): weight for name, weight in weights.items()}


def _running_mean_alone(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    start = "model.diffusion_model."
    return {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}"
        if name.startswith(start)
        else name: weight
        for name, weight in weights.items()
    }


def _newer_fp8(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As ComfyUI writes it since 2025."""
    return {name.replace("scale_weight", "weight_scale"): w for name, w in _scaled_fp8(weights).items()}


def _scaled_fp8(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As ComfyUI writes it: linear layers divided by a scale of their own."""
    scaled = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for name, weight in weights.items():
        scaled[name] = weight
        if name.startswith("model.diffusion_model.") and name.endswith("to_q.weight"):
            scale = weight.float().abs().max() / 448
            scaled[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
            scaled[name.replace(".weight", ".scale_weight")] = scale
    return scaled


@pytest.mark.parametrize("name", ["model.SAFETENSORS", "model.ckpt"])
@pytest.mark.parametrize("change", [_without_text_model, _running_mean_alone, _scaled_fp8, _newer_fp8, dict])
def test_odd_checkpoints_convert_to_the_same_model(
    change: Callable[..., dict[str, torch.Tensor]], name: str, single_file: Path, tmp_path: Path
) -> None:
    save_file(change(load_file(single_file)), tmp_path / name)  # the .ckpt holds safetensors
    convert(tmp_path / name, tmp_path / "out", config=mini.path())
    for part, close in (
        ("text_encoder", 1e-7),
        ("unet", 0.05 if change in (_scaled_fp8, _newer_fp8) else 1e-7),
    ):
        before = load_file(next(Path(mini.path(), part).glob("*.safetensors")))
        after = load_file(next((tmp_path / "out" / part).glob("*.safetensors")))
        after = {key.removeprefix("text_model."): value for key, value in after.items()}
        for key, value in before.items():
            found = after[key.removeprefix("text_model.")]
            assert (
                float((found - value.float()).abs().max()) <= close * float(value.float().abs().max()) + 1e-9
            )


def test_a_v_prediction_model_says_so(single_file: Path, tmp_path: Path) -> None:
    save_file(load_file(single_file) | {"v_pred": torch.zeros(0)}, tmp_path / "v.safetensors")
    convert(tmp_path / "v.safetensors", tmp_path / "out", config=mini.path())
    said = json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())
    assert said["prediction_type"] == "v_prediction" and said["clip_sample"] is False


def _not_a_number(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name in weights if name.startswith("model.diffusion_model."))
    return weights | {name: torch.full_like(weights[name], float("nan"))}


def _bare_unet(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    start = "model.diffusion_model."
    return {name.removeprefix(start): weight for name, weight in weights.items() if name.startswith(start)}


@pytest.mark.parametrize(
    ("change", "message"),
    [(_not_a_number, "weights that are no numbers"), (_bare_unet, "is a UNet alone")],
)
def test_what_cannot_be_converted_is_named(
    change: Callable[..., dict[str, torch.Tensor]], message: str, single_file: Path, tmp_path: Path
) -> None:
    save_file(change(load_file(single_file)), tmp_path / "model.safetensors")
    with pytest.raises(NotACheckpoint, match=message):
        convert(tmp_path / "model.safetensors", tmp_path / "out", config=mini.path())
    assert not (tmp_path / "out").exists()


def test_an_embedding_of_a1111_is_named(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}, "name": "x"}, tmp_path / "x.pt")
    with pytest.raises(NotACheckpoint, match="is a textual inversion"):
        convert(tmp_path / "x.pt", tmp_path / "out")


def _xl(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "StableDiffusionXLPipeline"}))


def _inpainting(folder: Path) -> None:
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps(config | {"in_channels": 9}))


def _truncated(folder: Path) -> None:
    file = next((folder / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:100_000])


def _without_vae(folder: Path) -> None:
    next((folder / "vae").glob("*.safetensors")).unlink()


def _nan(folder: Path) -> None:
    file = next((folder / "unet").glob("*.safetensors"))
    weights = load_file(file)
    save_file(weights | {"conv_in.bias": torch.full_like(weights["conv_in.bias"], float("inf"))}, file)


def _without_tokenizer(folder: Path) -> None:
    for name in ("merges.txt", "tokenizer.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)


def _without_scheduler(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")


def _pointer_of_git(folder: Path) -> None:
    file = next((folder / "unet").glob("*.safetensors"))
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_tokenizer, "tokenizer/ holds no vocab.json and merges.txt"),
        (_without_scheduler, "scheduler_config.json is missing"),
        (_pointer_of_git, "is a pointer of Git LFS"),
        (_xl, "is a StableDiffusionXLPipeline, and a Stable Diffusion 1.5 checkpoint"),
        (_inpainting, "is an inpainting model"),
        (_truncated, r"broken or truncated: [\d,]+ of [\d,]+ bytes"),
        (_without_vae, "vae/ holds no weights"),
        (_nan, "no numbers .*conv_in.bias"),
    ],
)
def test_a_folder_is_examined_before_anything_is_made(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(mini.path(), tmp_path / "base")
    damage(folder)
    with pytest.raises(NotACheckpoint, match=message):
        resolve(folder).check()


@pytest.mark.parametrize("part", ["*", "text_encoder"])
def test_a_folder_with_half_precision_files_alone_is_loaded(part: str, tmp_path: Path) -> None:
    folder = shutil.copytree(mini.path(), tmp_path / "base")
    for file in list(folder.glob(f"{part}/*.safetensors")):
        weights = {name: weight.half() for name, weight in load_file(file).items()}
        save_file(weights, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        file.unlink()
    model = resolve(folder)
    model.check()
    assert model.load().unet.dtype == torch.float32


def test_diffusers_usual_line_for_another_scheduler_is_right_on_what_leaves_here(tmp_path: Path) -> None:
    folder = export_model("mini", tmp_path / "out", format="diffusers")
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    assert pipeline.scheduler.config.clip_sample is False
    tokens = {"vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"}
    assert tokens <= {file.name for file in (folder / "tokenizer").iterdir()}
    weights = load_file(folder / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in weights)


def test_every_scheduler_that_diffusers_calls_compatible_draws_a_picture(tmp_path: Path) -> None:
    folder = export_model("mini", tmp_path / "out", format="diffusers")
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    compatible, config, drawn = pipeline.scheduler.compatibles, pipeline.scheduler.config, 0
    for kind in set(compatible) - {EDMEulerScheduler}:  # which is for models of another formulation
        try:
            pipeline.scheduler = kind.from_config(config)
        except ImportError:  # torchsde, for one of them
            continue
        generator = torch.Generator().manual_seed(1)
        options = {"num_inference_steps": 10, "guidance_scale": 2.0, "generator": generator}
        pixels = pipeline("a photo of a woman", **options, output_type="np").images[0]
        # mean difference of neighbours: pictures of mini's have 0.011 to 0.017, decoded noise has 0.067
        assert np.abs(np.diff(pixels, axis=1)).mean() < 0.03, kind.__name__
        drawn += 1
    assert drawn >= 12
