"""Single-file checkpoints: converted to a folder and back, never run, and called by what they are."""

from __future__ import annotations

import json
import random
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from diffusers.loaders import single_file_utils  # noqa: E402
from safetensors.torch import load, load_file, save_file  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

from sdlab import mini  # noqa: E402
from sdlab.exports import export_model  # noqa: E402
from sdlab.formats import NotACheckpoint, convert  # noqa: E402
from sdlab.formats.checkpoints import CONFIGS, checkpoint_shapes  # noqa: E402
from sdlab.formats.names import original_weights, unet_name, vae_name  # noqa: E402
from sdlab.models import load_pipeline  # noqa: E402


@pytest.fixture(scope="module")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini model as one file under the original's names."""
    return export_model("mini", tmp_path_factory.mktemp("single") / "mini.safetensors")


@pytest.fixture(scope="module")
def converted(single_file: Path) -> Path:
    return convert(single_file, single_file.with_name("converted"), config=mini.path())


def test_a_single_file_converts_back_to_the_same_bits_and_the_same_image(converted: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        before = load_file(next(Path(mini.path(), part).glob("*.safetensors")))
        after = load_file(next(Path(converted, part).glob("*.safetensors")))
        after = {name.removeprefix("text_model."): value for name, value in after.items()}
        before = {name.removeprefix("text_model."): value for name, value in before.items()}
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value.float()) for name, value in before.items()), part
    assert torch.equal(
        image(StableDiffusionPipeline.from_pretrained(converted)), image(load_pipeline("mini"))
    )


def image(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "pt"}
    return pipeline("a photo of a woman", generator=torch.Generator().manual_seed(3), **options).images


def test_a_folder_that_is_there_is_kept(single_file: Path, converted: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in converted.rglob("*"))
    with pytest.raises(FileExistsError, match="converted is there already, and nothing is overwritten"):
        convert(single_file, converted, config=mini.path())
    assert before == sorted(path.stat().st_mtime_ns for path in converted.rglob("*"))


def test_a_ckpt_of_lightning_converts_without_lightning(
    single_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # v1-5-pruned.ckpt and its kind name the class of a callback beside the weights
    name = "pytorch_lightning.callbacks.model_checkpoint"
    lightning = types.ModuleType(name)
    lightning.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})  # type: ignore[attr-defined]
    with monkeypatch.context() as installed:
        for package in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
            installed.setitem(sys.modules, package, lightning)
        callbacks = {lightning.ModelCheckpoint: {"best": 0.1}}
        torch.save({"state_dict": load_file(single_file), "callbacks": callbacks}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", tmp_path / "out", config=mini.path())
    assert torch.equal(
        image(StableDiffusionPipeline.from_pretrained(tmp_path / "out")), image(load_pipeline("mini"))
    )


def stable_diffusion_1_5() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's parts in their true shapes, without memory for the weights."""

    def settings(part: str) -> dict[str, object]:
        return dict(json.loads((CONFIGS / part / "config.json").read_text()))

    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel.from_config(settings("unet")),
            "vae": AutoencoderKL.from_config(settings("vae")),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**settings("text_encoder"))),
        }
    others = ["tokenizer", "scheduler", "safety_checker", "feature_extractor"]
    return StableDiffusionPipeline(**parts, **dict.fromkeys(others), requires_safety_checker=False)


def test_diffusers_reads_all_names_of_stable_diffusion_1_5_back() -> None:
    pipeline = stable_diffusion_1_5()
    named = original_weights(pipeline)
    unet = single_file_utils.convert_ldm_unet_checkpoint(dict(named), dict(pipeline.unet.config))
    vae = single_file_utils.convert_ldm_vae_checkpoint(dict(named), dict(pipeline.vae.config))
    for part, back in (("unet", unet), ("vae", vae)):
        own = getattr(pipeline, part).state_dict()
        assert {name: value.shape for name, value in back.items()} == {n: v.shape for n, v in own.items()}
    # Parameters of the published parts: UNet 859,520,964, VAE 83,653,863, text encoder 123,060,480.
    sizes = {"model.": 859_520_964, "first_stage_model.": 83_653_863, "cond_stage_model.": 123_060_480}
    for start, size in sizes.items():
        assert sum(value.numel() for name, value in named.items() if name.startswith(start)) == size


