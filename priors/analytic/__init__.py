"""Priors known in closed form: exact denoiser, score, covariance and density at every level."""

from .covariance import Covariance
from .empirical import Empirical
from .files import save_analytic
from .fit import fit_mixture
from .gaussian import Gaussian
from .mixture import Mixture
from .structured import Circulant, FactorAnalysis, Kronecker, LowRank

__all__ = [
    "Circulant",
    "Covariance",
    "Empirical",
    "FactorAnalysis",
    "Gaussian",
    "Kronecker",
    "LowRank",
    "Mixture",
    "fit_mixture",
    "save_analytic",
]
