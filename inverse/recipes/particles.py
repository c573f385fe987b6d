"""Particles: weights correct what a likelihood only approximates."""

from __future__ import annotations

from priors import geometric

from ..lift import default_lift
from ..particles import MCGDiff, TwistedFilter
from ..particles.spectral import not_spectral
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


def _mcgdiff(
    posterior: Posterior,
    steps: int,
    *,
    resample_below: float = 0.5,
    eta: float = 1.0,
    order: int = 2,
) -> Recipe:
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior, MCGDiff(levels, resample_below, eta, order))


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
        asks="black box",
        needs="any forward model; the twist weighs, but does not guide",
        jacobian=True,
        cost="1 network call a step and particle; M products more for Tweedie's twist of a "
        "linear-Gaussian model with M data, none for others",
        exact_when="particles and steps grow",
        paper="Gordon et al. 1993, Novel Approach to Nonlinear/Non-Gaussian Bayesian State "
        "Estimation, https://doi.org/10.1049/ip-f-2.1993.0015",
        steps=100,
        applies=applies.anything,
        build=_bootstrap,
    ),
    Method(
        name="mcgdiff",
        family="particles",
        asks="SVD",
        needs="linear-Gaussian factors with white noise and an SVD",
        jacobian=False,
        cost="1 network call a step and particle",
        exact_when="particles and steps grow",
        paper="Cardoso et al. 2024, Monte Carlo guided Diffusion for Bayesian linear inverse "
        "problems, https://arxiv.org/abs/2308.07983",
        steps=100,
        applies=not_spectral,
        build=_mcgdiff,
    ),
)
