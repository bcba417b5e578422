"""The mini world: portraits drawn from a seed, with their captions and everything that is true of them."""

from .captions import caption, vocabulary
from .drawing import Truth, draw, truth
from .picture import ATTRIBUTES, Face, Picture, held_out, labels, sample, sample_held_out, varied
from .subjects import SUBJECTS, Subject, photograph, traits

__all__ = [
    "ATTRIBUTES",
    "SUBJECTS",
    "Face",
    "Picture",
    "Subject",
    "Truth",
    "caption",
    "draw",
    "held_out",
    "labels",
    "photograph",
    "sample",
    "sample_held_out",
    "traits",
    "truth",
    "varied",
    "vocabulary",
]