# Names in Stable Diffusion 1.5's published v1-5-pruned.safetensors.
@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("down_blocks.0.resnets.1.conv1.weight", "input_blocks.2.0.in_layers.2.weight"),
        ("down_blocks.1.attentions.0.proj_in.bias", "input_blocks.4.1.proj_in.bias"),
        ("down_blocks.2.downsamplers.0.conv.weight", "input_blocks.9.0.op.weight"),
        ("mid_block.resnets.1.time_emb_proj.bias", "middle_block.2.emb_layers.1.bias"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("up_blocks.2.upsamplers.0.conv.weight", "output_blocks.8.2.conv.weight"),
        ("up_blocks.3.resnets.2.conv_shortcut.weight", "output_blocks.11.0.skip_connection.weight"),
        ("conv_norm_out.bias", "out.0.bias"),
    ],
)
def test_names_of_the_unet_are_those_of_stable_diffusion_1_5(name: str, original: str) -> None:
    assert unet_name(name, layers_per_block=2, with_attention={1, 2, 3}) == original


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("encoder.down_blocks.1.resnets.0.conv_shortcut.bias", "encoder.down.1.block.0.nin_shortcut.bias"),
        ("encoder.down_blocks.0.downsamplers.0.conv.weight", "encoder.down.0.downsample.conv.weight"),
        ("decoder.up_blocks.0.resnets.2.norm1.weight", "decoder.up.3.block.2.norm1.weight"),
        ("decoder.mid_block.attentions.0.to_out.0.weight", "decoder.mid.attn_1.proj_out.weight"),
        ("decoder.mid_block.attentions.0.group_norm.weight", "decoder.mid.attn_1.norm.weight"),
        ("decoder.mid_block.resnets.0.conv2.weight", "decoder.mid.block_1.conv2.weight"),
        ("post_quant_conv.weight", "post_quant_conv.weight"),
    ],
)
def test_names_of_the_vae_are_those_of_stable_diffusion_1_5(name: str, original: str) -> None:
    assert vae_name(name, blocks=4) == original


def _html(path: Path, whole: bytes) -> None:
    path.write_bytes(b"\n<!DOCTYPE html><html><body>Please log in</body></html>")


