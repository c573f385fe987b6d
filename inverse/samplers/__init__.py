"""Samplers over a prior; posteriors are priors."""

from .ancestral import Ancestral
from .annealed_langevin import (
    AnnealedLangevin,
    annealing_levels,
    annealing_step,
    largest_distance,
)
from .euler_maruyama import EulerMaruyama
from .heun import Heun
from .langevin import Langevin
from .multistep import Multistep
from .names import named
from .predictor_corrector import PredictorCorrector
from .sampler import Callback, DivergenceError, Sampler, Step

__all__ = [
    "Ancestral",
    "AnnealedLangevin",
    "Callback",
    "DivergenceError",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "Multistep",
    "PredictorCorrector",
    "Sampler",
    "Step",
    "annealing_levels",
    "annealing_step",
    "largest_distance",
    "named",
]
