"""The recipe: which stages there are, what each needs, how long it takes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from sdlab.control.maps import KINDS
from sdlab.profiles import profile

from . import (
    annotators,
    autoencoder,
    control,
    control_maps,
    diffusion,
    evaluation,
    export,
    pictures,
    rare_word,
    reading,
    seeing,
    text,
    world,
)
from .machine import Machine, machine
from .pictures import CHARACTERS, COMBINATIONS, HELD_OUT, OF_EACH

OTHER_CHARACTERS = CHARACTERS + 1_000_000
"""Seeds of the characters that the CLIP is measured on."""

Stage = Literal[
    "tokenizer",
    "pictures",
    "vae",
    "latents",
    "decoder",
    "text",
    "unet",
    "cooldown",
    "rare_word",
    "reader",
    "clip",
    "maps",
    "control",
    "annotators",
    "export",
    "evaluate",
]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class Recipe:
    """What is trained and for how long; any stage can be stopped, continued and given more minutes."""

    stages: tuple[Stage, ...] = STAGES
    """The stages to run, in their order."""
    out: Path = Path("cache_dir/mini/weights")
    """Where the pipeline (`sd/`), the reader (`reader/`) and the CLIP (`clip/`) are exported to."""
    work: Path = Path("cache_dir/mini")
    """Pictures, latents, checkpoints and logs."""
    pictures: int = 40_000
    """Training pictures."""
    held_out: int = 1000
    """Pictures kept for the measurements."""
    samples: int = 1000
    """Images that the evaluation generates."""
    decoded: int = 2000
    """Pictures through the autoencoder for the reader, and as many with the subjects' combinations."""
    characters: int = 2000
    """Characters of whom the CLIP sees four pictures each; a twentieth more are kept for measuring."""
    mapped: int = 20_000
    """Training pictures with control maps."""
    begin_with: Path | None = None
    """Exported weights that a training begins with; None for new ones."""
    vae_minutes: float = 60
    decoder_minutes: float = 30
    text_minutes: float = 15
    unet_minutes: float = 120
    cooldown_minutes: float = 20
    unet_learning_rate: float = 2e-3
    """Constant in stage `unet`, falling from there to nothing in `cooldown`."""
    rare_word_steps: int = 160
    reader_minutes: float = 20
    clip_minutes: float = 60
    control_minutes: float = 20
    """For each of canny, depth and pose."""
    annotator_minutes: float = 10
    """For each of depth and pose."""
    device: str = "auto"
    """A torch device, or "auto" for a GPU where there is one."""
    seed: int = 0
    smoke: bool = False
    """Run every stage for a moment, to see that it works; the result is noise."""


def train(recipe: Recipe) -> None:
    """Run the recipe's stages one after the other.

    Args:
        recipe: what to run.
    """
    if recipe.smoke:
        recipe = replace(
            recipe,
            pictures=24,
            held_out=8,
            samples=4,
            decoded=8,
            characters=20,
            mapped=24,
            vae_minutes=0.02,
            decoder_minutes=0.02,
            text_minutes=0.02,
            unet_minutes=0.02,
            cooldown_minutes=0.02,
            rare_word_steps=2,
            reader_minutes=0.02,
            clip_minutes=0.02,
            control_minutes=0.02,
            annotator_minutes=0.02,
        )
    here = machine(recipe.device)
    run = {
        "tokenizer": _tokenizer,
        "pictures": _pictures,
        "vae": _vae,
        "latents": _latents,
        "decoder": _decoder,
        "text": _text,
        "unet": _unet,
        "cooldown": _cooldown,
        "rare_word": _rare_word,
        "reader": _reader,
        "clip": _clip,
        "maps": _maps,
        "control": _control,
        "annotators": _annotators,
        "export": _export,
        "evaluate": _evaluate,
    }
    for stage in recipe.stages:
        if here.leads:
            print(f"stage: {stage}", flush=True)
        run[stage](recipe, here)
        here.wait()


def _tokenizer(recipe: Recipe, here: Machine) -> None:
    if here.leads:
        known = recipe.begin_with and CLIPTokenizer.from_pretrained(recipe.begin_with / "sd" / "tokenizer")
        (known or text.train_tokenizer()).save_pretrained(recipe.work / "tokenizer")


def _pictures(recipe: Recipe, here: Machine) -> None:
    if here.leads:
        folder = recipe.work / "pictures"
        pictures.draw_pictures(folder, recipe.held_out, first_seed=HELD_OUT)
        pictures.draw_pictures(folder, recipe.decoded, first_seed=COMBINATIONS)
        pictures.draw_pictures(folder, OF_EACH * recipe.characters, first_seed=CHARACTERS)
        pictures.draw_pictures(folder, _other_characters(recipe), first_seed=OTHER_CHARACTERS)
        pictures.draw_pictures(folder, recipe.pictures)


