"""Noise models: how a recording scatters around the clean measurement."""

from .gaussian import CorrelatedGaussian, Gaussian
from .laplace import Laplace
from .linear_gaussian import LinearGaussian
from .log_transmission import log_transmission
from .multiplicative import GammaSpeckle, LogNormal
from .noise import IndependentNoise, Noise
from .poisson import Poisson
from .rician import Rician
from .transmission import Transmission

__all__ = [
    "CorrelatedGaussian",
    "GammaSpeckle",
    "Gaussian",
    "IndependentNoise",
    "Laplace",
    "LinearGaussian",
    "LogNormal",
    "Noise",
    "Poisson",
    "Rician",
    "Transmission",
    "log_transmission",
]
