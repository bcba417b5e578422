"""Other tools' formats: what A1111, Forge, ComfyUI and Civitai read and write."""

from sdlab.formats.checkpoint_file import NotACheckpoint, read_checkpoint
from sdlab.formats.conversion import convert
from sdlab.formats.kohya import kohya_weights
from sdlab.formats.original import original_weights

__all__ = ["NotACheckpoint", "convert", "kohya_weights", "original_weights", "read_checkpoint"]
