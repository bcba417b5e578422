"""The parameters beyond the homework's: each does what it says, alone and over a break."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageChops
from safetensors.torch import load_file

from sdlab.config import Hyperparameters
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.models import load_pipeline, resolve
from sdlab.sampling import image_files, read_record
from sdlab.training import preflight, train
from sdlab.training.checkpoint import resume
from sdlab.training.checkpoint import save as save_checkpoint
from sdlab.training.loop import train_step
from sdlab.training.memory import NotEnoughMemory
from sdlab.training.optimizer import make_optimizer
from sdlab.training.setup import Training, set_up
from sdlab.training.validation import split, steps_between, validation_losses

Short = Callable[..., DreamBooth | LoRA]


def ready(chosen: DreamBooth | LoRA, name: str = "exp1") -> Training:
    """A training before its first step."""
    files, held_out = split(image_files(chosen.instance_data_dir), chosen)
    return set_up(Experiment(name), chosen, [files], lambda text: None, held_out)


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"use_8bit_adam": True, "use_ema": True}),
    ("lora", {"optimizer": "prodigy", "learning_rate": 1.0, "lora_dropout": 0.5}),
    ("lora", {"optimizer": "adafactor", "use_dora": True, "lora_targets": "attention+ff+conv"}),
    ("lora", {"text_encoder_steps": 1, "text_encoder_lr": 1e-4, "noise_offset": 0.1, "snr_gamma": 5.0}),
    (
        "lora",
        {"text_encoder_steps": 2, "cache_latents": False, "lr_scheduler": "polynomial", "lr_power": 2.0},
    ),
    ("dreambooth", {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}),
]


@pytest.mark.parametrize(
    ("method", "options"), OPTIONS, ids=lambda value: "+".join(value) if isinstance(value, dict) else value
)
def test_a_break_changes_nothing(method: str, options: dict[str, Any], short: Short, workplace: Path) -> None:
    chosen = short(method, with_prior_preservation=False, **options)
    whole = ready(chosen)
    losses = [train_step([whole])[0] for _ in range(4)]
    assert all(torch.isfinite(loss).all() for loss in losses)

    before = ready(chosen)
    for _ in range(2):
        train_step([before])
    Experiment("exp1").path.mkdir(parents=True)
    save_checkpoint(before)
    after = ready(chosen)
    assert resume(after) == 2
    for _ in range(2, 4):
        train_step([after])
    for name, weight in whole.weights.items():
        assert torch.equal(after.weights[name], weight), name
    if whole.ema is not None:
        assert all(map(torch.equal, whole.ema.shadow_params, after.ema.shadow_params))  # type: ignore[union-attr]


def test_the_text_encoder_stops_when_it_should(short: Short, workplace: Path) -> None:
    training = ready(short("lora", train_text_encoder=True, text_encoder_steps=2, learning_rate=1e-2))
    text = [weight for name, weight in training.weights.items() if name.startswith("text_encoder.")]
    unet = [weight for name, weight in training.weights.items() if name.startswith("unet.")]
    seen = []
    for _ in range(4):
        train_step([training])
        seen.append([torch.cat([w.detach().flatten() for w in group]) for group in (text, unet)])
    assert not torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[1][0], seen[3][0])
    assert not torch.equal(seen[1][1], seen[3][1])


def test_the_text_encoder_has_a_rate_of_its_own(short: Short, workplace: Path) -> None:
    training = ready(short("lora", train_text_encoder=True, learning_rate=1e-3, text_encoder_lr=1e-5))
    rates = [group["lr"] for group in training.optimizer.param_groups]
    sizes = [len(group["params"]) for group in training.optimizer.param_groups]
    assert rates == [1e-3, 1e-5]
    assert sizes[1] == sum(name.startswith("text_encoder.") for name in training.weights)


def test_latents_encoded_in_each_step_are_those_of_the_cache(short: Short, workplace: Path) -> None:
    cached, fresh = (ready(short("lora", cache_latents=cache)).model.sources[0] for cache in (True, False))
    one, other = (source.sample([2, 0], torch.Generator("cpu").manual_seed(1)) for source in (cached, fresh))
    assert torch.allclose(one, other, atol=1e-5)
    assert list(Path("cache_dir/latents").glob("*.safetensors"))


def test_a_broken_cache_is_made_anew(short: Short, workplace: Path) -> None:
    expected = ready(short("lora")).model.sources[0].sample([0], torch.Generator().manual_seed(1))
    for file in Path("cache_dir/latents").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    again = ready(short("lora")).model.sources[0].sample([0], torch.Generator().manual_seed(1))
    assert torch.equal(expected, again)


def test_noise_offset_shifts_whole_channels(short: Short, workplace: Path) -> None:
    from sdlab.training.data import draw_batch

    sources = ready(short("lora")).model.sources
    plain = draw_batch(sources, 1, 0, 7, 1000).noise
    shifted = draw_batch(sources, 1, 0, 7, 1000, noise_offset=0.1).noise - plain
    assert shifted.abs().max() > 1e-3
    assert shifted.std(dim=(2, 3)).max() < 1e-6  # the same for all pixels of a channel


def test_held_out_photos_are_measured_on_the_same_noise_in_every_experiment(
    short: Short, workplace: Path, instance_images: Path
) -> None:
    files = image_files(instance_images)
    trained_on, held_out = split(files, short("lora", seed=1))
    assert sorted([*trained_on, *held_out]) == files and len(held_out) == 2
    assert split(files, short("dreambooth", seed=2)) == (trained_on, held_out)
    losses = [
        validation_losses([ready(short("lora", seed=seed, rank=rank))])[0] for seed, rank in ((1, 2), (2, 8))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # B is 0 at first: both are the base model
    with pytest.raises(ValueError, match=r"got 6 of 6\. Take about one in ten, or 0"):
        split(files, short("lora", num_held_out_images=6))


def test_epochs_are_turned_into_steps() -> None:
    chosen = Hyperparameters(validation_epochs=50, train_batch_size=2, gradient_accumulation_steps=2)
    assert steps_between(chosen, 21) == 50 * 6
    assert steps_between(Hyperparameters(validation_steps=7), 21) == 7


def test_validation_images_are_made_with_fixed_seeds(short: Short, workplace: Path) -> None:
    chosen = short("lora", validation_prompt="a photo of sks woman", num_validation_images=1, seed=3,
                   validation_steps=3, learning_rate=1e-2)  # fmt: skip
    experiment = train("exp1", chosen, progress=False)
    names = [f"step_{step:06d}_img1.png" for step in (0, 3, 4)]
    assert [file.name for file in image_files(experiment.validation_folder)] == names
    first, last = (experiment.validation_folder / name for name in (names[0], names[-1]))
    assert read_record(first)["seed"] == read_record(last)["seed"] == 3
    with Image.open(first) as one, Image.open(last) as other:
        assert ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getbbox() is not None
    log = experiment.log()
    assert [row["step"] for row in log if "validation_loss" in row] == [0, 3, 4]
    assert experiment.record["final_validation_loss"] == log[-1]["validation_loss"]
    assert len(experiment.record["held_out"]) == 2


def test_curves_and_images_go_to_a_tracker_that_is_named(short: Short, workplace: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = {"validation_prompt": "a woman", "num_validation_images": 1, "validation_steps": 2}
    experiment = train("exp1", short("lora", report_to="tensorboard", **chosen), progress=False)
    found = EventAccumulator(str(experiment.path / "trackers/tensorboard")).Reload()
    rows = {row["step"]: row for row in experiment.log()}
    for name in ("validation_loss", "learning_rate"):
        seen = {event.step: event.value for event in found.Scalars(name)}
        assert seen == pytest.approx({step: row[name] for step, row in rows.items() if name in row})
    (images,) = found.Tags()["images"]
    assert [event.step for event in found.Images(images)] == [0, 2, 4]


@pytest.mark.parametrize(("targets", "ends"), [
    ("attention", {"to_q", "to_k", "to_v", "0"}),
    ("attention+ff", {"to_q", "to_k", "to_v", "0", "proj", "2"}),
    ("attention+ff+conv", {"to_q", "to_k", "to_v", "0", "proj", "2", "conv1", "conv2", "conv_shortcut",
                           "conv", "time_emb_proj", "proj_in", "proj_out"}),
])  # fmt: skip
def test_targets_are_the_layers_they_name(
    targets: str, ends: set[str], short: Short, workplace: Path
) -> None:
    training = ready(short("lora", lora_targets=targets, train_text_encoder=False))
    found = {name.split(".lora_A")[0].split(".")[-1] for name in training.weights if ".lora_A" in name}
    assert found == ends


@pytest.mark.parametrize("options", [
    {"lora_targets": "attention", "train_text_encoder": True},
    {"lora_targets": "attention+ff", "train_text_encoder": True},
    {"lora_targets": "attention+ff+conv", "use_dora": True, "train_text_encoder": True},
])  # fmt: skip
def test_every_trained_weight_is_loaded_by_plain_diffusers(
    options: dict[str, Any], short: Short, workplace: Path
) -> None:
    chosen = short("lora", lora_alpha=2.0, learning_rate=1e-2, max_train_steps=2, **options)
    experiment = train("exp1", chosen, progress=False)
    trained = load_file(experiment.checkpoints_folder / "step_000002/weights.safetensors")
    plain = StableDiffusionPipeline.from_pretrained(resolve("mini").source)
    untouched = prediction(plain)
    plain.load_lora_weights(experiment.path)
    assert not torch.allclose(prediction(plain), untouched, atol=1e-3)
    for name, weight in trained.items():
        part, _, inner = name.partition(".")
        loaded = getattr(plain, part).get_parameter(inner.replace(".default", ".default_0"))
        assert torch.equal(loaded, weight), name


def prediction(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    latents = torch.linspace(-1, 1, pipeline.unet.config.in_channels * 64).view(1, -1, 8, 8)
    with torch.no_grad():
        embeddings = pipeline.encode_prompt("a photo of sks woman", "cpu", 1, False)[0]
        return pipeline.unet(latents, 500, embeddings).sample


def test_the_running_mean_is_what_is_saved(short: Short, workplace: Path) -> None:
    chosen = {"learning_rate": 1e-2, "train_text_encoder": False, "checkpointing_steps": 4}
    last = train("last", short("lora", **chosen), progress=False)
    mean = train("mean", short("lora", use_ema=True, ema_decay=0.9, **chosen), progress=False)
    files = [
        (one.checkpoints_folder / "step_000004/weights.safetensors").read_bytes() for one in (last, mean)
    ]
    assert files[0] == files[1]  # the training is the same
    assert last.lora_file.read_bytes() != mean.lora_file.read_bytes()


def test_it_says_when_nothing_was_learned_and_when_too_much(short: Short, workplace: Path) -> None:
    little = train("little", short("lora", learning_rate=1e-7), progress=False).record
    assert "expect no likeness; try a learning rate of 1e-6" in little["diagnosis"]
    assert little["prediction_change"] < 1e-3 and max(little["weight_change"].values()) < 1e-3
    much = train("much", short("lora", learning_rate=1.0), progress=False).record
    assert "expect broken images; try a learning rate of 0.1" in much["diagnosis"]
    full = train(
        "full", short("dreambooth", learning_rate=1e-9, with_prior_preservation=False), progress=False
    )
    assert "a learning rate of 1e-9 moved the weights by" in full.record["diagnosis"]
    assert 0 < full.record["weight_change"]["UNet convolutions"] < 1e-5


def test_a_lora_can_be_added_at_a_scale_and_to_another_model(short: Short, workplace: Path) -> None:
    train("lora", short("lora", learning_rate=1e-2, train_text_encoder=False), progress=False)
    train("full", short("dreambooth", learning_rate=1e-4, with_prior_preservation=False), progress=False)
    at = {scale: prediction(load_pipeline(f"lora@{scale}")) for scale in ("0", "0.5", "1")}
    assert torch.allclose(at["0"], prediction(load_pipeline("mini")), atol=1e-5)
    assert torch.equal(at["1"], prediction(load_pipeline("lora")))
    assert not torch.allclose(at["0.5"], at["1"], atol=1e-4)
    both = prediction(load_pipeline("full+lora"))
    assert not torch.allclose(both, at["1"], atol=1e-4)
    assert not torch.allclose(both, prediction(load_pipeline("full")), atol=1e-4)
    assert len({resolve(name).fingerprint for name in ("lora", "lora@0.5", "full+lora", "full")}) == 4
    with pytest.raises(ValueError, match="'full' is a DreamBooth"):
        resolve("full@0.5")
    with pytest.raises(ValueError, match="scale must be a number from 0 on, got 'half'"):
        resolve("lora@half")


def test_a_checkpoint_can_be_named(short: Short, workplace: Path) -> None:
    chosen = short("lora", max_train_steps=6, checkpoints_total_limit=None)
    training = ready(chosen)
    for step in range(4):
        train_step([training])
        if step % 2:
            save_checkpoint(training)
    assert resume(ready(chosen), "checkpoint-2") == 2
    assert resume(ready(chosen), "step_000004") == 4
    with pytest.raises(ValueError, match=r"one of the checkpoints \(step_000002, step_000004\), got '3'"):
        resume(ready(chosen), "3")


def test_preflight_measures_and_leaves_nothing(short: Short, workplace: Path) -> None:
    trial = preflight(short("dreambooth"), progress=False)
    assert 0 < trial.seconds_per_step < 60 and 0.1 < trial.peak_memory_gb < 20
    assert trial.needs.disk_gb > 0.05  # weights and Adam's two states of 6 million weights, several times
    assert "a step" in trial.text() and "4 steps" in trial.text()
    assert not Path("experiments").exists()


def test_too_little_memory_is_said_before_anything_starts(short: Short, workplace: Path) -> None:
    chosen = short("lora", train_batch_size=10_000_000)
    with pytest.raises(NotEnoughMemory, match=r"GB are free\. Set train_batch_size=1 and gradient_acc"):
        train("exp1", chosen, progress=False)
    assert Experiment("exp1").status == "failed"
    assert not Experiment("exp1").log()


_RUNS_OUT = """
import json, resource, sys
import psutil
from sdlab.config import from_dict
from sdlab.training import loop, train
steps = loop.train_steps
def with_little_memory(*arguments):
    now = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**26, resource.RLIM_INFINITY))
    return steps(*arguments)
