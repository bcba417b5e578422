"""Stage `annotators`: small models of the classes that annotate photos learn the world's depth and pose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessorPil,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessorPil,
)

from recipes.mini.world.canvas import Canvas
from recipes.mini.world.figure import keypoints
from recipes.mini.world.picture import SCENES
from recipes.mini.world.scenes import paint_scene
from sdlab.control.maps import COCO

from .control_maps import Maps
from .machine import Machine
from .pictures import SIZE
from .progress import Progress

PATCH, WIDTH, LAYERS = 8, 64, 3
SPREAD = 0.1
"""Standard deviation of the first weights: 0.02, which suits a width of 768, stops at "no joint anywhere"."""
HEATMAP = 32
BLOB = 1.2
"""Standard deviation of a joint in its heatmap, in the heatmap's pixels."""
SHARPNESS = 10
"""Factor of a heatmap before its softmax, whose mean is its centre."""
JOINT_WEIGHT = 10
"""How much more a joint's place counts than the empty rest, which is a hundred times as large."""
DECODED = 0.4
"""Share of a batch that went through the autoencoder, as generated images did."""
EMPTY = 0.08
"""Share of a batch of the pose estimator that shows nobody."""
Model = TypeVar("Model", bound=torch.nn.Module)
Pictures = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def new_depth_estimator() -> DepthAnythingForDepthEstimation:
    """An untrained Depth Anything for 128×128 pictures, 0.2 million parameters."""
    backbone = Dinov2Config(
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        out_indices=[2, 3],
        reshape_hidden_states=False,
        initializer_range=SPREAD,
    )
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=PATCH,
            reassemble_hidden_size=WIDTH,
            reassemble_factors=[2, 1],
            neck_hidden_sizes=[24, 32],
            fusion_hidden_size=16,
            head_hidden_size=8,
            initializer_range=SPREAD,
            depth_estimation_type="metric",  # its sigmoid never dies, as the relative head's ReLU may
        )
    )


def new_pose_estimator() -> VitPoseForPoseEstimation:
    """An untrained ViTPose for 128×128 pictures, 0.2 million parameters."""
    backbone = VitPoseBackboneConfig(
        image_size=(SIZE, SIZE),
        patch_size=(PATCH, PATCH),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        out_indices=[LAYERS],
        initializer_range=SPREAD,
    )
    config = VitPoseConfig(
        backbone_config=backbone,
        scale_factor=HEATMAP * PATCH // SIZE,
        num_labels=len(COCO),
        initializer_range=SPREAD,
    )
    return VitPoseForPoseEstimation(config)


NEW_MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "depth": new_depth_estimator,
    "pose": new_pose_estimator,
}


def processor(kind: str) -> DPTImageProcessorPil | VitPoseImageProcessorPil:
    """What brings a picture to the form that the estimator of depth or pose was trained on."""
    form = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return DPTImageProcessorPil(**form) if kind == "depth" else VitPoseImageProcessorPil(**form)


def train_depth(
    folder: Path,
    maps: Maps,
    pictures: Pictures,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    begin_with: Path | None = None,
) -> DepthAnythingForDepthEstimation:
    """Train the depth estimator on exact depths.

    Args:
        folder: working folder.
        maps: the depths of the pictures.
        pictures: draws a batch: uint8 (n, 128, 128, 3), and the index of each in `maps`.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles weights and order.
        begin_with: an exported estimator to begin with; None for a new one.

    Returns:
        The estimator with the averaged weights.
    """
    torch.manual_seed(seed)
    layout = {"device": machine.device, "memory_format": torch.channels_last}
    known = begin_with and DepthAnythingForDepthEstimation.from_pretrained(begin_with, dtype="float32")
    model = (known or new_depth_estimator()).train().to(**layout)

    def loss(rng: np.random.Generator) -> Tensor:
        images, chosen = pictures(rng, 32)
        depth = torch.from_numpy(maps.depths[chosen]).to(machine.device).float() / 255
        with machine.autocast():
            found = model(_as_input(images, rng).to(**layout)).predicted_depth.float()
        return F.l1_loss(found, depth) + F.l1_loss(found.diff(dim=-1), depth.diff(dim=-1))

    return _trained(folder, model, loss, machine, minutes, seed)


