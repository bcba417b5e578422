"""Raw photos -> instance images: decode, turn upright, crop to a square, resize, and record what was done."""

from sdlab.photos.dataset import Dataset
from sdlab.photos.decode import UnusablePhoto, decode
from sdlab.photos.preparation import prepare

__all__ = ["Dataset", "UnusablePhoto", "decode", "prepare"]
