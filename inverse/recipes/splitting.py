"""Splitting: denoise, a data step, renoise."""

from __future__ import annotations

from priors import geometric

from ..likelihoods import GaussianLift, Isotropic
from ..posterior import Posterior
from ..samplers import Ancestral
from . import applies
from .lifts import lift_of
from .recipe import Method, Recipe


def _diffpir(posterior: Posterior, steps: int, *, lam: float = 8.0, zeta: float = 0.3) -> Recipe:
    covariance = Isotropic(scale=1 / lam)
    lift = lift_of(lambda model, y: GaussianLift(model, y, covariance, jacobian=False))
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior.lifted(lift), Ancestral(levels, zeta=zeta))


SPLITTING = (
    Method(
        name="diffpir",
        family="splitting",
        asks="adjoint",
        needs="linear-Gaussian factors; fast with an SVD or a closed-form solve",
        jacobian=False,
        cost="1 network call a step",
        exact_when="never; a point estimate with spread, best judged by its mean",
        paper="Zhu et al. 2023, Denoising Diffusion Models for Plug-and-Play Image Restoration, "
        "https://arxiv.org/abs/2305.08995",
        steps=100,
        applies=applies.linear,
        build=_diffpir,
    ),
)
