"""Splitting: denoise, a data step, renoise. One loop, and parts to put into it."""

from .denoisers import Denoiser, FlowODE, Mean, ReverseSDE
from .problem import Problem
from .projection import Projected, Projection
from .proximal import GaussianDraw, ProximalMap
from .spectral import Spectral
from .splitting import Splitting
from .updates import DataStep, Fresh, Partly, Renewed, Renoise, Slack, Split, Update, Without

__all__ = [
    "DataStep",
    "Denoiser",
    "FlowODE",
    "Fresh",
    "GaussianDraw",
    "Mean",
    "Partly",
    "Problem",
    "Projected",
    "Projection",
    "ProximalMap",
    "Renewed",
    "Renoise",
    "ReverseSDE",
    "Slack",
    "Spectral",
    "Split",
    "Splitting",
    "Update",
    "Without",
]
