"""Noise models: how a recording scatters around the clean measurement."""

from .categorical import Categorical
from .gaussian import CorrelatedGaussian, Gaussian
from .heteroscedastic import HeteroscedasticGaussian
from .laplace import Laplace
from .linear_gaussian import LinearGaussian
from .log_transmission import log_transmission
from .multiplicative import GammaSpeckle, LogNormal
from .noise import IndependentNoise, Noise
from .poisson import Poisson
from .poisson_gaussian import PoissonGaussian
from .quantised import Quantised
from .rician import Rician
from .saturated import Saturated
from .transmission import Transmission

__all__ = [
    "Categorical",
    "CorrelatedGaussian",
    "GammaSpeckle",
    "Gaussian",
    "HeteroscedasticGaussian",
    "IndependentNoise",
    "Laplace",
    "LinearGaussian",
    "LogNormal",
    "Noise",
    "Poisson",
    "PoissonGaussian",
    "Quantised",
    "Rician",
    "Saturated",
    "Transmission",
    "log_transmission",
]
