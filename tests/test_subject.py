"""Who or what the photos show, read from what a student writes and from the prompts of a training."""

from __future__ import annotations

import pytest

from sdlab.subject import Subject


@pytest.mark.parametrize(
    ("phrase", "kind", "instance_prompt", "class_prompt"),
    [
        # as homework B writes it for a woman, and the paper's pattern for all else
        ("sks woman", "person", "a photo of sks woman face", "a photo of woman face"),
        ("sks woman face", "person", "a photo of sks woman face", "a photo of woman face"),
        ("ohwx man", "person", "a photo of ohwx man face", "a photo of man face"),
        ("sks dog", "animal", "a photo of sks dog", "a photo of dog"),
        ("sks golden retriever", "animal", "a photo of sks golden retriever", "a photo of golden retriever"),
        ("sks robot toy", "thing", "a photo of sks robot toy", "a photo of robot toy"),
        ("sks statue of a man", "thing", "a photo of sks statue of a man", "a photo of statue of a man"),
        ("sks stuffed animal", "thing", "a photo of sks stuffed animal", "a photo of stuffed animal"),
        ("sks style", "style", "a picture in sks style", "a picture"),
        ("sks oil art style", "style", "a picture in sks oil art style", "a picture in oil art style"),
        ("zwx van gogh style", "style", "a picture in zwx van gogh style", "a picture in van gogh style"),
    ],
)
def test_a_subject_is_a_rare_word_and_its_class(
    phrase: str, kind: str, instance_prompt: str, class_prompt: str
) -> None:
    subject = Subject.parse(phrase)
    assert (subject.kind, subject.instance_prompt, subject.class_prompt) == (
        kind,
        instance_prompt,
        class_prompt,
    )
    assert Subject.of(instance_prompt, class_prompt) == Subject.of(instance_prompt) == subject


@pytest.mark.parametrize(
    ("instance_prompt", "class_prompt", "phrase"),
    [
        ("a photo of a sks dog", "a photo of a dog", "sks dog"),
        ("a photo of sks dog", "a picture of a canine", "sks dog"),
        ("a photo of a very beautiful sks dog", "a photo of a dog", "sks dog"),
        ("a DSLR picture of the zwx vase on a table", "picture of vase", "zwx vase"),
        ("photo ohwx man", "photo man", "ohwx man"),
        ("portrait of sks woman face, on the street", None, "sks woman"),
        ("a painting in the style of sks", None, "sks style"),
        ("a photo of sks dog in the snow, comic style", None, "sks dog"),
        ("a photo of sks dog in a rustic style", None, "sks dog"),
        ("a photo of sks", "a photo of dog", "sks dog"),
        ("a photo of woman face", None, "woman"),  # without a rare word
        ("a photo of robot toy", "a photo of robot toy", "robot toy"),
    ],
)
def test_the_subject_is_read_from_the_prompts_of_a_training(
    instance_prompt: str, class_prompt: str | None, phrase: str
) -> None:
    assert Subject.of(instance_prompt, class_prompt).phrase == phrase


@pytest.mark.parametrize("phrase", ["sks woman with glasses", "sks old man with a beard"])
def test_a_person_stays_one_whatever_else_is_said(phrase: str) -> None:
    subject = Subject.parse(phrase)
    assert subject.kind == Subject.of(subject.instance_prompt, subject.class_prompt).kind == "person"


def test_the_kind_can_be_said() -> None:
    assert Subject.parse("sks robot").kind == "thing"
    robot = Subject.parse("sks robot", kind="person")
    assert robot.instance_prompt == "a photo of sks robot face"
    assert Subject.of(robot.instance_prompt, robot.class_prompt) == robot
    with pytest.raises(ValueError, match="one of person, animal, thing, style, got 'plant'"):
        Subject.parse("sks fern", kind="plant")


def test_one_word_is_no_subject() -> None:
    with pytest.raises(ValueError, match="a rare word and its class, such as 'sks woman' or 'sks dog', got"):
        Subject.parse("sks")
    assert Subject.parse("dog").phrase == "dog"  # known as a class: the same without the rare word
