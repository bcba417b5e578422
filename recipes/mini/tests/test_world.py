"""The mini world: what is drawn agrees with what is said of it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recipes.mini import world
from recipes.mini.world.captions import described
from sdlab import prompts


def test_same_seed_same_picture_at_any_size():
    picture = world.sample(11)
    assert picture == world.sample(11)
    small, large = world.draw(picture, 128), world.draw(picture, 512)
    assert small.size == (128, 128) and large.size == (512, 512)
    shrunk = np.asarray(large.resize((128, 128)), float)
    assert np.abs(shrunk - np.asarray(small, float)).mean() < 6  # grey levels: the same picture, finer


def test_too_small_a_size_is_refused_with_the_value():
    with pytest.raises(ValueError, match="at least 16 pixels, got 8"):
        world.draw(world.sample(0), 8)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("hair_colour", "pink"), ("glasses", "sunglasses"), ("hat", "hat"), ("scene", "forest"),
        ("skin", "dark"),
        ("expression", "crying"), ("framing", "full height"), ("style", "cartoon"), ("pose", "arms raised"),
        ("flaw", "blurry"),
    ],
)  # fmt: skip
def test_each_attribute_changes_the_pixels(attribute, value):
    plain = world.Picture(framing="half body")
    before, after = (
        np.asarray(world.draw(p), float) for p in (plain, world.varied(plain, **{attribute: value}))
    )
    assert np.abs(before - after).max() > 60  # grey levels


def test_truth_of_a_full_figure():
    truth = world.truth(world.Picture(framing="full height", x=0.0, scene="studio"), 128)
    x, y, visible = truth.keypoints.T
    assert truth.keypoints.shape == (18, 3) and visible.all()
    assert (
        truth.depth[y.astype(int), x.astype(int)] > 0.5
    ).all()  # every joint lies on the figure, which is near
    assert truth.depth[5, 5] < 0.3 and truth.depth.dtype == np.float32
    right_shoulder, left_shoulder, ankle = truth.keypoints[2], truth.keypoints[5], truth.keypoints[10]
    assert right_shoulder[0] < left_shoulder[0] and ankle[1] > 100


def test_subjects_have_a_combination_that_is_never_trained_on():
    for subject in world.SUBJECTS.values():
        photos = subject.photos()
        assert 18 <= len(photos) <= 21 and all(world.held_out(photo) for photo in photos)
        assert len({photo.scene for photo in photos}) >= 5
    assert not any(world.held_out(world.sample(seed)) for seed in range(3000))
    assert all(world.held_out(world.sample_held_out(seed)) for seed in range(300))


def test_every_word_of_captions_and_homework_is_in_the_vocabulary():
    known = set(world.vocabulary())
    texts = [world.caption(world.sample(seed), seed) for seed in range(800)]
    assert all("sks" not in re.findall(r"[a-z]+", text.lower()) for text in texts)
    for prompt_set in (prompts.HOMEWORK_A, prompts.HOMEWORK_B):
        filled = prompt_set.fill("sks woman")
        texts += [*filled.prompts.values(), filled.negative_prompt]
    words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    assert words - known - {"amels"} == set()  # "сamels": the homework wrote its first letter in Cyrillic


def test_a_caption_says_what_is_drawn():
    picture = replace(world.sample(5), flaw="none", glasses="sunglasses", scene="desert", framing="portrait")
    assert "sunglasses" in described(picture) and "in the desert" in described(picture)
    labels = world.labels(picture)
    assert world.ATTRIBUTES["scene"][labels["scene"]] == "desert"
    assert world.ATTRIBUTES["glasses"][labels["glasses"]] == "sunglasses"


def test_photograph_keeps_files_that_are_there(tmp_path: Path):
    mine = tmp_path / "vera_01.jpg"
    mine.write_bytes(b"my own file")
    paths = world.photograph("woman", tmp_path, size=64)
    assert len(paths) == 21 and mine.read_bytes() == b"my own file"
    with pytest.raises(ValueError, match="must be one of woman, man, got 'dog'"):
        world.photograph("dog", tmp_path)
