"""What is exported is read by others as the same model, and nothing is overwritten."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffusers import StableDiffusionPipeline  # noqa: E402
from diffusers.utils import convert_state_dict_to_diffusers  # noqa: E402
from peft import LoraConfig  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from sdlab import mini  # noqa: E402
from sdlab.cli import main  # noqa: E402
from sdlab.experiment import DreamBooth, Experiment, LoRA  # noqa: E402
from sdlab.exports import export_lora, export_model  # noqa: E402
from sdlab.formats import convert  # noqa: E402
from sdlab.formats.names import kohya_weights, lean_settings  # noqa: E402
from sdlab.models import fuse, load_pipeline  # noqa: E402
from sdlab.training import train  # noqa: E402
from sdlab.training.lora import export, named_weights  # noqa: E402
from tests.test_formats import image, stable_diffusion_1_5  # noqa: E402

Short = Callable[..., DreamBooth | LoRA]

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TRANSFORMER = [*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]  # all that kohya's LoRA has
RESNETS = ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"]
TEXT_ENCODER = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


@pytest.fixture(scope="module")
def trained(short: Short, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A LoRA of four steps with alpha three times its rank, text encoder included."""
    root = tmp_path_factory.mktemp("trained")
    chosen = short("lora", rank=4, lora_alpha=12.0, train_text_encoder=True, learning_rate=1e-2)
    return train("lora_a12", chosen, root=root, progress=False)


