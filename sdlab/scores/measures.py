"""The measures as plain formulas on arrays of features, one row per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def unit(features: np.ndarray) -> np.ndarray:
    """Gives features of length 1, so that the product of two is their cosine.

    Args:
        features: (n, d).

    Returns:
        (n, d) float64.
    """
    import numpy as np

    features = np.asarray(features, dtype=np.float64)
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))


def likeness(images: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """Mean cosine of each image to all photos; its mean is CLIP-I, DINO or, for the class's images, PRES.

    Args:
        images: Features, (n, d).
        photos: Features, (m, d).

    Returns:
        (n,), from -1 to 1.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, section 4.2: average pairwise cosine similarity.
    """
    import numpy as np

    return np.asarray((unit(images) @ unit(photos).T).mean(axis=1))


def likeness_among(photos: np.ndarray) -> np.ndarray:
    """Mean cosine of each photo to the others: what a perfect image could reach.

    Args:
        photos: Features, (m, d), at least two.

    Returns:
        (m,), from -1 to 1.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, table 1, row "Real Images".
    """
    import numpy as np

    cosines = unit(photos) @ unit(photos).T
    return np.asarray((cosines.sum(axis=1) - 1) / (len(cosines) - 1))


def fidelity(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Cosine of each image to its own prompt; its mean is CLIP-T.

    Args:
        images: Features of CLIP, (n, d).
        texts: Features of each image's prompt by the same CLIP, (n, d).

    Returns:
        (n,), from -1 to 1.

    Source:
        Ruiz et al. 2022, arXiv:2208.12242, section 4.2.
    """
    import numpy as np

    return np.asarray((unit(images) * unit(texts)).sum(axis=1))


def diversity(images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean distance, 1 - cosine, of each image to the others of its group.

    Args:
        images: Features, (n, d).
        groups: Which images belong together, such as the prompt's name, (n,).

    Returns:
        (n,), from 0 to 2; NaN for an image that is alone.
    """
    import numpy as np

    distances = 1 - unit(images) @ unit(images).T
    together = groups[:, None] == groups[None]
    others = together.sum(axis=1) - 1
    sums = np.where(together, distances, 0).sum(axis=1)
    return np.where(others > 0, sums / np.maximum(others, 1), np.nan)


def nearest(images: np.ndarray, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The photo that each image is most similar to, and how similar.

    Args:
        images: Features, (n, d).
        photos: Features, (m, d).

    Returns:
        Index into the photos and cosine, each (n,).
    """
    cosines = unit(images) @ unit(photos).T
    return cosines.argmax(axis=1), cosines.max(axis=1)


def nearest_other(photos: np.ndarray) -> np.ndarray:
    """How similar each photo is to the nearest other photo: as near as an image may come without a copy.

    Args:
        photos: Features, (m, d), at least two.

    Returns:
        Cosines, (m,).
    """
    import numpy as np

    cosines = unit(photos) @ unit(photos).T
    np.fill_diagonal(cosines, -1)
    return np.asarray(cosines.max(axis=1))
