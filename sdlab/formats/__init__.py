"""Other tools' formats: what A1111, Forge, ComfyUI, kohya and Civitai read and write."""

from sdlab.formats.checkpoints import NotACheckpoint
from sdlab.formats.conversion import convert

__all__ = ["NotACheckpoint", "convert"]
