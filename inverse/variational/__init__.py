"""Optimisation in place of sampling: one image, or the noise it grows from, is fitted to y."""

from .d_flow import DFlow
from .dmplug import DMPlug
from .initial_noise import InitialNoise
from .misfit import Misfit
from .optimisers import LBFGS, Adam, Optimiser, State
from .red_diff import REDDiff
from .variational_method import Look, VariationalMethod

__all__ = [
    "LBFGS",
    "Adam",
    "DFlow",
    "DMPlug",
    "InitialNoise",
    "Look",
    "Misfit",
    "Optimiser",
    "REDDiff",
    "State",
    "VariationalMethod",
]
