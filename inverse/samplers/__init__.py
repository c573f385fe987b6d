"""Samplers over a prior; posteriors are priors."""

from .ancestral import Ancestral
from .euler_maruyama import EulerMaruyama
from .heun import Heun
from .multistep import Multistep
from .sampler import Callback, Divergence, Sampler, Step

__all__ = ["Ancestral", "Callback", "Divergence", "EulerMaruyama", "Heun", "Multistep", "Sampler", "Step"]