def _vae(recipe: Recipe, here: Machine) -> None:
    autoencoder.train_vae(
        recipe.work / "vae",
        _drawn(recipe),
        pictures.load_faces(recipe.work / "faces.npy", recipe.pictures),
        _held_out(recipe),
        here,
        minutes=recipe.vae_minutes,
        seed=recipe.seed,
        begin_with=recipe.begin_with and recipe.begin_with / "sd" / "vae",
    )


def _latents(recipe: Recipe, here: Machine) -> None:
    """Encode all pictures, and measure the mean and spread of the latents' channels."""
    vae = _trained_vae(recipe, here)
    folder = recipe.work / "latents"
    latents = autoencoder.encode_pictures(folder / "latents.npy", vae, _drawn(recipe), here)
    autoencoder.encode_pictures(folder / "held_out.npy", vae, _held_out(recipe), here)
    if here.leads:
        values = latents.astype(np.float32)
        statistics = {
            "mean": values.mean(axis=(0, 2, 3)).tolist(),
            "std": values.std(axis=(0, 2, 3)).tolist(),
        }
        (folder / "statistics.json").write_text(json.dumps(statistics, indent=2) + "\n")


def _decoder(recipe: Recipe, here: Machine) -> None:
    autoencoder.train_decoder(
        recipe.work / "decoder",
        _standardised_vae(recipe, here),
        _drawn(recipe),
        pictures.load_faces(recipe.work / "faces.npy", recipe.pictures),
        _held_out(recipe),
        here,
        minutes=recipe.decoder_minutes,
        seed=recipe.seed,
    )


def _text(recipe: Recipe, here: Machine) -> None:
    text.train_text(
        recipe.work / "text",
        _trained_tokenizer(recipe),
        here,
        pictures=recipe.pictures,
        minutes=recipe.text_minutes,
        seed=recipe.seed,
        begin_with=recipe.begin_with and recipe.begin_with / "sd" / "text_encoder",
    )


def _unet(recipe: Recipe, here: Machine, cool_down: Path | None = None) -> None:
    tokenizer = _trained_tokenizer(recipe)
    diffusion.train_unet(
        recipe.work / ("cooldown" if cool_down else "unet"),
        _standard_latents(recipe, "latents"),
        pictures.load_faces(recipe.work / "faces.npy", recipe.pictures) / autoencoder.PIXELS_OF_A_CELL,
        _standard_latents(recipe, "held_out")[:512],
        HELD_OUT,
        tokenizer,
        _trained_text_encoder(recipe, tokenizer),
        here,
        minutes=recipe.cooldown_minutes if cool_down else recipe.unet_minutes,
        seed=recipe.seed,
        begin_with=recipe.begin_with and recipe.begin_with / "sd" / "unet",
        cool_down=cool_down,
        learning_rate=recipe.unet_learning_rate,
    )


def _cooldown(recipe: Recipe, here: Machine) -> None:
    """From the newest weights of stage `unet`, which may go on at its constant rate meanwhile.

    Without that stage from `begin_with`, to teach finished weights a little more.
    """
    _unet(recipe, here, cool_down=recipe.work / "unet" / "checkpoint.pt")


def _rare_word(recipe: Recipe, here: Machine) -> None:
    if here.leads:
        tokenizer = _trained_tokenizer(recipe)
        embedding = rare_word.learn_rare_word(
            tokenizer,
            _trained_text_encoder(recipe, tokenizer),
            _trained_unet(recipe),
            here,
            steps=recipe.rare_word_steps,
            seed=recipe.seed,
        )
        torch.save(embedding, recipe.work / "rare_word.pt")


def _reader(recipe: Recipe, here: Machine) -> None:
    """On drawn and decoded pictures; a tenth has the subjects' combinations, which it must read as well."""
    drawn, combinations = _source(recipe, recipe.pictures), _source(recipe, recipe.decoded, COMBINATIONS)
    vae = _final_vae(recipe, here)
    decoded = [
        reading.decode_pictures(recipe.work / f"decoded_{name}.npy", vae, pictures, here)
        for name, pictures in (
            ("drawn", drawn.pictures[: recipe.decoded]),
            ("combinations", combinations.pictures),
        )
    ]
    reading.train_reader(
        recipe.work / "reader",
        [
            replace(drawn, share=0.6),
            reading.Source(decoded[0], drawn.truth, share=0.3),
            replace(combinations, share=0.05),
            reading.Source(decoded[1], combinations.truth, share=0.05),
        ],
        _source(recipe, recipe.held_out, HELD_OUT),
        here,
        minutes=recipe.reader_minutes,
        seed=recipe.seed,
        begin_with=recipe.begin_with and recipe.begin_with / "reader" / "reader.safetensors",
    )


