"""Stage `pictures`: draw the training world once, in shards on the disk."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from recipes.mini import world
from recipes.mini.world.figure import keypoints

SHARD = 500
"""Pictures in a shard: small enough that a killed run loses seconds."""

HELD_OUT = 10_000_000
"""Seeds from here on are for evaluation and never trained on."""

COMBINATIONS = 20_000_000
"""Seeds from here on show the subjects' combinations: only the reader sees them."""

CHARACTERS = 30_000_000
"""Seeds from here on show one character `OF_EACH` times, then the next: likeness is learned from them."""

OF_EACH = 4
SIZE = 128
PERSON = (
    *("gender", "skin", "face", "eyes", "hair_colour", "hair_style"),
    *("glasses", "glasses_colour", "beard", "freckles", "earrings"),
)


def described(seed: int) -> world.Picture:
    """The picture of a seed: of the training world, of the subjects' combinations, or of a character."""
    if seed >= CHARACTERS:
        return _of_character(seed)
    return world.sample_held_out(seed) if seed >= COMBINATIONS else world.sample(seed)


def _of_character(seed: int) -> world.Picture:
    """One person in another place, clothes, pose and light; every tenth has a subject's combination."""
    character = (seed - CHARACTERS) // OF_EACH
    person = (world.sample_held_out if character % 10 == 0 else world.sample)(CHARACTERS + character)
    moment, shift = world.sample(seed), 0
    while moment.gender != person.gender:  # the clothes depend on it
        shift += 1
        moment = world.sample(seed + shift * CHARACTERS)
    return world.varied(moment, seed=seed, **{name: getattr(person, name) for name in PERSON})


def draw_pictures(folder: Path, count: int, *, first_seed: int = 0, processes: int | None = None) -> None:
    """Draw the pictures of `count` consecutive seeds as uint8 shards; shards that exist stay.

    Args:
        folder: where `<first seed>.npy` files of shape (n, 128, 128, 3) go.
        count: how many pictures.
        first_seed: seed of the first.
        processes: workers; None for one per core.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for start in range(first_seed, first_seed + count, SHARD):
        stop = min(start + SHARD, first_seed + count)
        if not shard_path(folder, start).exists():
            jobs.append((folder, start, stop))
    _warn_if_outdated(folder, first_seed)
    if not jobs:
        return
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        for done, start in enumerate(pool.map(_draw_shard, *zip(*jobs, strict=True)), 1):
            print(f"pictures: shard {start} drawn, {done}/{len(jobs)}", flush=True)


def load_pictures(folder: Path, count: int, *, first_seed: int = 0) -> np.ndarray:
    """The drawn pictures of `count` consecutive seeds, uint8 (count, 128, 128, 3)."""
    shards = [np.load(shard_path(folder, s)) for s in range(first_seed, first_seed + count, SHARD)]
    return np.concatenate(shards)[:count]


def load_faces(path: Path, count: int) -> np.ndarray:
    """Where the face is in the pictures of the seeds 0, 1, …, found once and kept.

    Args:
        path: the `.npy` file that keeps it.
        count: how many pictures.

    Returns:
        x, y and radius in pixels, float32 (count, 3).
    """
    if path.exists() and len(kept := np.load(path)) >= count:
        return np.asarray(kept[:count])
    faces = np.zeros((count, 3), np.float32)
    for seed in range(count):
        points = keypoints(world.sample(seed), SIZE)
        nose, ears = points[0, :2], points[16:18, :2]
        faces[seed] = (*nose, max(4.0, np.linalg.norm(ears[0] - ears[1]) / 2))
    write_array(path, faces)
    return faces


def write_array(path: Path, array: np.ndarray) -> None:
    """Write beside, sync, rename: a killed run leaves no half file, two processes do not collide."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def shard_path(folder: Path, first_seed: int) -> Path:
    """Where the shard that begins with a seed lies."""
    return folder / f"{first_seed:08d}.npy"


def _warn_if_outdated(folder: Path, seed: int) -> None:
    """Shards are found by their seeds alone: say so where the world draws differently by now."""
    path = shard_path(folder, seed)
    if path.exists() and not np.array_equal(np.load(path)[0], np.asarray(world.draw(described(seed), SIZE))):
        print(
            f"pictures: {path} was drawn by an earlier version of the world; remove {folder} to draw anew",
            flush=True,
        )


def _draw_shard(folder: Path, start: int, stop: int) -> int:
    shard = np.stack([np.asarray(world.draw(described(seed), SIZE)) for seed in range(start, stop)])
    write_array(shard_path(folder, start), shard)
    return start
