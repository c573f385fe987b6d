"""Particles: samples with weights that correct what a likelihood only approximates."""

from .particle_method import ParticleMethod, Particles, State
from .resampling import effective_sample_size, log_mean_exp, systematic
from .twisted import TwistedFilter

__all__ = [
    "ParticleMethod",
    "Particles",
    "State",
    "TwistedFilter",
    "effective_sample_size",
    "log_mean_exp",
    "systematic",
]
