"""Raw photos -> instance images: decode, find the face, crop, resize, examine, and record what was done."""

from sdlab.photos.captions import read_captions
from sdlab.photos.dataset import Dataset, save_sheet
from sdlab.photos.decode import UnusablePhoto, decode, load_image
from sdlab.photos.preparation import prepare
from sdlab.photos.sources import instance_images

__all__ = [
    "Dataset",
    "UnusablePhoto",
    "decode",
    "instance_images",
    "load_image",
    "prepare",
    "read_captions",
    "save_sheet",
]
