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
from .guidance import ClassifierFreeGuidance, Conditioned
from .latent import LatentPrior
from .likelihood import bits_per_dim, log_prob
from .network import NetworkPrior
from .pretrained import load, save
from .prior import Prior
from .schedule import VE, VP, Cosine, Flow, Schedule, SubVP, geometric, karras

__all__ = [
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
    "karras",
    "load",
    "log_prob",
    "save",
    "save_analytic",
]
