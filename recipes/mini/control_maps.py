"""Stage `maps`: canny, depth and pose of the drawn pictures, known exactly because they are drawn."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from recipes.mini import world
from recipes.mini.world.figure import DEPTH, keypoints
from sdlab.control.maps import COCO, Kind, canny_map, depth_map, openpose_from_coco, pose_map

from .pictures import SHARD, SIZE, shard_path, write_array

FIGURE_ALONE = 0.5
"""Share of canny and depth maps without background, so that words can choose the scene behind a figure."""

BEHIND = 0.12
"""What lies at least so much deeper than the figure's middle is background."""


@dataclass(frozen=True)
class Maps:
    """The control maps of pictures with consecutive seeds.

    Args:
        depths: uint8 (n, 128, 128), 0 far to 255 near.
        edges: canny's edges, packed bits (n, 128, 16).
        first_seed: seed of the first picture.
        usable: indices of pictures that show what their description says.
    """

    depths: np.ndarray
    edges: np.ndarray
    first_seed: int
    usable: np.ndarray

    def picture(self, index: int) -> world.Picture:
        """What the picture of an index shows."""
        return world.sample(self.first_seed + int(index))

    def draw(self, kind: Kind, index: int, rng: np.random.Generator) -> np.ndarray:
        """One map, uint8 (128, 128, 3); of half the canny and depth maps only the figure stays."""
        picture = self.picture(index)
        if kind == "pose":
            return np.asarray(pose_map([known_pose(picture)], (SIZE, SIZE)))
        depth = self.depths[index]
        figure = depth > (DEPTH[picture.framing] - BEHIND) * 255
        alone = rng.random() < FIGURE_ALONE
        if kind == "depth":
            return np.asarray(depth_map(np.where(figure, depth, 0).astype(float) if alone else depth))
        edges = np.unpackbits(self.edges[index], axis=-1)
        if alone:
            edges = edges & binary_dilation(figure, iterations=2)
        return np.repeat(edges[..., None] * np.uint8(255), 3, axis=-1)


def known_pose(picture: world.Picture, size: int = SIZE) -> np.ndarray:
    """The person's 18 OpenPose points, (18, 3), the neck where an estimator of COCO's points puts it."""
    return openpose_from_coco(keypoints(picture, size)[list(COCO)])


def draw_maps(folder: Path, count: int, *, first_seed: int = 0, processes: int | None = None) -> None:
    """Draw depths and edges of `count` consecutive seeds as shards; shards that exist stay.

    Args:
        folder: gets `depth/<first seed>.npy` and `canny/<first seed>.npy`.
        count: how many pictures.
        first_seed: seed of the first.
        processes: workers; None for one per core.
    """
    starts = range(first_seed, first_seed + count, SHARD)
    missing = [start for start in starts if not shard_path(folder / "canny", start).exists()]
    stops = [min(start + SHARD, first_seed + count) for start in missing]
    if not missing:
        return
    for kind in ("depth", "canny"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        drawn: Iterable[int] = pool.map(_draw_shard, [folder] * len(missing), missing, stops)
        for done, start in enumerate(drawn, 1):
            print(f"maps: shard {start} drawn, {done}/{len(missing)}", flush=True)


def load_maps(folder: Path, count: int, *, first_seed: int = 0) -> Maps:
    """The maps of `count` consecutive seeds.

    Args:
        folder: that `draw_maps` wrote to.
        count: how many pictures.
        first_seed: seed of the first.
    """
    starts = range(first_seed, first_seed + count, SHARD)
    depths, edges = (
        np.concatenate([np.load(shard_path(folder / kind, start)) for start in starts])[:count]
        for kind in ("depth", "canny")
    )
    flaws = np.array([world.sample(first_seed + i).flaw for i in range(count)])
    return Maps(depths, edges, first_seed, np.flatnonzero(flaws == "none"))


def _draw_shard(folder: Path, start: int, stop: int) -> int:
    depths, edges = [], []
    for seed in range(start, stop):
        truth = world.truth(world.sample(seed), SIZE)
        high = np.random.default_rng([seed, 5]).uniform(120, 280)  # users set thresholds of their own
        depths.append((truth.depth * 255).round().astype(np.uint8))
        edges.append(np.packbits(_is_white(canny_map(truth.image, high / 2, high)), axis=-1))
    write_array(shard_path(folder / "depth", start), np.stack(depths))
    write_array(shard_path(folder / "canny", start), np.stack(edges))
    return start


def _is_white(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[..., 0] > 0
