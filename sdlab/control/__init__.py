"""Control image -> control map -> ControlNet: canny, depth and pose on any experiment."""

from sdlab.control.making import Control, ControlMap, NothingFound, control_map
from sdlab.control.networks import control_options, with_controlnets

__all__ = ["Control", "ControlMap", "NothingFound", "control_map", "control_options", "with_controlnets"]
