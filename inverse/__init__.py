"""Posterior samples from a pretrained score prior and a measurement.

grad log p_sigma(x | y) = grad log p_sigma(x) + grad log p_sigma(y | x)
    posterior               prior               forward model at noise level sigma
"""

from . import likelihoods, samplers
from .methods import Method, methods
from .posterior import Posterior, condition
from .result import Samples
from .sampling import sample

__all__ = [
    "Method",
    "Posterior",
    "Samples",
    "condition",
    "likelihoods",
    "methods",
    "sample",
    "samplers",
]
