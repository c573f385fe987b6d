"""Particles: weights correct what a likelihood only approximates."""

from __future__ import annotations

from torch import Tensor

from forward_models import ForwardModel, LinearGaussian, TimeDependent
from priors import geometric

from ..lift import Lift, Model, default_lift, linearisable
from ..likelihoods import (
    Draws,
    GaussianLift,
    Isotropic,
    Likelihood,
    Measured,
    MonteCarloLift,
    PlugIn,
    PooledLift,
)
from ..likelihoods.pooled_lift import bears
from ..particles import (
    BestOf,
    DecoupledDiffusion,
    EnsembleKalman,
    FilteringPosterior,
    MCGDiff,
    TwistedFilter,
)
from ..particles.ensemble_kalman import not_observed
from ..particles.spectral import not_linear, not_spectral
from ..posterior import Posterior
from . import applies
from .recipe import Method, Recipe


def _tds(
    posterior: Posterior,
    steps: int,
    *,
    resample_below: float = 0.5,
    order: int = 2,
    twist: Lift | None = None,
    pool: Draws | None = None,
) -> Recipe:
    """`twist`: any lift; by default the posterior's own where it has one, else the rule's, which
    `pool` corrects for linear-Gaussian models of few values."""
    levels = geometric(steps, posterior.sigma_range)
    walk = TwistedFilter(levels, resample_below, order=order)
    if twist is not None and pool is not None:
        raise ValueError("twist and pool are two answers to one question: give one of them")
    if twist is not None:
        return Recipe(posterior.lifted(twist), walk)
    rule = default_lift if pool is None else pooled_lift(pool)
    if pool is not None and pool.prior is not posterior.prior:
        raise ValueError(
            "the pool is of another prior than the posterior; make it of posterior.prior"
        )
    return Recipe(twisted(posterior, rule), walk)


def pooled_lift(pool: Draws) -> Lift:
    """PooledLift for linear-Gaussian models whose values the pool bears, else the default."""
    if not isinstance(pool, Draws):
        raise TypeError(f"pool must be an inverse.Pool, got {type(pool).__name__}")

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, LinearGaussian) and bears(pool, Measured(model, y).size):
            return PooledLift(model, y, pool)
        return default_lift(model, y)

    return lift


def _twistable(posterior: Posterior) -> str | None:
    own = posterior.lift is not default_lift
    return None if own else applies.differentiable(posterior)


def twisted(posterior: Posterior, rule: Lift) -> Posterior:
    """The posterior with its own lift for a twist where it has one, else with the rule's."""
    return posterior.lifted(rule) if posterior.lift is default_lift else posterior


def _bootstrap(
    posterior: Posterior,
    steps: int,
    *,
    resample_below: float = 0.5,
    draws: int = 128,
    order: int = 2,
    twist: Lift | None = None,
) -> Recipe:
    scale = posterior.prior.scale

    def rule(model: Model, y: Tensor) -> Likelihood:
        known = isinstance(model, TimeDependent | LinearGaussian) or linearisable(model)
        if isinstance(model, ForwardModel) and not known:
            return MonteCarloLift(model, y, scale=scale, draws=draws)
        return default_lift(model, y)

    levels = geometric(steps, posterior.sigma_range)
    weighed = twisted(posterior, rule) if twist is None else posterior.lifted(twist)
    return Recipe(weighed, TwistedFilter(levels, resample_below, guided=False, order=order))


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


def _ddsmc(
    posterior: Posterior,
    steps: int,
    *,
    resample_below: float = 0.5,
    spread: float | None = None,
    eta: float = 1.0,
    order: int = 2,
) -> Recipe:
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior, DecoupledDiffusion(levels, resample_below, spread, eta, order))


def _fps(
    posterior: Posterior,
    steps: int,
    *,
    resample_below: float = 0.5,
    eta: float = 1.0,
    order: int = 2,
) -> Recipe:
    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior, FilteringPosterior(levels, resample_below, eta, order))


def _enkg(posterior: Posterior, steps: int, *, inner: int = 10) -> Recipe:
    return Recipe(posterior, EnsembleKalman(geometric(steps, posterior.sigma_range), inner))


