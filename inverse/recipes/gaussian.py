"""Gaussian moment matching: p(x0 | x) taken as a Gaussian. The covariance is the method."""

from __future__ import annotations

import torch
from torch import Tensor

from forward_models import IndependentNoise, LinearGaussian, Observation, TimeDependent
from priors import Covariance, Gaussian, geometric, karras
from priors.grids import unit_of

from ..checks import flag, positive, whole
from ..lift import Model, default_lift, linearisable
from ..likelihoods import (
    AssumedCovariance,
    DiagonalTweedie,
    FixedPrior,
    GaussianLift,
    Isotropic,
    Likelihood,
    LinearisedLift,
    Measured,
    SigmaPointLift,
    Switched,
    Tabulated,
    Tweedie,
)
from ..posterior import Posterior
from ..samplers import Ancestral, Heun, Multistep
from . import applies
from .lifts import lift_of, vp_levels
from .recipe import Method, Recipe

FULL = 64
"""Measured values up to which TMPD assembles its covariance whole."""


def _pigdm(posterior: Posterior, steps: int) -> Recipe:
    scale = posterior.prior.scale
    lift = lift_of(lambda model, y: GaussianLift(model, y, Isotropic(s=scale)))
    return Recipe(posterior.lifted(lift), Multistep(geometric(steps, posterior.sigma_range)))


def _mmps(posterior: Posterior, steps: int, *, iterations: int | None = None) -> Recipe:
    covariance = Tweedie(None if iterations is None else whole(iterations, "iterations"))

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, LinearGaussian):
            return GaussianLift(model, y, covariance)
        if isinstance(model, Observation) and linearisable(model):
            return LinearisedLift(model, y, covariance)
        return default_lift(model, y)

    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior.lifted(lift), Multistep(levels))


def _tmpd(posterior: Posterior, steps: int, *, full: int = FULL) -> Recipe:
    whole(full, "full", least=0)
    levels = vp_levels(posterior, steps)
    diagonal = DiagonalTweedie(tuple(levels.tolist()))

    def linear(model: LinearGaussian, y: Tensor) -> Likelihood:
        small = 0 < Measured(model, y).size <= full
        return GaussianLift(model, y, Tweedie(dense=full) if small else diagonal)

    return Recipe(posterior.lifted(lift_of(linear)), Ancestral(levels))


def _jfps(
    posterior: Posterior, steps: int, *, covariance: Covariance | Tensor | float | None = None
) -> Recipe:
    prior = posterior.prior
    if isinstance(covariance, int | float):
        positive(covariance, "covariance")
    if covariance is None:
        covariance = prior.C if isinstance(prior, Gaussian) else prior.scale**2
    assumed = FixedPrior(covariance)
    lift = lift_of(lambda model, y: GaussianLift(model, y, assumed))
    return Recipe(posterior.lifted(lift), Multistep(geometric(steps, posterior.sigma_range)))


def _tabulated(
    posterior: Posterior,
    steps: int,
    *,
    table: Tabulated | None = None,
    jacobian: bool = True,
    threshold: float | None = 0.2,
) -> Recipe:
    if threshold is not None:
        positive(threshold, "threshold")
    flag(jacobian, "jacobian")
    if not isinstance(table, Tabulated | None):
        raise TypeError(f"table must be a likelihoods.Tabulated, got {type(table).__name__}")
    levels = karras(steps, posterior.sigma_range)
    assumed: AssumedCovariance = table or Tabulated.measure(
        posterior.prior,
        geometric(20, posterior.sigma_range)[:-1].flip(0),
        generator=torch.Generator().manual_seed(0),
    )
    if threshold is not None:
        assert isinstance(assumed, Tabulated)
        wide = Isotropic(s=posterior.prior.scale)
        assumed = Switched(assumed, wide, threshold * unit_of(posterior.prior))
    lift = lift_of(lambda model, y: GaussianLift(model, y, assumed, jacobian))
    return Recipe(posterior.lifted(lift), Heun(levels))