def _truncated(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[: len(whole) // 2])


def _cut_in_the_header(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[:1000])


def _empty(path: Path, whole: bytes) -> None:
    path.write_bytes(b"")


def _lora(path: Path, whole: bytes) -> None:
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, path)


def _sdxl(path: Path, whole: bytes) -> None:
    save_file({"conditioner.embedders.0.x": torch.zeros(2), "model.diffusion_model.x": torch.zeros(2)}, path)


def _sd2(path: Path, whole: bytes) -> None:
    prefix = "model.diffusion_model.input_blocks"
    context = f"{prefix}.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({f"{prefix}.0.0.weight": torch.zeros(8, 4, 3, 3), context: torch.zeros(8, 1024)}, path)


def _vae(path: Path, whole: bytes) -> None:
    save_file({"first_stage_model.encoder.conv_in.weight": torch.zeros(2)}, path)


def _flux(path: Path, whole: bytes) -> None:
    save_file({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.zeros(2)}, path)


def _controlnet(path: Path, whole: bytes) -> None:
    save_file({"control_model.input_blocks.0.0.weight": torch.zeros(2)}, path)


def _embedding(path: Path, whole: bytes) -> None:
    save_file({"emb_params": torch.zeros(2, 768)}, path)


def _motion_module(path: Path, whole: bytes) -> None:
    save_file({"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": torch.zeros(2)}, path)


def _adapter(path: Path, whole: bytes) -> None:
    save_file({"image_proj.norm.weight": torch.zeros(2), "ip_adapter.1.to_k_ip.weight": torch.zeros(2)}, path)


def _text_encoder(path: Path, whole: bytes) -> None:
    save_file({"text_model.embeddings.token_embedding.weight": torch.zeros(2)}, path)


def _pointer_of_git(path: Path, whole: bytes) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n")


def _gguf(path: Path, whole: bytes) -> None:
    path.write_bytes(b"GGUF\3\0\0\0" + bytes(100))


def _misnamed(path: Path, whole: bytes) -> None:
    torch.save({"state_dict": {}}, path)


def _something_else(path: Path, whole: bytes) -> None:
    save_file({"layer.weight": torch.zeros(2)}, path)


def _without(*parts: str) -> Callable[[Path, bytes], None]:
    def make(path: Path, whole: bytes) -> None:
        weights = load(whole)
        save_file({name: w for name, w in weights.items() if not any(part in name for part in parts)}, path)

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_html, "is a web page .* not of the page"),
        (_truncated, r"truncated: [\d,]+ of [\d,]+ bytes are there"),
        (_cut_in_the_header, "its header ends behind the file's end"),
        (_empty, r"is empty \(0 bytes\)"),
        (_lora, "is a LoRA"),
        (_sdxl, "is Stable Diffusion XL"),
        (_sd2, "is Stable Diffusion 2"),
        (_vae, "is a VAE alone"),
        (_flux, "is a Flux or Stable Diffusion 3 model"),
        (_controlnet, "is a ControlNet"),
        (_embedding, "is a textual inversion"),
        (_motion_module, "is an AnimateDiff motion module"),
        (_adapter, "is an IP-Adapter"),
        (_text_encoder, "is a text encoder alone"),
        (_pointer_of_git, "is a pointer of Git LFS"),
        (_gguf, "is a GGUF"),
        (_misnamed, "is a pickle, not safetensors. Rename it to model.ckpt"),
        (_something_else, r"no model that is known here \(its first weights: layer.weight\)"),
        (_without("cond_stage_model", "first_stage_model"), "is a UNet without a text encoder"),
        (_without("first_stage_model"), "is a model without a VAE"),
        (_without("time_embed.0"), "lacks some of the model's weights"),
        (_without("text_model.encoder.layers.1"), "lacks some of the model's weights"),
    ],
)
def test_what_is_no_checkpoint_is_called_by_its_name(
    make: Callable[[Path, bytes], None], message: str, single_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    make(path, single_file.read_bytes())
    with pytest.raises(NotACheckpoint, match=message):
        convert(path, tmp_path / "out", config=mini.path())
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_size_than_configured_is_refused(single_file: Path, tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match="text width are 64, 8, 128, not 320, 4, 768"):
        convert(single_file, tmp_path / "out")


def test_without_a_network_a_folder_with_the_tokenizer_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    blocks = "model.diffusion_model.input_blocks"
    shapes = {
        f"{blocks}.0.0.weight": (320, 4, 3, 3),
        f"{blocks}.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        "cond_stage_model.x": (1,),
        "first_stage_model.x": (1,),
    }
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    with pytest.raises(OSError, match=r"CLIP's tokenizer isn't on this machine.*--tokenizer FOLDER"):
        convert(tmp_path / "model.safetensors", tmp_path / "out")
    with pytest.raises(OSError, match=r"cache holds no tokenizer: vocab\.json and merges\.txt"):
        convert(tmp_path / "model.safetensors", tmp_path / "out", tokenizer=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("trap_was_run"),)  # type: ignore[return-value]


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_pickle_is_named_and_not_run(
    archive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = {"state_dict": {}, "callback": _Trap()}
    torch.save(value, "model.ckpt", _use_new_zipfile_serialization=archive)
    with pytest.raises(NotACheckpoint, match=r"holds code \(.*(pathlib|getattr).*\), which was not run"):
        convert("model.ckpt", "out", config=mini.path())
    assert not Path("trap_was_run").exists()


def test_an_archive_of_other_files_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr("model/readme.txt", "weights")
    with pytest.raises(NotACheckpoint, match=r"is an archive of files\. Unpack it"):
        convert(tmp_path / "model.ckpt", tmp_path / "out")


def test_a_truncated_ckpt_is_broken(single_file: Path, tmp_path: Path) -> None:
    torch.save(load_file(single_file), tmp_path / "model.ckpt")
    whole = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(whole[: len(whole) // 3])
    assert not zipfile.is_zipfile(tmp_path / "model.ckpt")
    with pytest.raises(NotACheckpoint, match="the archive's end is missing"):
        checkpoint_shapes(tmp_path / "model.ckpt")


@pytest.mark.parametrize("kind", ["safetensors", "archive.ckpt", "pickle.ckpt"])
def test_damaged_bytes_are_a_finding_and_never_a_crash(kind: str, tmp_path: Path) -> None:
    weights = {f"layer.{number}.weight": torch.ones(3, 4) for number in range(20)}
    path = tmp_path / f"model.{kind}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=kind == "archive.ckpt")
    whole, found = path.read_bytes(), 0
    for seed in range(150):
        rng = random.Random(seed)
        damaged = bytearray(whole[: rng.randrange(len(whole))] if seed % 3 == 0 else whole)
        for _ in range(8):
            damaged[rng.randrange(min(1500, len(damaged)))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            checkpoint_shapes(path)
        except NotACheckpoint:
            found += 1
    assert found > 50  # all of the truncated third
