"""Training as a user sees it: what is trained, saved, refused, and continued."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from sdlab import mini
from sdlab.experiment import DreamBooth, Experiment, LoRA
from sdlab.models import load_pipeline, resolve
from sdlab.sampling import image_files
from sdlab.training import lora, train
from sdlab.training.loop import batch_losses, stop_requests
from sdlab.training.record import Diverged
from sdlab.training.setup import set_up

Short = Callable[..., DreamBooth | LoRA]


def weights(experiment: Experiment) -> dict[str, torch.Tensor]:
    """All weights that an experiment saved."""
    files = (
        [experiment.lora_file]
        if experiment.lora_file.exists()
        else experiment.model_folder.rglob("*.safetensors")
    )
    return {
        f"{file.relative_to(experiment.path)}.{name}": value
        for file in files
        for name, value in load_file(file).items()
    }


def changed(experiment: Experiment, part: str) -> bool:
    before = load_file(next((Path(mini.path()) / part).glob("*.safetensors")))
    file = next((experiment.model_folder / part).glob("*.safetensors"))
    after = load_file(file)
    assert after.keys() == before.keys()
    return any(not torch.equal(after[name].float(), value.float()) for name, value in before.items())


@pytest.fixture(scope="module")
def dreambooth(short: Short, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A DreamBooth of four steps, with text encoder and prior preservation."""
    folder = tmp_path_factory.mktemp("dreambooth")
    chosen = short("dreambooth", class_data_dir=str(folder / "class_images"))
    return train("exp1.1", chosen, root=folder / "experiments", progress=False)


def test_dreambooth_trains_unet_and_text_encoder_and_leaves_the_vae(dreambooth: Experiment) -> None:
    assert dreambooth.status == "finished"
    assert [changed(dreambooth, part) for part in ("unet", "text_encoder", "vae")] == [True, True, False]
    StableDiffusionPipeline.from_pretrained(dreambooth.model_folder)  # by diffusers alone


def test_the_record_says_what_the_run_took(dreambooth: Experiment) -> None:
    record, log = dreambooth.record, dreambooth.log()
    assert record["base"] == "mini"
    assert record["trainable_share"] == 1.0
    assert record["steps"] == 4 and record["seconds"] > 0 and record["size_mb"] > 1
    assert record["environment"]["torch"] == torch.__version__
    assert log[-1]["step"] == 4
    prior = dreambooth.hyperparameters.prior_loss_weight * log[-1]["prior_loss"]
    assert log[-1]["loss"] == pytest.approx(log[-1]["instance_loss"] + prior, rel=1e-5)


def test_a_finished_experiment_is_not_trained_again(dreambooth: Experiment) -> None:
    before = dreambooth.record
    again = train(dreambooth.name, dreambooth.hyperparameters, root=dreambooth.root)
    assert again.record == before


def test_other_hyperparameters_under_the_same_name_are_refused(dreambooth: Experiment, short: Short) -> None:
    with pytest.raises(ValueError, match=r"learning_rate was .*, is 1e-06\. Take another name"):
        train(dreambooth.name, short("dreambooth", learning_rate=1e-6), root=dreambooth.root)


def test_other_photos_under_the_same_name_are_refused(
    dreambooth: Experiment, instance_images: Path, short: Short, tmp_path: Path
) -> None:
    (tmp_path / "0.png").write_bytes((instance_images / "0.png").read_bytes())
    chosen = short("dreambooth", instance_data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"instance_images was .* Take another name"):
        train(dreambooth.name, chosen, root=dreambooth.root)


def test_a_lora_on_top_of_dreambooth_loads_in_plain_diffusers(dreambooth: Experiment, short: Short) -> None:
    chosen = short(
        "lora",
        dreambooth.name,
        root=dreambooth.root,
        rank=2,
        lora_alpha=6.0,
        train_text_encoder=True,
        learning_rate=1e-2,
    )
    experiment = train("lora_on_top", chosen, root=dreambooth.root, progress=False)
    assert experiment.record["base"] == "mini"
    plain = StableDiffusionPipeline.from_pretrained(dreambooth.model_folder)
    plain.load_lora_weights(experiment.path)
    layers = [
        layer
        for part in (plain.unet, plain.text_encoder)
        for layer in part.modules()
        if hasattr(layer, "scaling")
    ]
    assert {layer.scaling[name] for layer in layers for name in layer.scaling} == {3.0}  # lora_alpha / rank
    assert len([name for name in weights(experiment) if "text_encoder" in name]) > 0
    assert torch.equal(
        noise_prediction(plain), noise_prediction(load_pipeline(experiment.name, root=dreambooth.root))
    )


