"""Computed tomography: line integrals of an image, and the classical ways back."""

from .attenuation import attenuation_operator
from .cone import ConeBeam
from .fan import FanBeam
from .fbp import fbp
from .hounsfield import (
    attenuation_to_hounsfield,
    hounsfield_sinogram,
    hounsfield_to_attenuation,
)
from .iterative import cgls, sirt
from .parallel import Tomography
from .slices import SliceStack

__all__ = [
    "ConeBeam",
    "FanBeam",
    "SliceStack",
    "Tomography",
    "attenuation_operator",
    "attenuation_to_hounsfield",
    "cgls",
    "fbp",
    "hounsfield_sinogram",
    "hounsfield_to_attenuation",
    "sirt",
]