@pytest.fixture(scope="module")
def everything(short: Short, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A LoRA in every layer, with another rank and alpha in some of them, saved as a training saves it."""
    patterns = {"rank_pattern": {"conv1": 2}, "alpha_pattern": {"conv1": 5.0}}
    return made(short, tmp_path_factory.mktemp("everything"), [*TRANSFORMER, *RESNETS], **patterns)


@pytest.fixture(scope="module")
def dora(short: Short, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return made(short, tmp_path_factory.mktemp("dora"), [*TRANSFORMER, *RESNETS], use_dora=True)


def made(short: Short, root: Path, targets: list[str], **settings: object) -> Experiment:
    """A finished experiment with random adapters."""
    pipeline = load_pipeline("mini")
    torch.manual_seed(0)
    for part, names in ((pipeline.unet, targets), (pipeline.text_encoder, TEXT_ENCODER)):
        chosen = settings if part is pipeline.unet else {k: v for k, v in settings.items() if k == "use_dora"}
        config = LoraConfig(r=4, lora_alpha=6, init_lora_weights=False, target_modules=names, **chosen)
        part.add_adapter(config)
        for name, weight in part.named_parameters():
            if "lora_B" in name:
                weight.data *= 0.2
            if "magnitude" in name:
                weight.data *= 1 + 0.1 * torch.rand_like(weight)
    experiment = Experiment("every.layer", root)
    experiment.begin(short("lora", rank=4, lora_alpha=6.0), {})
    export(pipeline, experiment)
    experiment.update(status="finished", base="mini")
    return experiment


def by_hand(experiment: Experiment, scale: float = 1.0) -> StableDiffusionPipeline:
    """The base with W + scale · alpha / rank · B A, computed here from the file alone."""
    pipeline = load_pipeline("mini")
    weights = load_file(experiment.lora_file)
    for name, down in weights.items():
        if "lora_A" in name:
            part, path = name.removesuffix(".lora_A.weight").split(".", 1)
            up = weights[name.replace("lora_A", "lora_B")]
            module = getattr(pipeline, part).get_submodule(path.removeprefix("text_model."))
            alpha = 5.0 if path.endswith("conv1") else experiment.hyperparameters.lora_alpha
            addition = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
            module.weight.data += scale * alpha / len(down) * addition
    return pipeline


def load_plain(file: Path) -> StableDiffusionPipeline:
    """The LoRA on mini, by diffusers alone."""
    pipeline = StableDiffusionPipeline.from_pretrained(mini.path())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
    return pipeline


def differ(one: StableDiffusionPipeline, other: StableDiffusionPipeline) -> float:
    """The largest difference of two pipelines' images, in 0 to 1."""
    return float((image(one) - image(other)).abs().max())


ROUNDING = 1e-3  # of float32 after two steps; a quarter of one of 256 grey levels


@pytest.mark.parametrize("name", ["trained", "everything"])
def test_a_lora_that_was_saved_loads_in_plain_diffusers_with_its_alpha(
    name: str, request: pytest.FixtureRequest
) -> None:
    experiment = request.getfixturevalue(name)
    assert differ(by_hand(experiment), load_pipeline("mini")) > 0.05  # it does something
    assert differ(load_plain(experiment.lora_file), by_hand(experiment)) < ROUNDING


def test_a_dora_that_was_saved_loads_in_plain_diffusers(dora: Experiment) -> None:
    formula = by_kohya(dora)
    assert differ(formula, load_pipeline("mini")) > 0.05
    assert differ(load_plain(dora.lora_file), formula) < ROUNDING


def by_kohya(experiment: Experiment) -> StableDiffusionPipeline:
    """The base with kohya's weights in LyCORIS' formula for DoRA, the norm taken for each output."""
    pipeline = load_pipeline("mini")
    with pytest.warns(UserWarning, match="is a DoRA, which programs read differently"):
        weights = load_file(export_lora(experiment.path, experiment.path / "kohya.safetensors"))
    modules = {}
    for part, prefix in ((pipeline.unet, "lora_unet_"), (pipeline.text_encoder, "lora_te_text_model_")):
        modules |= {prefix + name.replace(".", "_"): module for name, module in part.named_modules()}
    for name in {name.split(".")[0] for name in weights}:
        down, up, alpha, magnitude = (
            weights[f"{name}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha", "dora_scale")
        )
        weight = modules[name].weight
        weight.data += alpha / len(down) * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        weight.data *= magnitude / weight.flatten(1).norm(dim=1).reshape(magnitude.shape)
    return pipeline


@pytest.mark.parametrize("name", ["trained", "everything"])
@pytest.mark.parametrize("format", ["kohya", "diffusers"])
def test_an_exported_lora_loads_in_plain_diffusers_as_the_same(
    format: str, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    experiment = request.getfixturevalue(name)
    file = export_lora(experiment.path, tmp_path / "lora.safetensors", format=format)
    assert differ(load_plain(file), by_hand(experiment)) < ROUNDING


def test_half_precision_halves_the_file(trained: Experiment, tmp_path: Path) -> None:
    file = export_lora(trained.path, tmp_path / "half.safetensors", half=True)
    assert {weight.dtype for weight in load_file(file).values()} == {torch.float16}
    model = load_file(export_model("mini", tmp_path / "model.safetensors", half=True))
    assert {weight.dtype for weight in model.values()} == {torch.float16}


def test_kohyas_file_has_exactly_the_modules_and_shapes_of_stable_diffusion_1_5() -> None:
    pipeline = stable_diffusion_1_5()
    pipeline.unet.add_adapter(LoraConfig(r=8, target_modules=TRANSFORMER))
    pipeline.text_encoder.add_adapter(LoraConfig(r=8, target_modules=TEXT_ENCODER))
    weights = {
        f"{name}.{key}": weight
        for name in ("unet", "text_encoder")
        for key, weight in named_weights(getattr(pipeline, name)).items()
    }
    configs = {"unet": {"lora_alpha": 16.0}, "text_encoder": {"lora_alpha": 4.0}}
    found = kohya_weights(weights, configs)
    assert {name: tuple(weight.shape) for name, weight in found.items()} == kohyas_shapes(rank=8)
    alphas = {name: float(weight) for name, weight in found.items() if name.endswith(".alpha")}
    assert {alpha for name, alpha in alphas.items() if name.startswith("lora_unet_")} == {16.0}
    assert {alpha for name, alpha in alphas.items() if name.startswith("lora_te_")} == {4.0}


def kohyas_shapes(rank: int) -> dict[str, tuple[int, ...]]:
    """What kohya's networks/lora.py makes for Stable Diffusion 1.5: the Linear and 1×1 layers of
    Transformer2DModel, CLIPAttention and CLIPMLP; its log says 192 in the UNet and 72 in the text encoder."""
    places = [f"down_blocks_{b}_attentions_{a}" for b in (0, 1, 2) for a in (0, 1)]
    places.append("mid_block_attentions_0")
    places += [f"up_blocks_{b}_attentions_{a}" for b in (1, 2, 3) for a in (0, 1, 2)]
    widths = [320] * 2 + [640] * 2 + [1280] * 2 + [1280] + [1280] * 3 + [640] * 3 + [320] * 3
    layers: dict[str, tuple[int, int]] = {}  # to (in, out)
    for place, width in zip(places, widths, strict=True):
        block = f"lora_unet_{place}_transformer_blocks_0"
        for name in ("attn1", "attn2"):
            read = 768 if name == "attn2" else width
            layers |= {f"{block}_{name}_{to}": (width, width) for to in ("to_q", "to_out_0")}
            layers |= {f"{block}_{name}_{to}": (read, width) for to in ("to_k", "to_v")}
        layers[f"{block}_ff_net_0_proj"] = (width, 8 * width)
        layers[f"{block}_ff_net_2"] = (4 * width, width)
        layers |= {f"lora_unet_{place}_proj_{end}": (width, width) for end in ("in", "out")}
    assert len(layers) == 192
    for number in range(12):
        layer = f"lora_te_text_model_encoder_layers_{number}"
        layers |= {f"{layer}_self_attn_{to}_proj": (768, 768) for to in ("q", "k", "v", "out")}
        layers |= {f"{layer}_mlp_fc1": (768, 3072), f"{layer}_mlp_fc2": (3072, 768)}
    assert len(layers) == 192 + 72
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (into, out) in layers.items():
        kernel = (1, 1) if re.search(r"_proj_(in|out)$", name) and "unet" in name else ()
        shapes[f"{name}.lora_down.weight"] = (rank, into, *kernel)
        shapes[f"{name}.lora_up.weight"] = (out, rank, *kernel)
        shapes[f"{name}.alpha"] = ()
    return shapes


def test_the_same_adapters_give_the_same_file() -> None:
    # peft keeps the layers in a set, whose order differs from process to process
    for names in (["to_q", "to_k", "conv1"], ["conv1", "to_k", "to_q"]):
        assert lean_settings({"target_modules": names})["target_modules"] == ["conv1", "to_k", "to_q"]
    assert lean_settings({"target_modules": ".*to_q"})["target_modules"] == ".*to_q"


def test_the_names_of_older_files_are_known_too(trained: Experiment) -> None:
    weights = load_file(trained.lora_file)
    older = convert_state_dict_to_diffusers(dict(weights))
    assert not older.keys() & weights.keys()  # `lora.down`, and `lora_linear_layer.down` in the text encoder
    assert kohya_weights(older, {}).keys() == kohya_weights(weights, {}).keys()
    with pytest.raises(ValueError, match=r"'unet\.conv_in\.weight' is no weight of a LoRA"):
        kohya_weights({"unet.conv_in.weight": torch.zeros(1)}, {})


def test_convolutions_have_kohyas_names_and_kernels() -> None:
    unet = stable_diffusion_1_5().unet
    unet.add_adapter(LoraConfig(r=8, target_modules=[*TRANSFORMER, *RESNETS]))
    found = kohya_weights({f"unet.{name}": weight for name, weight in named_weights(unet).items()}, {})
    modules = {name.split(".")[0] for name in found}
    assert len(modules) == 278  # what kohya's log says with conv_dim, and LyCORIS' with conv
    shapes = {name: tuple(weight.shape) for name, weight in found.items()}
    block = "lora_unet_down_blocks_1_resnets_0"
    assert shapes[f"{block}_conv1.lora_down.weight"] == (8, 320, 3, 3)
    assert shapes[f"{block}_conv1.lora_up.weight"] == (640, 8, 1, 1)
    assert shapes[f"{block}_conv_shortcut.lora_down.weight"] == (8, 320, 1, 1)
    assert shapes[f"{block}_time_emb_proj.lora_down.weight"] == (8, 1280)
    assert shapes["lora_unet_down_blocks_0_downsamplers_0_conv.lora_down.weight"] == (8, 320, 3, 3)
    assert shapes["lora_unet_up_blocks_2_upsamplers_0_conv.lora_down.weight"] == (8, 640, 3, 3)


def test_an_exported_lora_says_what_it_is_and_not_where_it_was(trained: Experiment, tmp_path: Path) -> None:
    for format in ("kohya", "diffusers"):
        file = export_lora(trained.path, tmp_path / f"{format}.safetensors", format=format)
        with safe_open(file, "pt") as opened:
            said = opened.metadata()
        assert said["modelspec.title"] == "lora_a12"
        assert said["modelspec.trigger_phrase"] == "a photo of sks woman face"
        assert str(Path(mini.path()).parent) not in json.dumps(said) + file.with_suffix(".md").read_text()
        if format == "kohya":
            assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("4", "12.0")
            assert (said["ss_output_name"], said["ss_network_module"]) == ("lora_a12", "networks.lora")


@pytest.mark.parametrize(("base", "version"), [("sd15", "sd_v1"), ("mini", "sdlab_mini")])
def test_a_lora_of_stable_diffusion_1_5_says_so(
    base: str, version: str, trained: Experiment, tmp_path: Path
) -> None:
    experiment = Experiment("other", tmp_path)
    experiment.update(**trained.record | {"base": base})
    experiment.lora_file.write_bytes(trained.lora_file.read_bytes())
    with safe_open(export_lora(experiment.path, tmp_path / "lora.safetensors"), "pt") as opened:
        said = opened.metadata()
    assert said["ss_base_model_version"] == version
    architecture = {"sd15": "stable-diffusion-v1/lora", "mini": "sdlab-mini/lora"}
    assert said["modelspec.architecture"] == architecture[base]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_merged_lora_gives_the_same_image(scale: float, everything: Experiment, tmp_path: Path) -> None:
    folder = export_model(f"{everything.path}@{scale}", tmp_path / "merged", format="diffusers")
    merged = StableDiffusionPipeline.from_pretrained(folder)
    assert differ(merged, by_hand(everything, scale)) < ROUNDING
    said = (folder / "README.md").read_text(encoding="utf-8")
    assert "a LoRA, merged into its base" in said and ("at scale 0.5" in said) is (scale == 0.5)


def test_a_merged_dora_gives_the_same_image(dora: Experiment, tmp_path: Path) -> None:
    folder = export_model(dora.path, tmp_path / "merged", format="diffusers")
    assert differ(StableDiffusionPipeline.from_pretrained(folder), load_plain(dora.lora_file)) < ROUNDING


def test_a_dreambooth_goes_through_a_single_file_unchanged(short: Short, tmp_path: Path) -> None:
    chosen = short("dreambooth", max_train_steps=2, with_prior_preservation=False)
    experiment = train("exp1.1", chosen, root=tmp_path, progress=False)
    file = export_model("exp1.1", tmp_path / "exp1.1.safetensors", root=tmp_path)
    assert 'from_single_file("exp1.1.safetensors"' in file.with_suffix(".md").read_text(encoding="utf-8")
    back = convert(file, tmp_path / "back", config=mini.path())
    for part in ("unet", "text_encoder", "vae"):
        before = load_file(next((experiment.model_folder / part).glob("*.safetensors")))
        after = load_file(next((back / part).glob("*.safetensors")))
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items()), part
    with pytest.raises(ValueError, match=r"a dreambooth experiment, not a LoRA.*export model exp1\.1"):
        export_lora("exp1.1", tmp_path / "lora.safetensors", root=tmp_path)
    with pytest.raises(
        ValueError, match=r"Only a LoRA can be added at a scale, and 'exp1\.1' is a DreamBooth"
    ):
        export_model("exp1.1@0.5", tmp_path / "other", format="diffusers", root=tmp_path)


def test_nothing_of_the_users_is_overwritten(trained: Experiment, tmp_path: Path) -> None:
    for name in ("lora.safetensors", "lora.md"):
        (tmp_path / "lora.md").unlink(missing_ok=True)
        (tmp_path / name).write_text("mine")
        with pytest.raises(FileExistsError, match=f"{name} is there already, and nothing is overwritten"):
            export_lora(trained.path, tmp_path / "lora.safetensors")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / "lora.safetensors").unlink(missing_ok=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="folder is there already"):
        export_model("mini", tmp_path / "folder", format="diffusers")