loop.train_steps = with_little_memory
try:
    train("exp1", from_dict(json.loads(sys.argv[1])), progress=False)
except RuntimeError as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
loop.train_steps = steps
print(train("exp2", from_dict(json.loads(sys.argv[2])), progress=False).status)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_when_memory_runs_out_the_process_goes_on(short: Short, workplace: Path) -> None:
    options = {"with_prior_preservation": False, "max_train_steps": 1}
    chosen = [short("dreambooth", train_batch_size=size, **options) for size in (128, 1)]
    words = [json.dumps(one.as_dict()) for one in chosen]
    run = subprocess.run([sys.executable, "-c", _RUNS_OUT, *words], capture_output=True, text=True)
    said = run.stdout.splitlines()
    assert said[0].startswith("NotEnoughMemory Memory ran out"), run.stdout + run.stderr
    assert "Set train_batch_size=1 and gradient_accumulation_steps=128" in said[0]
    assert said[-1] == "finished", run.stdout + run.stderr


def test_a_rare_word_that_is_never_read_is_refused(workplace: Path, short: Callable[..., Any]) -> None:
    long = "a photo of " + "very " * 80 + "sks woman face"
    with pytest.raises(ValueError, match=r"'sks' stands behind them.*Put it first: 'a photo of sks"):
        train("late", short("lora", instance_prompt=long), progress=False)


