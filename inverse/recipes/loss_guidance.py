"""Guidance by losses and draws: what trains nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from forward_models import ForwardModel, LinearGaussian
from priors import VP, geometric
from priors.grids import unit_of

from ..checks import between, flag, positive, whole
from ..likelihoods import (
    Likelihood,
    MonteCarloLift,
    ScoreALD,
    TrainingFree,
)
from ..likelihoods.loss_guidance import Weight, constant
from ..posterior import Posterior
from ..samplers import Ancestral, AnnealedLangevin, Spherical, TimeTravel
from . import applies
from .lifts import clean, lift_of, vp_levels
from .recipe import Method, Recipe


def tabulated(levels: Tensor, values: Tensor) -> Weight:
    """The value that belongs to the nearest of the decreasing levels, in the ratio of the two."""
    logs, ordered = levels.log().flip(0), values.flip(0)
    middles = (logs[1:] + logs[:-1]) / 2

    def weight(sigma: Tensor) -> Tensor:
        place = torch.bucketize(sigma.double().clamp(min=1e-300).log().cpu(), middles)
        return ordered[place].to(sigma)

    return weight


def growing(levels: Tensor, width: float) -> Tensor:
    """alpha_t = abar_t / abar_(t-1) of each step (VP), over their mean: it grows towards t = 0."""
    variance = 1 + (levels / width) ** 2
    ratio = variance[1:] / variance[:-1]
    return ratio / ratio.mean()


def _lgd(posterior: Posterior, steps: int, *, draws: int = 10, bounded: bool = True) -> Recipe:
    scale = posterior.prior.scale
    whole(draws, "draws")
    flag(bounded, "bounded")
    lift = clean(
        lambda model, y: MonteCarloLift(model, y, scale=scale, draws=draws, bounded=bounded)
    )
    return Recipe(posterior.lifted(lift), Ancestral(vp_levels(posterior, steps), eta=1.0))


def _mpgd(
    posterior: Posterior, steps: int, *, c: float = 1.0, eta: float = 0.5, bounded: bool = True
) -> Recipe:
    width = unit_of(posterior.prior)
    positive(c, "c")
    flag(bounded, "bounded")
    between(eta, "eta", 0, 1)

    def mu(sigma: Tensor) -> Tensor:
        return c * width**2 * (1 + (sigma / width) ** 2).sqrt()

    lift = clean(lambda model, y: TrainingFree(model, y, mu=mu, bounded=bounded))
    levels = vp_levels(posterior, steps)
    return Recipe(posterior.lifted(lift), Ancestral(levels, eta=eta, keep_noise=True))


def _dsg(posterior: Posterior, steps: int, *, ratio: float = 0.2, eta: float = 1.0) -> Recipe:
    positive(eta, "eta")
    between(ratio, "ratio", 0, 1)
    lift = clean(lambda model, y: TrainingFree(model, y, rho=constant(1.0), relative=True))
    return Recipe(posterior.lifted(lift), Spherical(vp_levels(posterior, steps), eta, ratio))


def _freedom(
    posterior: Posterior,
    steps: int,
    *,
    rho: float = 1.0,
    recurrences: int = 5,
    stage: tuple[float, float] = (0.4, 0.7),
) -> Recipe:
    positive(rho, "rho")
    whole(recurrences, "recurrences")
    if len(stage) != 2 or not 0 <= stage[0] < stage[1] <= 1:
        raise ValueError(f"stage must be two times 0 <= low < high <= 1, got {stage!r}")
    lift = clean(lambda model, y: TrainingFree(model, y, rho=constant(rho), relative=True))
    width, schedule = unit_of(posterior.prior), VP()
    low, high = (float(schedule.sigma(t)) * width for t in stage)
    sampler = Ancestral(vp_levels(posterior, steps), eta=1.0)
    walk = TimeTravel(sampler, repeats=recurrences, sigma_range=(low, high))
    return Recipe(posterior.lifted(lift), walk)


def _ugd(
    posterior: Posterior,
    steps: int,
    *,
    w: float = 2.0,
    iterations: int = 1,
    mu: float = 0.01,
    recurrences: int = 2,
    bounded: bool = True,
) -> Recipe:
    positive(w, "w")
    positive(mu, "mu")
    flag(bounded, "bounded")
    whole(iterations, "iterations")
    whole(recurrences, "recurrences")
    step = constant(mu * unit_of(posterior.prior) ** 2)
    lift = clean(
        lambda model, y: TrainingFree(
            model, y, rho=constant(w), mu=step, iterations=iterations, bounded=bounded
        )
    )
    sampler = Ancestral(vp_levels(posterior, steps), eta=0.0)
    return Recipe(posterior.lifted(lift), TimeTravel(sampler, repeats=recurrences))


def _tfg(
    posterior: Posterior,
    steps: int,
    *,
    rho: float = 1.0,
    mu: float = 1.0,
    spread: float = 0.01,
    iterations: int = 1,
    recurrences: int = 1,
    draws: int = 4,
    eta: float = 1.0,
    bounded: bool = True,
) -> Recipe:
    for name, value in {"rho": rho, "mu": mu, "spread": spread}.items():
        between(value, name, 0)
    if rho == mu == 0:
        raise ValueError("rho and mu must not both be 0: nothing would guide")
    counts = {"iterations": iterations, "recurrences": recurrences, "draws": draws}
    for name, count in counts.items():
        whole(count, name)
    between(eta, "eta", 0, 1)
    flag(bounded, "bounded")
    width, levels = unit_of(posterior.prior), vp_levels(posterior, steps)
    above = levels[:-1]
    share = (above / width) ** 2 / (1 + (above / width) ** 2)  # 1 - abar_t
    grows = growing(levels, width)
    values = (rho * grows / share, mu * grows * width**2, spread * share.sqrt() * width)
    rho_, mu_, spread_ = (tabulated(above, v) if bool(v.any()) else None for v in values)

    def guide(model: ForwardModel, y: Tensor) -> Likelihood:
        return TrainingFree(
            model,
            y,
            rho=rho_,
            mu=mu_,
            spread=spread_,
            iterations=iterations,
            draws=draws,
            bounded=bounded,
        )

    lift = clean(guide)
    sampler = Ancestral(levels, eta=eta, keep_noise=True)
    return Recipe(posterior.lifted(lift), TimeTravel(sampler, repeats=recurrences))


def _score_ald(
    posterior: Posterior, steps: int, *, gamma: float = 1.0, steps_per_level: int = 3
) -> Recipe:
    positive(gamma, "gamma")
    whole(steps_per_level, "steps_per_level")

    def annealed(model: LinearGaussian, y: Tensor) -> Likelihood:
        return ScoreALD(model, y, gamma)

    levels = geometric(steps, posterior.sigma_range)
    return Recipe(posterior.lifted(lift_of(annealed)), AnnealedLangevin(levels, steps_per_level))


def _method(
    name: str,
    build: Callable[..., Recipe],
    steps: int,
    cost: str,
    paper: str,
    jacobian: bool,
    deviates: str,
) -> Method:
    return Method(
        name=name,
        family="guidance",
        asks="gradient",
        needs="a differentiable forward model, or any differentiable loss (Energy)",
        jacobian=jacobian,
        cost=cost,
        exact_when="never for models of clean images",
        paper=paper,
        steps=steps,
        applies=applies.differentiable,
        build=build,
        deviates=deviates,
        own_sampler=name != "lgd",  # which is a score
    )


SHORTENED = "steps that would lower the likelihood are shortened (`bounded=False`: never)"

LOSS_GUIDANCE = (
    _method(
        "lgd", _lgd, 1000, "1 network call and 1 vector-Jacobian product a step",
        "Song et al. 2023, Loss-Guided Diffusion Models for Plug-and-Play Controllable Generation, "
        "https://proceedings.mlr.press/v202/song23k.html", True,
        f"one set of draws a level, scattered by the prior's scale; {SHORTENED}",
    ),
    _method(
        "mpgd", _mpgd, 100, "1 network call a step",
        "He et al. 2024, Manifold Preserving Guided Diffusion, https://arxiv.org/abs/2311.16424",
        False,
        f"no autoencoder projects x0; {SHORTENED}",
    ),
    _method(
        "dsg", _dsg, 100, "1 network call and 1 vector-Jacobian product a step",
        "Yang et al. 2024, Guidance with Spherical Gaussian Constraint for Conditional Diffusion, "
        "https://arxiv.org/abs/2402.03201", True,
        "ratio 0.2, the upper end of the paper's 0.1 to 0.2",
    ),
    _method(
        "freedom", _freedom, 100,
        "1 network call and 1 vector-Jacobian product a step; `recurrences` of each in the stage",
        "Yu et al. 2023, FreeDoM: Training-Free Energy-Guided Conditional Diffusion Model, "
        "https://arxiv.org/abs/2303.09833", True,
        "rho, recurrences and stage are one choice; the paper's differ from task to task",
    ),
    _method(
        "ugd", _ugd, 100, "`recurrences` network calls and vector-Jacobian products a step",
        "Bansal et al. 2023, Universal Guidance for Diffusion Models, "
        "https://arxiv.org/abs/2302.07121", True,
        f"w, mu and recurrences are one choice for all tasks; {SHORTENED}",
    ),
    _method(
        "tfg", _tfg, 100, "`recurrences` network calls and vector-Jacobian products a step",
        "Ye et al. 2024, TFG: Unified Training-Free Guidance for Diffusion Models, "
        "https://arxiv.org/abs/2409.15761", True,
        f"rho, mu and spread are the paper's start, without its search by task; {SHORTENED}",
    ),
    Method(
        name="score-ald",
        family="guidance",
        asks="adjoint",
        needs="linear-Gaussian factors",
        jacobian=False,
        cost="`steps_per_level` network calls a level",
        exact_when="never: the likelihood is evaluated at the noisy image",
        paper="Jalal et al. 2021, Robust Compressed Sensing MRI with Deep Generative Priors, "
        "https://arxiv.org/abs/2108.01368",
        steps=500,
        applies=applies.linear,
        build=_score_ald,
        deviates="500 geometric levels and steps in proportion to sigma^2; the paper's code has "
        "2311 levels from sigma = 232 and a rate of 3e-5",
    ),
)  # fmt: skip
