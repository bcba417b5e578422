"""Other tools' formats: what is written loads again; what is no checkpoint is called by its name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffusers import StableDiffusionPipeline  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from sdlab import mini  # noqa: E402
from sdlab.formats import NotACheckpoint, kohya_weights, original_weights, read_checkpoint  # noqa: E402
from sdlab.formats.original import unet_name, vae_name  # noqa: E402


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(mini.path(), safety_checker=None)


@pytest.fixture(scope="module")
def single_file(pipeline: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini model as one file under the original's names."""
    path = tmp_path_factory.mktemp("single") / "mini.safetensors"
    save_file(original_weights(pipeline), path)
    return path


def test_a_single_file_loads_in_diffusers_as_the_same_weights(
    pipeline: StableDiffusionPipeline, single_file: Path
) -> None:
    again = StableDiffusionPipeline.from_single_file(
        str(single_file), config=str(mini.path()), local_files_only=True
    )
    for part in ("unet", "vae", "text_encoder"):
        before, after = getattr(pipeline, part).state_dict(), getattr(again, part).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items()), part


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


def test_a_kohya_file_has_down_up_and_alpha_for_each_module() -> None:
    down, up = torch.randn(4, 96), torch.randn(64, 4)
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
    named = kohya_weights(
        {
            f"unet.{path}.lora_A.weight": down,
            f"unet.{path}.lora_B.weight": up,
            "text_encoder.encoder.layers.0.self_attn.q_proj.lora_A.weight": down,
        },
        {"unet": 2.0, "text_encoder": 4.0},
    )
    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert set(named) == {
        f"{module}.lora_down.weight",
        f"{module}.lora_up.weight",
        f"{module}.alpha",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha",
    }
    assert named[f"{module}.alpha"].item() == 2 and torch.equal(named[f"{module}.lora_up.weight"], up)
    with pytest.raises(ValueError, match=r"'unet\.conv_in\.weight' is no weight of a LoRA"):
        kohya_weights({"unet.conv_in.weight": down}, {"unet": 1.0})


def test_a_checkpoint_is_read_from_both_formats(single_file: Path, tmp_path: Path) -> None:
    weights = read_checkpoint(single_file)
    torch.save({"state_dict": weights, "global_step": 7}, tmp_path / "model.ckpt")
    assert read_checkpoint(tmp_path / "model.ckpt").keys() == weights.keys()


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_html, "is a web page .* token or a login"),
        (_truncated, r"truncated: [\d,]+ of [\d,]+ bytes are there"),
        (_cut_in_the_header, "its header ends behind the file's end"),
        (_empty, r"is empty \(0 bytes\)"),
        (_lora, "is a LoRA"),
        (_sdxl, "is Stable Diffusion XL"),
        (_sd2, "is Stable Diffusion 2"),
        (_vae, "is a VAE alone"),
    ],
)
def test_what_is_no_checkpoint_is_called_by_its_name(
    make: object, message: str, single_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    make(path, single_file.read_bytes())  # type: ignore[operator]
    with pytest.raises(NotACheckpoint, match=message):
        read_checkpoint(path)


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("trap_was_run"),)  # type: ignore[return-value]


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "callback": _Trap()}, "model.ckpt")
    with pytest.raises(NotACheckpoint, match=r"holds code \(.*pathlib.*\), which was not run"):
        read_checkpoint("model.ckpt")
    assert not Path("trap_was_run").exists()


def test_a_truncated_ckpt_is_broken(single_file: Path, tmp_path: Path) -> None:
    torch.save(read_checkpoint(single_file), tmp_path / "model.ckpt")
    whole = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(whole[: len(whole) // 3])
    assert not zipfile.is_zipfile(tmp_path / "model.ckpt")
    with pytest.raises(NotACheckpoint, match="the archive's end is missing"):
        read_checkpoint(tmp_path / "model.ckpt")