def train_pose(
    folder: Path,
    maps: Maps,
    pictures: Pictures,
    machine: Machine,
    *,
    minutes: float,
    seed: int = 0,
    begin_with: Path | None = None,
) -> VitPoseForPoseEstimation:
    """Train the pose estimator on exact joints; scenes without anybody teach it to find nobody.

    Args:
        folder: working folder.
        maps: know what the pictures show.
        pictures: draws a batch: uint8 (n, 128, 128, 3), and the index of each in `maps`.
        machine: where it runs.
        minutes: time to train, earlier runs included.
        seed: settles weights and order.
        begin_with: an exported estimator to begin with; None for a new one.

    Returns:
        The estimator with the averaged weights.
    """
    torch.manual_seed(seed)
    known = begin_with and VitPoseForPoseEstimation.from_pretrained(begin_with, dtype="float32")
    model = (known or new_pose_estimator()).train().to(machine.device)
    nobody = _empty_scenes()

    def loss(rng: np.random.Generator) -> Tensor:
        images, chosen = pictures(rng, 32)
        joints = np.stack([keypoints(maps.picture(i), SIZE)[list(COCO)] for i in chosen])
        empty = rng.random(len(images)) < EMPTY
        images[empty] = nobody[rng.integers(len(nobody), size=int(empty.sum()))]
        joints[empty, :, 2] = 0
        with machine.autocast():
            found = model(_as_input(images, rng).to(machine.device)).heatmaps.float()
        wanted = torch.from_numpy(np.stack([heatmaps(one) for one in joints])).to(machine.device)
        shape = ((1 + JOINT_WEIGHT * wanted) * (found - wanted).square()).mean() * 100
        return shape + 5 * _distance(found, torch.from_numpy(joints).float().to(machine.device))

    return _trained(folder, model, loss, machine, minutes, seed)


def heatmaps(points: np.ndarray) -> np.ndarray:
    """A blob of height 1 at each joint inside the picture, float32 (17, 32, 32).

    Args:
        points: (17, 3): x and y in pixels of the picture, 1 where inside.

    Source: Xu et al. 2022, "ViTPose"; coordinates as in Huang et al. 2020, "The Devil is in the Details".
    """
    grid = np.arange(HEATMAP)
    x, y = (points[:, axis, None] / SIZE * (HEATMAP - 1) for axis in (0, 1))
    across, down = (np.exp(-((grid - centre) ** 2) / (2 * BLOB**2)) for centre in (x, y))
    return (down[:, :, None] * across[:, None, :] * points[:, 2, None, None]).astype(np.float32)


def _distance(found: Tensor, joints: Tensor) -> Tensor:
    """How far the heatmaps' centres lie from the joints that are seen, as a share of the side.

    Args:
        found: heatmaps (n, 17, 32, 32).
        joints: x and y in pixels, 1 where seen: (n, 17, 3).

    Source: Nibali et al. 2018, "Numerical Coordinate Regression with Convolutional Neural Networks".
    """
    weights = (found.flatten(2) * SHARPNESS).softmax(dim=-1).view_as(found)
    grid = torch.linspace(0, 1, HEATMAP, device=found.device)
    centres = torch.stack([(weights.sum(dim=2) * grid).sum(-1), (weights.sum(dim=3) * grid).sum(-1)], dim=-1)
    apart = (centres - joints[..., :2] / SIZE).abs().sum(dim=-1)
    return (apart * joints[..., 2]).mean()


def seen_pictures(drawn: np.ndarray, decoded: np.ndarray, usable: np.ndarray) -> Pictures:
    """Batches of drawn pictures and of such that went through the autoencoder, as generated images did.

    Args:
        drawn: uint8 (n, 128, 128, 3), of consecutive seeds.
        decoded: the first of them, decoded.
        usable: indices of pictures that show what their description says.

    Returns:
        From a random generator and a size to pictures and their indices.
    """

    def batch(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        through = rng.random(size) < DECODED
        among = usable[usable < len(drawn)]
        chosen = np.where(through, rng.choice(among[among < len(decoded)], size), rng.choice(among, size))
        images = np.stack([(decoded if t else drawn)[i] for t, i in zip(through, chosen, strict=True)])
        return images, chosen

    return batch


def _trained(
    folder: Path,
    model: Model,
    loss: Callable[[np.random.Generator], Tensor],
    machine: Machine,
    minutes: float,
    seed: int,
) -> Model:
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    progress = Progress(folder, model, optimizer, machine, minutes=minutes)
    for step in progress.steps():
        progress.learn(loss(np.random.default_rng([seed, step, machine.rank])))
    progress.use_average()
    return model.eval()


def _as_input(images: np.ndarray, rng: np.random.Generator) -> Tensor:
    """uint8 (n, h, w, 3) to (n, 3, h, w) from -1 to 1, each a little brighter or darker."""
    light = torch.from_numpy(rng.uniform(0.8, 1.15, (len(images), 1, 1, 1)).astype(np.float32))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() * light).clamp(0, 255) / 127.5 - 1


def _empty_scenes(each: int = 40) -> np.ndarray:
    """Backgrounds without a person, uint8 (n, 128, 128, 3)."""
    scenes = []
    for number in range(each):
        for scene in SCENES:
            canvas = Canvas(SIZE)
            paint_scene(canvas, scene, number)
            scenes.append(np.asarray(canvas.finished()[0]))
    return np.stack(scenes)
