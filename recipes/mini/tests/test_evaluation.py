"""What the evaluation measures: a Fréchet distance that is known, joints seen from the head."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.mini.evaluation import by_the_head, frechet, frechet_ratio
from recipes.mini.world import sample
from recipes.mini.world.figure import keypoints
from sdlab.maps import COCO


def test_the_frechet_distance_of_normal_features_is_known() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((20_000, 3))
    assert frechet(one, np.add(one, (2, 0, 0))) == pytest.approx(4, abs=1e-6)  # the means' squared distance
    # two normals of spreads 1 and 3 in each of three directions: 3 × (3 - 1)²
    assert frechet(one, 3 * rng.standard_normal((20_000, 3))) == pytest.approx(12, rel=0.02)


def test_samples_as_good_as_the_autoencoder_have_a_ratio_of_one_and_worse_ones_more() -> None:
    rng = np.random.default_rng(0)
    sampled, decoded, drawn = (rng.standard_normal((500, 8)) + shift for shift in (0.3, 0.3, 0.0))
    same = frechet_ratio(sampled, decoded, drawn)
    assert same["low"] < 1 < same["high"]
    assert frechet_ratio(sampled + 0.5, decoded, drawn)["low"] > 1.5


def test_joints_by_the_head_do_not_depend_on_the_framing() -> None:
    picture = sample(3)
    points = keypoints(picture, 128)[list(COCO)]
    moved = points * (0.5, 0.5, 1) + (10, 20, 0)
    np.testing.assert_allclose(by_the_head(points[None]), by_the_head(moved[None]))