def test_the_base_may_be_an_experiment_of_the_same_name_elsewhere(
    dreambooth: Experiment, short: Short, tmp_path: Path
) -> None:
    chosen = short("lora", str(dreambooth.path), max_train_steps=1)
    experiment = train(dreambooth.name, chosen, root=tmp_path / "loras", progress=False)
    assert resolve(experiment.path).lora == experiment.lora_file
    assert resolve(experiment.path).source == str(dreambooth.model_folder)


def noise_prediction(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    sample = torch.linspace(-1, 1, pipeline.unet.config.in_channels * 64).view(1, -1, 8, 8)
    with torch.no_grad():
        embeddings = pipeline.encode_prompt("a photo of sks woman", "cpu", 1, False)[0]
        return pipeline.unet(sample, 500, embeddings).sample


def test_attention_lora_of_sd15_has_the_known_number_of_weights() -> None:
    # 797,184 and 3,188,736 are what finished homeworks report for ranks 4 and 16.
    for rank, expected in ((4, 797_184), (16, 3_188_736)):
        with torch.device("meta"):
            unet = UNet2DConditionModel(
                cross_attention_dim=768, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8
            )
            unet.requires_grad_(False)
            lora.add_adapter(unet, LoRA(rank=rank), "unet")
        assert sum(weight.numel() for weight in unet.parameters() if weight.requires_grad) == expected


def test_one_step_has_the_textbook_gradient(short: Short, workplace: Path) -> None:
    """Mean (ε - ε_θ(√ᾱ x + √(1-ᾱ) ε, t, c))² of Ho et al. 2020, computed here in float64."""
    chosen = short("dreambooth", with_prior_preservation=False, train_batch_size=2)
    files = image_files(chosen.instance_data_dir)
    training = set_up(Experiment("exp1"), chosen, [files], lambda text: None)
    training.done = 3
    batch_losses([training])[0][0].backward()
    measured = {
        name: weight.grad.double() for name, weight in training.weights.items() if weight.grad is not None
    }

    from sdlab.training.data import draw_batch

    batch = draw_batch(training.model.sources, 2, 3, chosen.seed, 1000)
    pipeline = training.model.pipeline
    pipeline.unet.double().zero_grad()
    pipeline.text_encoder.double().zero_grad()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2  # SD 1.5's schedule
    alpha = torch.cumprod(1 - betas, 0)[batch.timesteps].view(-1, 1, 1, 1)
    noise = batch.noise.double()
    noisy = alpha.sqrt() * batch.latents.double() + (1 - alpha).sqrt() * noise
    tokens = pipeline.tokenizer(chosen.instance_prompt, padding="max_length", return_tensors="pt").input_ids
    embeddings = pipeline.text_encoder(tokens)[0].repeat(2, 1, 1)
    (pipeline.unet(noisy, batch.timesteps, embeddings).sample - noise).square().mean().backward()
    rounding = 1e-8  # all that a key's bias gets; the others get 3e-7 and more
    for name, weight in training.weights.items():
        if weight.grad is not None:
            assert torch.dist(measured[name], weight.grad) <= 1e-3 * weight.grad.norm() + rounding, name


def test_a_broken_checkpoint_is_passed_over(short: Short, workplace: Path) -> None:
    whole = train("whole", short("lora"), progress=False)
    torn = train("torn", short("lora"), progress=False)
    (torn.path / "pytorch_lora_weights.safetensors").unlink()
    torn.update(status="running")
    newest = torn.checkpoints_folder / "step_000004" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="step_000004 is torn or changed"):
        train("torn", short("lora"), progress=False)
    assert_same(whole, torn)


def assert_same(one: Experiment, other: Experiment) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and len(first) > 0
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["SIGINT", "SIGHUP", "SIGUSR2"])
def test_an_interrupt_saves_and_the_next_call_goes_on(kind: str, short: Short, workplace: Path) -> None:
    usual = signal.default_int_handler if kind == "SIGINT" else signal.SIG_DFL
    signal.signal(getattr(signal, kind), usual)  # `nohup` or a shell's `&` may have had it ignored
    chosen = short("lora", max_train_steps=30, checkpointing_steps=4)
    whole = train("whole", chosen, progress=False)
    parts = Experiment("parts")

    def interrupt() -> None:  # as Ctrl-C or a notebook's stop button, a lost connection, a cluster's warning
        while not any(row["step"] > 4 for row in parts.log()):
            time.sleep(0.01)
        os.kill(os.getpid(), getattr(signal, kind))

    threading.Thread(target=interrupt).start()
    assert train("parts", chosen, progress=False).status == "stopped"
    assert 4 < parts.record["steps"] < 30
    assert train("parts", chosen, progress=False).status == "finished"
    assert_same(whole, parts)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal")
