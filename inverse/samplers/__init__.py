"""Samplers over a prior; posteriors are priors."""

from .ancestral import Ancestral
from .euler_maruyama import EulerMaruyama
from .heun import Heun
from .multistep import Multistep
from .sampler import Callback, DivergenceError, Sampler, Step

__all__ = [
    "Ancestral",
    "Callback",
    "DivergenceError",
    "EulerMaruyama",
    "Heun",
    "Multistep",
    "Sampler",
    "Step",
]
