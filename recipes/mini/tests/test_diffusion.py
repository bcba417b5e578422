"""Faces weigh more in the UNet's loss, and whole figures are called so where they come more often."""

from __future__ import annotations

import numpy as np
import torch

from recipes.mini import diffusion, world


def test_a_face_weighs_more_and_a_picture_as_much_as_before() -> None:
    faces = torch.tensor([[8.0, 5.0, 2.0], [3.5, 12.5, 4.0]])
    weights = diffusion._face_weights(faces, side=16)
    assert weights.shape == (2, 1, 16, 16)
    assert torch.allclose(weights.mean(dim=(1, 2, 3)), torch.ones(2))
    assert [divmod(int(one.argmax()), 16) for one in weights] in ([(4, 7), (12, 3)], [(5, 8), (12, 3)])
    assert float(weights[0].max() / weights[0].min()) > diffusion.FACE_WEIGHT


def test_a_caption_without_framing_is_as_rarely_a_whole_figure_as_before() -> None:
    seeds = iter(range(10_000))
    whole = next(one for s in seeds if (one := world.sample(s)).framing == "full height")
    close = next(one for s in seeds if (one := world.sample(s)).framing == "close-up")
    captions = [diffusion._caption(whole, np.random.default_rng(n)) for n in range(400)]
    before = [diffusion.caption_or_nothing(whole, np.random.default_rng(n)) for n in range(400)]

    def silent(texts: list[str]) -> int:
        return sum("full height" not in text and "full body" not in text for text in texts)

    assert 0.4 < silent(captions) / silent(before) < 0.6
    assert diffusion._caption(close, np.random.default_rng(1)) == diffusion.caption_or_nothing(
        close, np.random.default_rng(1)
    )
