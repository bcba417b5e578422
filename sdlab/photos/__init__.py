"""Raw photos -> instance images: decode, find the face, crop, resize, examine, and record what was done."""

from sdlab.photos.captions import read_captions
from sdlab.photos.dataset import Dataset
from sdlab.photos.decode import UnusablePhoto, decode
from sdlab.photos.preparation import prepare
from sdlab.photos.sheet import save_sheet

__all__ = ["Dataset", "UnusablePhoto", "decode", "prepare", "read_captions", "save_sheet"]