def _scg(
    posterior: Posterior,
    steps: int,
    *,
    candidates: int = 8,
    begin: float = 0.25,
    greedy: bool = True,
    resample_below: float = 0.5,
    draws: int = 128,
) -> Recipe:
    scale = posterior.prior.scale

    def rule(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, TimeDependent):
            return default_lift(model, y)
        if greedy:
            return PlugIn(model, y)
        if isinstance(model, LinearGaussian):
            return GaussianLift(model, y, Isotropic(scale))
        return MonteCarloLift(model, y, scale=scale, draws=draws)

    levels = geometric(steps, posterior.sigma_range)
    walk = BestOf(levels, resample_below, candidates, begin, greedy)
    return Recipe(twisted(posterior, rule), walk)


PARTICLES = (
    Method(
        name="tds",
        family="particles",
        asks="gradient",
        needs="a differentiable forward model, or a lift of the caller's own; its likelihood at "
        "every noise level is the twist",
        jacobian=True,
        cost="1 network call a step and particle; M vector-Jacobian products for M <= 32 values, "
        "else up to 11, 8 of them for the log-determinant; 1 for densities without independent "
        "noise, none for models known at every level; a pool's calls once",
        exact_when="particles and steps grow",
        paper="Wu et al. 2023, Practical and Asymptotically Exact Conditional Sampling in "
        "Diffusion Models, https://arxiv.org/abs/2306.17775",
        steps=100,
        applies=_twistable,
        build=_tds,
    ),
    Method(
        name="bootstrap",
        family="particles",
        asks="black box",
        needs="any forward model; the twist weighs, but does not guide",
        jacobian=True,
        cost="1 network call a step and particle; the vector-Jacobian products of tds where y is "
        "linear or differentiable with independent noise, none for others, such as black boxes",
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
    Method(
        name="ddsmc",
        family="particles",
        asks="SVD",
        needs="linear-Gaussian factors with white noise and an SVD",
        jacobian=False,
        cost="1 network call a step and particle",
        exact_when="particles and steps grow",
        paper="Ekstrom Kelvinius et al. 2025, Solving Linear-Gaussian Bayesian Inverse Problems "
        "with Decoupled Diffusion Sequential Monte Carlo, https://arxiv.org/abs/2502.06379",
        steps=100,
        applies=not_spectral,
        build=_ddsmc,
    ),
    Method(
        name="fps",
        family="particles",
        asks="adjoint",
        needs="linear-Gaussian factors; fast with an SVD or a closed-form solve",
        jacobian=False,
        cost="1 network call and 2 solves a step and particle",
        exact_when="the noise of y vanishes, as particles and steps grow; else too narrow, as y "
        "counts once a level",
        paper="Dou and Song 2024, Diffusion Posterior Sampling for Linear Inverse Problem "
        "Solving: A Filtering Perspective, https://openreview.net/forum?id=tplXNcHZs1",
        steps=1000,
        applies=not_linear,
        build=_fps,
    ),
    Method(
        name="enkg",
        family="particles",
        asks="black box",
        needs="an operator, differentiable or not, with independent noise; 2 particles or more",
        jacobian=False,
        cost="up to 1 + inner = 11 network calls and 1 operator a step and particle, fewer at the "
        "last levels",
        exact_when="the prior is Gaussian and the factors linear-Gaussian, as particles and "
        "steps grow",
        paper="Zheng et al. 2024, Ensemble Kalman Diffusion Guidance, "
        "https://arxiv.org/abs/2409.20175",
        steps=80,
        applies=not_observed,
        build=_enkg,
    ),
    Method(
        name="scg",
        family="particles",
        asks="black box",
        needs="any forward model that can be evaluated",
        jacobian=False,
        cost="n = 8 network calls and likelihoods a step and particle, after the first quarter; 1 "
        "network call before, and at the last step",
        exact_when="never as published; with greedy=False as particles and steps grow",
        paper="Huang et al. 2024, Symbolic Music Generation with Non-Differentiable Rule Guided "
        "Diffusion, https://arxiv.org/abs/2402.14285",
        steps=100,
        applies=applies.anything,
        build=_scg,
    ),
)
