"""Compressed sensing: few measurements of many pixels, by transforms, patterns and chance."""

from .cosine import CosineTransform
from .fourier import FourierTransform
from .hadamard import HadamardTransform
from .orthonormal import Orthonormal
from .random_matrices import bernoulli_sensing, gaussian_sensing
from .random_transforms import RandomConvolution, RandomSigns
from .single_pixel import SinglePixel
from .subsampled import Subsampled

__all__ = [
    "CosineTransform",
    "FourierTransform",
    "HadamardTransform",
    "Orthonormal",
    "RandomConvolution",
    "RandomSigns",
    "SinglePixel",
    "Subsampled",
    "bernoulli_sensing",
    "gaussian_sensing",
]
