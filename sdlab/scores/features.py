"""Features of files and prompts, computed once for each content and kept."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from sdlab import thumbnails
from sdlab.files import file_sha256, write_bytes
from sdlab.scores.embedders import Embedder

if TYPE_CHECKING:
    import numpy as np

CACHE = Path("cache_dir/features")
READ_TOGETHER = 200  # pictures in memory at once


def image_features(embedder: Embedder, files: Sequence[Path]) -> np.ndarray:
    """Gives the features of image files; those of a content that was seen before are read from the cache.

    Args:
        embedder: The model.
        files: Images; at least one.

    Returns:
        (n, d) float32.
    """
    return _kept(
        embedder, [file_sha256(file) for file in files], lambda some: _of_files(embedder, files, some)
    )


def text_features(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Gives the features of prompts, from the cache where they are there.

    Args:
        embedder: A CLIP.
        texts: Prompts; at least one.

    Returns:
        (n, d) float32.
    """
    keys = [hashlib.sha256(b"text:" + text.encode()).hexdigest() for text in texts]
    return _kept(embedder, keys, lambda some: embedder.texts([texts[index] for index in some]))


def record(embedder: Embedder) -> dict[str, Any]:
    """Says what features were made with, without loading the model where the cache knows it.

    Args:
        embedder: The model.

    Returns:
        Its name, source, revision and preprocessing.
    """
    return _read(CACHE / f"{embedder.key}.npz")[1] or embedder.record()


def _of_files(embedder: Embedder, files: Sequence[Path], some: Sequence[int]) -> np.ndarray:
    import numpy as np

    parts = []
    for start in range(0, len(some), READ_TOGETHER):
        chosen = some[start : start + READ_TOGETHER]
        parts.append(embedder.images([thumbnails.opened(files[index]) for index in chosen]))
    return np.concatenate(parts)


def _kept(
    embedder: Embedder, keys: Sequence[str], compute: Callable[[Sequence[int]], np.ndarray]
) -> np.ndarray:
    """The features of all keys; `compute` is asked for the indices of those that aren't in the cache."""
    import numpy as np

    path = CACHE / f"{embedder.key}.npz"
    known, _ = _read(path)
    first = {key: index for index, key in reversed(list(enumerate(keys))) if key not in known}
    if first:
        new = dict(zip(first, compute(list(first.values())), strict=True))
        known |= new
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            _write(path, _read(path)[0] | new, embedder.record())  # others may have added theirs meanwhile
    return np.stack([known[key] for key in keys])


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import numpy as np

    try:
        with np.load(path) as file:
            return dict(zip(file["keys"].tolist(), file["features"], strict=True)), json.loads(
                str(file["record"])
            )
    except FileNotFoundError:
        return {}, {}


def _write(path: Path, features: dict[str, np.ndarray], made_with: dict[str, Any]) -> None:
    import numpy as np

    data = io.BytesIO()
    np.savez(
        data,
        keys=np.array(list(features)),
        features=np.stack(list(features.values())),
        record=np.array(json.dumps(made_with)),
    )
    write_bytes(path, data.getvalue())