def _drawable(posterior: Posterior, table: Tabulated | None = None) -> str | None:
    if table is None and not hasattr(posterior.prior, "sample"):
        return (
            f"{type(posterior.prior).__name__} has no exact draws to measure its denoising error "
            "on; measure it on images and pass table=likelihoods.Tabulated.measure(prior, levels, "
            "images, generator=...)"
        )
    return applies.linear(posterior)


def _observed(posterior: Posterior) -> str | None:
    for model, _ in posterior.factors:
        known = isinstance(model, TimeDependent | LinearGaussian)
        if not known and not (
            isinstance(model, Observation) and isinstance(model.noise, IndependentNoise)
        ):
            return f"{type(model).__name__} is no Observation with independent noise"
    return None


def _unscented(posterior: Posterior, steps: int, *, directions: int = 32) -> Recipe:
    whole(directions, "directions")

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, Observation) and not isinstance(model, LinearGaussian):
            return SigmaPointLift(model, y, directions=directions)
        return default_lift(model, y)

    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior.lifted(lift), Multistep(levels))


GAUSSIAN = (
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
        deviates="2M-SDE steps for the paper's DDIM; iterations of least residual for its GMRES or "
        "conjugate gradients, 3 by default (1 to 5 in the paper), an exact solve up to 32 values",
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
        deviates="2M-SDE steps on its score, for the paper's DDIM; its released code adds "
        "alpha alpha' r^2 grad log p whatever the length of a step; r by the prior's scale",
    ),
    Method(
        name="tmpd",
        family="guidance",
        asks="adjoint",
        needs="linear-Gaussian factors; the full covariance up to 64 measured values, its row "
        "sums beyond",
        jacobian=True,
        cost="1 network call and M vector-Jacobian products a step; 2 beyond 64 values",
        exact_when="the prior is Gaussian and the covariance full",
        paper="Boys et al. 2024, Tweedie Moment Projected Diffusions for Inverse Problems, "
        "https://arxiv.org/abs/2310.06721",
        steps=1000,
        applies=applies.linear,
        build=_tmpd,
        deviates="the full covariance up to 64 measured values alone (`full`); beyond, no step "
        "overshoots the measurement, as it would for a dense operator",
    ),
    Method(
        name="jfps",
        family="guidance",
        asks="adjoint",
        needs="linear-Gaussian factors; a covariance of the prior (by default that of a Gaussian, "
        "else scale^2 I)",
        jacobian=False,
        cost="1 network call a step",
        exact_when="the prior is Gaussian with that covariance",
        paper="Rozet, azula: diffusion models in PyTorch, https://github.com/probabilists/azula",
        steps=100,
        applies=applies.linear,
        build=_jfps,
        deviates="2M-SDE steps; the covariance by default scale^2 I where the prior is no Gaussian",
    ),
    Method(
        name="optimal-covariance",
        family="guidance",
        asks="adjoint",
        needs="linear-Gaussian factors; a prior with exact draws, or `table`, its error on images",
        jacobian=True,
        cost="2 network calls and 2 vector-Jacobian products a step",
        exact_when="the prior is Gaussian with covariance scale^2 I",
        paper="Peng et al. 2024, Improving Diffusion Models for Inverse Problems Using Optimal "
        "Posterior Covariance, https://arxiv.org/abs/2402.02149",
        steps=50,
        applies=_drawable,
        build=_tabulated,
        deviates="the table below sigma = 0.2 (units of the network) and PiGDM's covariance above "
        "are the paper's; `threshold=None` is the table at all noise levels, which diverges on "
        "images at few steps",
    ),
    Method(
        name="unscented",
        family="guidance",
        asks="black box",
        needs="observations with independent noise; their operators are only evaluated",
        jacobian=True,
        cost="1 network call a step; n vector-Jacobian products for images of n <= 32 values, 96 "
        "beyond",
        exact_when="the prior is Gaussian and the factors are linear-Gaussian",
        paper="Julier and Uhlmann 1997, A New Extension of the Kalman Filter to Nonlinear Systems, "
        "https://doi.org/10.1117/12.280797",
        steps=100,
        applies=_observed,
        build=_unscented,
        deviates="the paper is of filters in time, not of diffusion",
    ),
)
