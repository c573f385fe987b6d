"""Samplers over a prior; posteriors are priors."""

from .absorbing import Absorbing
from .adaptive_ode import AdaptiveODE
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
from .mala import MALA
from .multistep import Multistep
from .names import named
from .predictor_corrector import PredictorCorrector
from .sampler import Callback, DivergenceError, Noise, Past, Sampler, Step, Transition
from .settling import Settling
from .spherical import Spherical
from .stochastic_heun import StochasticHeun
from .time_travel import TimeTravel

__all__ = [
    "MALA",
    "Absorbing",
    "AdaptiveODE",
    "Ancestral",
    "AnnealedLangevin",
    "Callback",
    "DivergenceError",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "Multistep",
    "Noise",
    "Past",
    "PredictorCorrector",
    "Sampler",
    "Settling",
    "Spherical",
    "Step",
    "StochasticHeun",
    "TimeTravel",
    "Transition",
    "annealing_levels",
    "annealing_step",
    "largest_distance",
    "named",
]
