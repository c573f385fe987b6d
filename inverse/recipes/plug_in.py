"""Plug-in guidance: p(y | x0) evaluated at the denoised image."""

from __future__ import annotations

from torch import Tensor

from forward_models import LinearGaussian
from priors import VP, geometric

from ..likelihoods import GaussianLift, Likelihood, NormalizedPlugIn, Zero
from ..posterior import Posterior
from ..samplers import Ancestral, Multistep
from . import applies
from .lifts import lift_of, unit, vp_levels
from .recipe import Method, Recipe


def _dps(posterior: Posterior, steps: int, *, zeta: float = 1.0) -> Recipe:
    width, schedule = unit(posterior.prior), VP()

    def linear(model: LinearGaussian, y: Tensor) -> Likelihood:
        return NormalizedPlugIn(model, y, zeta=zeta, schedule=schedule, steps=steps, unit=width)

    return Recipe(posterior.lifted(lift_of(linear)), Ancestral(vp_levels(posterior, steps)))


def _plug_in(posterior: Posterior, steps: int) -> Recipe:
    lift = lift_of(lambda model, y: GaussianLift(model, y, Zero()))
    return Recipe(posterior.lifted(lift), Multistep(geometric(steps, posterior.sigma_range)))


PLUG_IN = (
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
        name="plug-in",
        family="guidance",
        asks="gradient",
        needs="a differentiable forward model; stiff where its noise is small",
        jacobian=True,
        cost="1 network call and 1 vector-Jacobian product a step",
        exact_when="never: the denoised image is taken for the truth, which over-fits y",
        paper="Chung et al. 2023, Diffusion Posterior Sampling for General Noisy Inverse "
        "Problems, https://arxiv.org/abs/2209.14687 (the step that its normalised one replaces)",
        steps=1000,
        applies=applies.differentiable,
        build=_plug_in,
    ),
)
