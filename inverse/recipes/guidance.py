"""Guidance: a likelihood at every noise level, under any sampler."""

from __future__ import annotations

from torch import Tensor

from forward_models import LinearGaussian
from priors import VP, geometric

from ..lift import default_lift
from ..likelihoods import GaussianLift, Isotropic, Likelihood, NormalizedPlugIn
from ..posterior import Posterior
from ..samplers import Ancestral, Multistep
from . import applies
from .lifts import lift_of, unit
from .recipe import Method, Recipe


def _dps(posterior: Posterior, steps: int, *, zeta: float = 1.0) -> Recipe:
    width, schedule = unit(posterior.prior), VP()

    def linear(model: LinearGaussian, y: Tensor) -> Likelihood:
        return NormalizedPlugIn(model, y, zeta=zeta, schedule=schedule, steps=steps, unit=width)

    low, high = (s / width for s in posterior.sigma_range)
    high = min(high, float(schedule.sigma(1.0)))
    levels = schedule.levels(steps, (low, high)) * width
    return Recipe(posterior.lifted(lift_of(linear)), Ancestral(levels, eta=1.0))


def _pigdm(posterior: Posterior, steps: int) -> Recipe:
    scale = posterior.prior.scale
    lift = lift_of(lambda model, y: GaussianLift(model, y, Isotropic(s=scale)))
    return Recipe(posterior.lifted(lift), Multistep(geometric(steps, posterior.sigma_range)))


def _mmps(posterior: Posterior, steps: int) -> Recipe:
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior.lifted(default_lift), Multistep(levels))


GUIDANCE = (
    Method(
        name="dps",
        family="guidance",
        asks="gradient",
        needs="a differentiable forward model",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step",
        exact_when="never for linear-Gaussian factors (a normalised step, not a posterior score); "
        "time-dependent factors are exact",
        paper="Chung et al. 2023, Diffusion Posterior Sampling for General Noisy Inverse "
        "Problems, https://arxiv.org/abs/2209.14687",
        steps=1000,
        applies=applies.differentiable,
        build=_dps,
    ),
    Method(
        name="pigdm",
        family="guidance",
        asks="adjoint",
        needs="linear-Gaussian factors; fast with an SVD or a closed-form solve",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step",
        exact_when="the prior is Gaussian with covariance scale^2 I",
        paper="Song et al. 2023, Pseudoinverse-Guided Diffusion Models for Inverse Problems, "
        "https://openreview.net/forum?id=9_gsMA8MRKQ",
        steps=100,
        applies=applies.linear,
        build=_pigdm,
    ),
    Method(
        name="mmps",
        family="guidance",
        asks="gradient",
        needs="linear-Gaussian factors, or others that are differentiable with independent noise, "
        "which are expanded around the denoised image",
        jacobian=True,
        cost="1 network call and up to 3 vector-Jacobian products a step; M for M <= 32 values",
        exact_when="the prior is Gaussian, the factors are linear-Gaussian, the solve converged",
        paper="Rozet et al. 2024, Learning Diffusion Priors from Observations by Expectation "
        "Maximization, https://arxiv.org/abs/2405.13712",
        steps=100,
        applies=applies.gaussian,
        build=_mmps,
    ),
)
