"""What we believe before measuring: score priors, analytic and learned."""

from .network import NetworkPrior
from .pretrained import load, save
from .prior import Prior
from .schedule import VE, VP, Cosine, Flow, Schedule, SubVP, geometric, karras

__all__ = [
    "VE",
    "VP",
    "Cosine",
    "Flow",
    "NetworkPrior",
    "Prior",
    "Schedule",
    "SubVP",
    "geometric",
    "karras",
    "load",
    "save",
]
