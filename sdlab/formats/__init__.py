"""Other tools' formats: what A1111, Forge, ComfyUI and Civitai read and write."""

from sdlab.formats.card import model_card
from sdlab.formats.checkpoint_file import NotACheckpoint
from sdlab.formats.conversion import convert
from sdlab.formats.exporting import export_lora, export_model

__all__ = ["NotACheckpoint", "convert", "export_lora", "export_model", "model_card"]
