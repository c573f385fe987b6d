"""What we believe before measuring: score priors, analytic and learned."""

from .analytic import (
    Circulant,
    Covariance,
    Empirical,
    FactorAnalysis,
    Gaussian,
    Kronecker,
    LowRank,
    Mixture,
    fit_mixture,
    save_analytic,
)
from .from_network import from_network
from .grids import GRIDS, geometric, grid, karras, levels_of, uniform_alpha, uniform_time
from .guidance import ClassifierFreeGuidance, Conditioned
from .latent import LatentPrior
from .likelihood import bits_per_dim, log_prob
from .network import NetworkPrior
from .pretrained import load, save
from .prior import Prior
from .schedule import VE, VP, Cosine, Flow, Schedule, SubVP

__all__ = [
    "GRIDS",
    "VE",
    "VP",
    "Circulant",
    "ClassifierFreeGuidance",
    "Conditioned",
    "Cosine",
    "Covariance",
    "Empirical",
    "FactorAnalysis",
    "Flow",
    "Gaussian",
    "Kronecker",
    "LatentPrior",
    "LowRank",
    "Mixture",
    "NetworkPrior",
    "Prior",
    "Schedule",
    "SubVP",
    "bits_per_dim",
    "fit_mixture",
    "from_network",
    "geometric",
    "grid",
    "karras",
    "levels_of",
    "load",
    "log_prob",
    "save",
    "save_analytic",
    "uniform_alpha",
    "uniform_time",
]
