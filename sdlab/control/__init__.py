"""Control image -> control map -> ControlNet: canny, depth and pose on any experiment."""

from sdlab.control.annotators import NothingFound
from sdlab.control.making import ControlMap, control_map
from sdlab.control.networks import control_options, with_controlnets
from sdlab.control.settings import Control

__all__ = ["Control", "ControlMap", "NothingFound", "control_map", "control_options", "with_controlnets"]