def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_end_from_outside_is_no_failure_and_claims_no_checkpoint(
    short: Short, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.AdamW.step

    def leave(number: int, frame: object) -> None:
        sys.exit(3)

    def ended_twice(optimizer: torch.optim.AdamW, *arguments: object) -> object:
        if Experiment("ended").log():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
        return step(optimizer, *arguments)

    before = signal.signal(signal.SIGTERM, leave)
    monkeypatch.setattr(torch.optim.AdamW, "step", ended_twice)
    try:
        with pytest.raises(SystemExit):
            train("ended", short("lora", max_train_steps=10_000, checkpointing_steps=10_000), progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    ended = Experiment("ended")
    assert ended.status == "stopped"
    assert not list(ended.checkpoints_folder.glob("step_*"))
    assert "from the start, for nothing is saved yet" in ended.record["message"]


def test_more_steps_go_on_from_the_last_one(
    short: Short, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constant = {"lr_scheduler": "constant", "num_held_out_images": 0, "checkpointing_steps": 3}
    whole = train("whole", short("lora", max_train_steps=8, **constant), progress=False)
    train("longer", short("lora", max_train_steps=4, **constant), progress=False)
    longer = train("longer", short("lora", max_train_steps=8, **constant))
    assert "going on after step 4 of 8, with the same learning rate" in capsys.readouterr().out
    assert longer.status == "finished" and longer.record["steps"] == 8
    assert_same(whole, longer)
    cosine = constant | {"lr_scheduler": "cosine"}
    train("cosine", short("lora", max_train_steps=4, **cosine), progress=False)
    train("cosine", short("lora", max_train_steps=8, **cosine))
    # half a cosine from 5e-3 to 0: at its middle half of it
    assert (
        "the cosine schedule now ends there, so the learning rate goes on at 0.0025"
        in capsys.readouterr().out
    )


def test_a_start_that_did_no_step_is_repeated_with_the_fault_repaired(
    short: Short, instance_images: Path, workplace: Path
) -> None:
    Path("photos").mkdir()
    Path("photos/0.png").write_bytes(b"no picture")
    chosen = {"instance_data_dir": "photos", "num_held_out_images": 0, "max_train_steps": 1}
    with pytest.raises(ValueError, match="can't be read"):
        train("exp1", short("lora", **chosen), progress=False)
    Path("photos/0.png").write_bytes((instance_images / "0.png").read_bytes())
    assert train("exp1", short("lora", rank=8, **chosen), progress=False).status == "finished"


def test_a_closed_pipe_fails_no_training(short: Short, workplace: Path) -> None:
    (workplace / "chosen.json").write_text(json.dumps(short("lora", max_train_steps=2).as_dict()))
    code = (
        "import json; from sdlab.config import from_dict; from sdlab.training import train; "
        "train('exp1', from_dict(json.load(open('chosen.json'))))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -n 1"
    subprocess.run(command, shell=True, env=environment, stderr=subprocess.DEVNULL, check=True)
    assert Experiment("exp1").status == "finished"


def test_a_loss_that_is_no_number_stops_with_advice(short: Short, workplace: Path) -> None:
    chosen = short("lora", learning_rate=1e30, max_train_steps=30)
    with pytest.raises(Diverged, match="Lower learning_rate"):
        train("too_fast", chosen, progress=False)
    experiment = Experiment("too_fast")
    assert experiment.status == "failed"
    assert "Lower learning_rate" in experiment.record["message"]


def test_no_images_is_said_before_anything_is_made(short: Short, workplace: Path) -> None:
    with pytest.raises(ValueError, match=r"no images in instance_data_dir='nowhere'.*sdlab prepare"):
        train("exp1", short("lora", instance_data_dir="nowhere"))
    assert not Path("experiments").exists()


def test_an_image_that_cannot_be_read_is_named(short: Short, workplace: Path) -> None:
    Path("broken").mkdir()
    Path("broken/photo.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken.photo\.png can't be read as an image"):
        train("exp1", short("lora", instance_data_dir="broken", num_held_out_images=0), progress=False)


def test_class_images_are_shared(short: Short, workplace: Path) -> None:
    for name, weight in (("exp1", 1.0), ("exp3", 1.2)):
        train(name, short("dreambooth", prior_loss_weight=weight, max_train_steps=1), progress=False)
    (folder,) = Path("data/class_images").iterdir()
    assert len(image_files(folder)) == 2
    record = json.loads((folder / "class_images.json").read_text())
    assert record["class_prompt"] == "a photo of woman face" and record["base_name"] == "mini"


def test_what_was_trained_from_mini_is_mini(dreambooth: Experiment) -> None:
    base = resolve(dreambooth.name, dreambooth.root)
    assert (base.kind, base.root_name) == ("folder", "mini")
