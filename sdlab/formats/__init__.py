"""Other tools' formats: what A1111, Forge, ComfyUI and Civitai read and write."""

from sdlab.formats.kohya import kohya_weights
from sdlab.formats.original import original_weights

__all__ = ["kohya_weights", "original_weights"]
