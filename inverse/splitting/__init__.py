"""Splitting: denoise, a data step, renoise. One loop, and parts to put into it."""

from .denoisers import Denoiser, FlowODE, Mean, ReverseSDE
from .problem import Problem
from .proximal import GaussianDraw, ProximalMap
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
    "ProximalMap",
    "Renewed",
    "Renoise",
    "ReverseSDE",
    "Slack",
    "Split",
    "Splitting",
    "Update",
    "Without",
]
