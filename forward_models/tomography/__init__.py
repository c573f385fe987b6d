"""Computed tomography: line integrals of an image, and the classical ways back."""

from .attenuation import attenuation_operator
from .fan import FanBeam
from .fbp import fbp
from .hounsfield import (
    attenuation_to_hounsfield,
    hounsfield_sinogram,
    hounsfield_to_attenuation,
)
from .parallel import Tomography
from .slices import SliceStack

__all__ = [
    "FanBeam",
    "SliceStack",
    "Tomography",
    "attenuation_operator",
    "attenuation_to_hounsfield",
    "fbp",
    "hounsfield_sinogram",
    "hounsfield_to_attenuation",
]
