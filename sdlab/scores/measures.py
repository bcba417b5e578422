"""The measures as plain formulas on arrays of features, one row per image, and means with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd


class Interval(NamedTuple):
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Gives a mean and its 95 % interval by the bootstrap, which asks nothing of the values' distribution.

    Source:
        Efron 1979, "Bootstrap methods"; percentile interval of 2,000 resamples, seed 0.
    """
    sample = np.asarray(values, dtype=float)
    picks = np.random.default_rng(0).integers(0, len(sample), (2000, len(sample)))
    low, high = np.percentile(sample[picks].mean(axis=1), (2.5, 97.5))
    return Interval(float(sample.mean()), float(low), float(high))


def share(wins: float, trials: int) -> Interval:
    """Gives a share with its 95 % interval; half a win is rounded down for the interval.

    Source:
        Wilson 1927, the score interval, by scipy.
    """
    from scipy.stats import binomtest

    ends = binomtest(int(wins), trials).proportion_ci(method="wilson")
    return Interval(wins / trials, float(ends.low), float(ends.high))


def apart(one: Interval, other: Interval) -> bool:
    """Whether two intervals have nothing in common; a small overlap counts as "can't tell"."""
    (_, low, high), (_, other_low, other_high) = one, other  # a student's own figures are plain tuples
    return low > other_high or other_low > high


def unit(features: np.ndarray) -> np.ndarray:
    """Scales each row to length 1, so that the product of two rows is their cosine."""
    features = np.asarray(features, dtype=np.float64)
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))


def cosines(images: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Cosines of features (n, d) to others (m, d), or among themselves: (n, m), NaN of each with itself."""
    found = unit(images) @ unit(images if others is None else others).T
    if others is None:
        np.fill_diagonal(found, np.nan)
    return found


def diversity(images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean distance, 1 - cosine, of each image to the others of its group; NaN where it is alone."""
    distances = np.where(groups[:, None] == groups[None], 1 - cosines(images), np.nan)
    return pd.DataFrame(distances).mean(axis=1).to_numpy()
