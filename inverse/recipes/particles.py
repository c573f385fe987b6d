"""Particles: weights correct what a likelihood only approximates."""

from __future__ import annotations

from priors import geometric

from ..lift import default_lift
from ..particles import TwistedFilter
from ..posterior import Posterior
from . import applies
from .recipe import Method, Recipe


def _tds(
    posterior: Posterior, steps: int, *, resample_below: float = 0.5, order: int = 2
) -> Recipe:
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(
        posterior.lifted(default_lift), TwistedFilter(levels, resample_below, order=order)
    )


def _bootstrap(posterior: Posterior, steps: int, *, resample_below: float = 0.5) -> Recipe:
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(
        posterior.lifted(default_lift), TwistedFilter(levels, resample_below, guided=False)
    )


PARTICLES = (
    Method(
        name="tds",
        family="particles",
        asks="gradient",
        needs="a differentiable forward model; its likelihood at every noise level is the twist",
        jacobian=True,
        cost="1 network call and up to M <= 32 or 3 vector-Jacobian products a step and particle",
        exact_when="particles and steps grow",
        paper="Wu et al. 2023, Practical and Asymptotically Exact Conditional Sampling in "
        "Diffusion Models, https://arxiv.org/abs/2306.17775",
        steps=100,
        applies=applies.differentiable,
        build=_tds,
    ),
    Method(
        name="bootstrap",
        family="particles",
        asks="gradient",
        needs="a differentiable forward model; the twist weighs, but does not guide",
        jacobian=True,
        cost="1 network call and up to M <= 32 or 3 vector-Jacobian products a step and particle",
        exact_when="particles and steps grow",
        paper="Gordon et al. 1993, Novel Approach to Nonlinear/Non-Gaussian Bayesian State "
        "Estimation, https://doi.org/10.1049/ip-f-2.1993.0015",
        steps=100,
        applies=applies.differentiable,
        build=_bootstrap,
    ),
)
