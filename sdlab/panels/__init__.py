"""Explorers for a notebook: sliders over checkpoints and LoRA scales, a wipe, and a table to choose from."""

from sdlab.panels.explorer import Explorer
from sdlab.panels.filtering import table_filter
from sdlab.panels.sliders import checkpoint_slider, lora_scale_slider
from sdlab.panels.wiping import wipe

__all__ = ["Explorer", "checkpoint_slider", "lora_scale_slider", "table_filter", "wipe"]