def _clip(recipe: Recipe, here: Machine) -> None:
    seeing.train_clip(
        recipe.work / "clip",
        _trained_tokenizer(recipe),
        _shown(recipe, recipe.pictures),
        _shown(recipe, OF_EACH * recipe.characters, CHARACTERS),
        _shown(recipe, _other_characters(recipe), OTHER_CHARACTERS),
        here,
        minutes=recipe.clip_minutes,
        seed=recipe.seed,
        begin_with=recipe.begin_with and recipe.begin_with / "clip",
    )


def _other_characters(recipe: Recipe) -> int:
    """How many pictures of characters are never trained on."""
    return OF_EACH * max(2, recipe.characters // 20)


def _maps(recipe: Recipe, here: Machine) -> None:
    if here.leads:
        folder = recipe.work / "maps"
        control_maps.draw_maps(folder, recipe.held_out, first_seed=HELD_OUT)
        control_maps.draw_maps(folder, recipe.mapped)


def _control(recipe: Recipe, here: Machine) -> None:
    tokenizer = _trained_tokenizer(recipe)
    unet = _trained_unet(recipe)
    for kind in KINDS:
        control.train_control(
            recipe.work / "control" / kind,
            kind,
            control_maps.load_maps(recipe.work / "maps", recipe.mapped),
            _standard_latents(recipe, "latents")[: recipe.mapped],
            control_maps.load_maps(recipe.work / "maps", min(256, recipe.held_out), first_seed=HELD_OUT),
            _standard_latents(recipe, "held_out")[:256],
            unet,
            tokenizer,
            _trained_text_encoder(recipe, tokenizer),
            here,
            minutes=recipe.control_minutes,
            seed=recipe.seed,
            begin_with=recipe.begin_with and recipe.begin_with / "control" / kind,
        )


def _annotators(recipe: Recipe, here: Machine) -> None:
    count = min(recipe.mapped, 8000)
    drawn = pictures.load_pictures(recipe.work / "pictures", count)
    vae = _final_vae(recipe, here)
    decoded = reading.decode_pictures(recipe.work / "decoded_drawn.npy", vae, drawn[: recipe.decoded], here)
    maps = control_maps.load_maps(recipe.work / "maps", count)
    seen = annotators.seen_pictures(drawn, decoded, maps.usable)
    for kind, train_one in (("depth", annotators.train_depth), ("pose", annotators.train_pose)):
        folder = recipe.work / "annotators" / kind
        begin_with = recipe.begin_with and recipe.begin_with / "annotators" / kind
        minutes = recipe.annotator_minutes
        train_one(folder, maps, seen, here, minutes=minutes, seed=recipe.seed, begin_with=begin_with)


def _export(recipe: Recipe, here: Machine) -> None:
    """Export what there is: the pipeline once there is a UNet, the reader, the CLIP, what controls."""
    if not here.leads:
        return
    if any((recipe.work / stage / "checkpoint.pt").exists() for stage in ("unet", "cooldown")):
        tokenizer = _trained_tokenizer(recipe)
        export.export_pipeline(
            recipe.out / "sd",
            _final_vae(recipe, here),
            _trained_text_encoder(recipe, tokenizer),
            tokenizer,
            _trained_unet(recipe),
            scaling_factor=1 / float(_standard_latents(recipe, "latents").astype(np.float32).std()),
        )
    if (recipe.work / "reader" / "checkpoint.pt").exists():
        reader = reading.Reader(world.ATTRIBUTES)
        reader.load_state_dict(_average(recipe, "reader"))
        held_out = _source(recipe, recipe.held_out, HELD_OUT)
        accuracies = reading.accuracy(reader.eval(), held_out, here)
        export.export_reader(recipe.out / "reader" / "reader.safetensors", reader, accuracies)
    if (recipe.work / "clip" / "checkpoint.pt").exists():
        _export_clip(recipe, here)
    _export_control(recipe)


def _export_clip(recipe: Recipe, here: Machine) -> None:
    """The CLIP with its measured worth: attributes told apart, and characters."""
    tokenizer = _trained_tokenizer(recipe)
    clip = seeing.new_clip(tokenizer).eval()
    prefix = "clip."
    average = _average(recipe, "clip").items()
    clip.load_state_dict({k.removeprefix(prefix): v for k, v in average if k.startswith(prefix)})
    others = _shown(recipe, _other_characters(recipe), OTHER_CHARACTERS)
    measured = {
        "characters_auc": seeing.same_character(clip, others, here),
        "characters_pictures": len(others),
        "zero_shot": seeing.zero_shot(clip, tokenizer, _shown(recipe, recipe.held_out, HELD_OUT), here),
    }
    export.export_clip(recipe.out / "clip", clip, tokenizer, measured)


def _export_control(recipe: Recipe) -> None:
    """The ControlNets and the annotators that there are."""
    for kind in KINDS:
        if (recipe.work / "control" / kind / "checkpoint.pt").exists():
            controlnet = control.new_controlnet()
            controlnet.load_state_dict(_average(recipe, f"control/{kind}"))
            export.export_model(recipe.out / "control" / kind, controlnet)
    for name, new_model in annotators.NEW_MODELS.items():
        if (recipe.work / "annotators" / name / "checkpoint.pt").exists():
            model = new_model()
            model.load_state_dict(_average(recipe, f"annotators/{name}"))
            export.export_model(recipe.out / "annotators" / name, model, annotators.processor(name))


def _evaluate(recipe: Recipe, here: Machine) -> None:
    evaluation.evaluate(
        recipe.work / "evaluation",
        recipe.out,
        _held_out(recipe),
        here,
        samples=recipe.samples,
        guidance_scale=profile("mini").guidance_scale,
    )


def _source(recipe: Recipe, count: int, first_seed: int = 0) -> reading.Source:
    """Drawn pictures of consecutive seeds with what is true of them."""
    drawn = pictures.load_pictures(recipe.work / "pictures", count, first_seed=first_seed)
    described = (pictures.described(seed) for seed in range(first_seed, first_seed + count))
    return reading.Source(drawn, reading.truth_of(described))


def _shown(recipe: Recipe, count: int, first_seed: int = 0) -> seeing.Shown:
    """Drawn pictures of consecutive seeds with their descriptions."""
    drawn = pictures.load_pictures(recipe.work / "pictures", count, first_seed=first_seed)
    return seeing.Shown(drawn, [pictures.described(seed) for seed in range(first_seed, first_seed + count)])


def _drawn(recipe: Recipe) -> np.ndarray:
    return pictures.load_pictures(recipe.work / "pictures", recipe.pictures)


def _held_out(recipe: Recipe) -> np.ndarray:
    return pictures.load_pictures(recipe.work / "pictures", recipe.held_out, first_seed=HELD_OUT)


def _average(recipe: Recipe, stage: str) -> dict[str, torch.Tensor]:
    """The averaged weights in a stage's checkpoint."""
    path = recipe.work / stage / "checkpoint.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: run the stage {stage!r} first")
    return dict(torch.load(path, map_location="cpu", weights_only=True)["average"])


