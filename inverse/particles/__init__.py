"""Particles: samples with weights that correct what a likelihood only approximates."""

from .absorbing import AbsorbingParticles
from .best_of import BestOf
from .ddsmc import DecoupledDiffusion
from .ensemble_kalman import EnsembleKalman
from .fps import FilteringPosterior
from .mcgdiff import MCGDiff
from .particle_method import ParticleMethod, State
from .particles import Particles
from .resampling import effective_sample_size, log_mean_exp, systematic
from .twisted import TwistedFilter

__all__ = [
    "AbsorbingParticles",
    "BestOf",
    "DecoupledDiffusion",
    "EnsembleKalman",
    "FilteringPosterior",
    "MCGDiff",
    "ParticleMethod",
    "Particles",
    "State",
    "TwistedFilter",
    "effective_sample_size",
    "log_mean_exp",
    "systematic",
]
