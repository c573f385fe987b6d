"""What we believe before measuring: score priors, analytic and learned."""

from .covariance import Covariance
from .empirical import Empirical
from .gaussian import Gaussian
from .likelihood import log_prob
from .mixture import Mixture
from .network import NetworkPrior
from .pretrained import load, save
from .prior import Prior
from .schedule import VE, VP, Cosine, Flow, Schedule, SubVP, geometric, karras
from .structured import Circulant, FactorAnalysis, LowRank

__all__ = [
    "VE",
    "VP",
    "Circulant",
    "Cosine",
    "Covariance",
    "Empirical",
    "FactorAnalysis",
    "Flow",
    "Gaussian",
    "LowRank",
    "Mixture",
    "NetworkPrior",
    "Prior",
    "Schedule",
    "SubVP",
    "geometric",
    "karras",
    "load",
    "log_prob",
    "save",
]
