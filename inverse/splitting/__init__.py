"""Splitting: denoise, a data step, renoise. One loop, and parts to put into it."""

from .chains import HamiltonianChain, LangevinChain, MetropolisChain
from .denoisers import Denoiser, FlowODE, Mean, Optimised, ReverseSDE
from .problem import Problem
from .projection import Projected, Projection
from .proximal import ConditionalDraw, GaussianDraw, ProximalMap
from .resampling import Consistent, Resampled
from .spectral import Spectral
from .splitting import Splitting
from .updates import (
    DataStep,
    Fresh,
    Partly,
    Renewed,
    Renoise,
    Slack,
    Split,
    Unmoved,
    Update,
    Without,
)

__all__ = [
    "ConditionalDraw",
    "Consistent",
    "DataStep",
    "Denoiser",
    "FlowODE",
    "Fresh",
    "GaussianDraw",
    "HamiltonianChain",
    "LangevinChain",
    "Mean",
    "MetropolisChain",
    "Optimised",
    "Partly",
    "Problem",
    "Projected",
    "Projection",
    "ProximalMap",
    "Renewed",
    "Renoise",
    "Resampled",
    "ReverseSDE",
    "Slack",
    "Spectral",
    "Split",
    "Splitting",
    "Unmoved",
    "Update",
    "Without",
]