def test_a_prompt_without_a_rare_word_can_be_trained_on(workplace: Path, short: Callable[..., Any]) -> None:
    chosen = short("lora", instance_prompt="a photo of woman face", max_train_steps=1)
    assert train("plain", chosen, progress=False).status == "finished"


def test_what_is_cut_from_a_prompt_is_said(workplace: Path, short: Callable[..., Any]) -> None:
    long = "a photo of sks woman face, " + "very " * 80 + "beautiful"
    with pytest.warns(UserWarning, match=r"Not read: .*beautiful"):
        train("long", short("lora", instance_prompt=long, max_train_steps=1), progress=False)


def test_8_bit_adam_on_the_cpu_takes_the_steps_of_bitsandbytes() -> None:
    from bitsandbytes.optim import AdamW8bit

    def weights() -> dict[str, torch.nn.Parameter]:
        torch.manual_seed(0)
        shapes = [(64, 128), (100,), (3000,), (128, 64, 3, 3), (2000,), (256, 16)]
        return {f"unet.{i}": torch.nn.Parameter(torch.randn(shape)) for i, shape in enumerate(shapes)}

    chosen = LoRA(use_8bit_adam=True, learning_rate=1e-2)
    ours, theirs = weights(), weights()
    optimizer = make_optimizer(chosen, ours, torch.device("cpu"), lambda _: None)
    assert (
        len(optimizer.param_groups[0]["params"]) == 3
    )  # the large ones, and the small ones up to 4096 values
    plain = AdamW8bit(theirs.values(), lr=1e-2, weight_decay=chosen.adam_weight_decay)
    for step in range(4):
        for one, other in zip(ours.values(), theirs.values(), strict=True):
            one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(step))
            other.grad = one.grad.clone()
        optimizer.step()
        plain.step()
    for one, other in zip(ours.values(), theirs.values(), strict=True):
        assert torch.equal(one, other)