@pytest.mark.parametrize(
    ("function", "out", "format", "message"),
    [
        (export_lora, "lora.ckpt", "kohya", r"out must end with \.safetensors, got 'lora\.ckpt'"),
        (export_lora, "lora.safetensors", "koyha", "Unknown format: 'koyha'. Did you mean 'kohya'"),
        (export_model, "model", "single-file", r"out must end with \.safetensors, got 'model'"),
        (export_model, "model.safetensors", "diffusers", "out must be a folder with format diffusers"),
    ],
)
def test_a_wrong_ending_or_format_is_said(
    function: Callable[..., Path], out: str, format: str, message: str, trained: Experiment, workplace: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        function(trained.path.resolve(), out, format=format)
    assert not list(workplace.iterdir())


def test_the_commands_write_beside_the_experiments(
    trained: Experiment, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(trained.root)]
    main(["export", "lora", trained.name, *root])
    main(["export", "model", f"{trained.name}@0.5", "--format", "diffusers", "--out", "merged", *root])
    said = capsys.readouterr().out
    assert (
        "lora_a12.safetensors, and its model card: lora_a12.md" in said and "merged: the whole model" in said
    )
    assert sorted(path.name for path in workplace.iterdir()) == [
        "lora_a12.md",
        "lora_a12.safetensors",
        "merged",
    ]


def test_an_unfinished_experiment_is_not_exported(short: Short, tmp_path: Path) -> None:
    Experiment("begun", tmp_path).begin(short("lora"), {})
    with pytest.raises(ValueError, match="'begun' is stopped, and only a finished one can be exported"):
        export_lora("begun", tmp_path / "lora.safetensors", root=tmp_path)
    with pytest.raises(ValueError, match="'begun' is stopped"):
        export_model("begun", tmp_path / "model.safetensors", root=tmp_path)


def test_fusing_leaves_no_adapter(trained: Experiment) -> None:
    pipeline = fuse(load_pipeline(f"{trained.path}@0.5"))
    assert not pipeline.get_active_adapters()
    assert differ(pipeline, by_hand(trained, 0.5)) < ROUNDING