def _trained_vae(recipe: Recipe, here: Machine) -> AutoencoderKL:
    vae = autoencoder.new_vae()
    vae.load_state_dict(_average(recipe, "vae"))
    return vae.eval().to(here.device, memory_format=torch.channels_last)


def _standardised_vae(recipe: Recipe, here: Machine) -> AutoencoderKL:
    """The trained autoencoder with its latents' channels standardised."""
    vae = _trained_vae(recipe, here)
    statistics = _statistics(recipe)
    autoencoder.standardise(vae, statistics["mean"], statistics["std"])
    return vae


def _final_vae(recipe: Recipe, here: Machine) -> AutoencoderKL:
    """The standardised autoencoder with the decoder that learned on, once there is one."""
    vae = _standardised_vae(recipe, here)
    if (recipe.work / "decoder" / "checkpoint.pt").exists():
        autoencoder.decoder_of(vae).load_state_dict(_average(recipe, "decoder"))
    return vae


def _statistics(recipe: Recipe) -> dict[str, np.ndarray]:
    read = json.loads((recipe.work / "latents" / "statistics.json").read_text())
    return {name: np.array(values, np.float32) for name, values in read.items()}


def _standard_latents(recipe: Recipe, name: str) -> np.ndarray:
    """The cached latents with each channel's mean 0 and standard deviation 1, float16."""
    statistics = _statistics(recipe)
    latents = np.load(recipe.work / "latents" / f"{name}.npy")
    mean, std = (statistics[key][None, :, None, None] for key in ("mean", "std"))
    return ((latents - mean) / std).astype(np.float16)


def _trained_unet(recipe: Recipe) -> UNet2DConditionModel:
    unet = diffusion.new_unet()
    cooled = (recipe.work / "cooldown" / "checkpoint.pt").exists()
    unet.load_state_dict(_average(recipe, "cooldown" if cooled else "unet"))
    return unet


def _trained_tokenizer(recipe: Recipe) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(recipe.work / "tokenizer")


def _trained_text_encoder(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    text_encoder = text.new_text_encoder(tokenizer)
    prefix = "text_encoder."
    state = {
        name.removeprefix(prefix): value
        for name, value in _average(recipe, "text").items()
        if name.startswith(prefix)
    }
    text_encoder.load_state_dict(state)
    if (learned := recipe.work / "rare_word.pt").exists():
        rare_word.set_rare_word(tokenizer, text_encoder, torch.load(learned, weights_only=True))
    return text_encoder
