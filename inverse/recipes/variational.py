"""Optimisation: one image, or the noise it grows from, fitted to the measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from forward_models import TimeDependent
from priors import VP
from priors.grids import unit_of

from ..checks import between
from ..posterior import Posterior
from ..variational import DFlow, DMPlug, REDDiff
from ..variational.d_flow import flow_levels
from ..variational.misfit import linear_factor
from . import applies
from .lifts import vp_levels
from .recipe import Method, Recipe


def clean(posterior: Posterior) -> str | None:
    """Why p(y | x0) has no gradient at a clean image, or None."""
    for model, _ in posterior.factors:
        if isinstance(model, TimeDependent):
            return (
                f"{type(model).__name__} is of noisy images, and what is optimised is a clean one; "
                "give a forward model of clean images"
            )
    return applies.differentiable(posterior)


def size(posterior: Posterior) -> float:
    """The unit of a map's noise levels: half the data range, or where there is none the scale."""
    prior = posterior.prior
    return prior.scale if prior.data_range is None else unit_of(prior)


def leading(posterior: Posterior, steps: int) -> Tensor:
    """The levels of DDIM steps at the starts of as many equal spans of VP time, then 0.

    Three of them are at t = 2/3, 1/3 and 0 of the schedule, as the released code has them; where
    the prior's noise levels end earlier, of the time they end at.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise ValueError(f"ddim must be an integer >= 2, got {steps!r}")
    width, schedule = size(posterior), VP()
    low, high = (s / width for s in posterior.sigma_range)
    end = min(float(schedule.t(high)), 1.0)
    times = end * torch.arange(steps - 1, 0, -1, dtype=torch.float64) / steps
    return torch.cat([schedule.sigma(times), torch.tensor([low, 0.0], dtype=torch.float64)]) * width


def _red_diff(
    posterior: Posterior, steps: int, *, weight: float = 0.25, rate: float = 0.1
) -> Recipe:
    return Recipe(
        posterior, REDDiff(vp_levels(posterior, steps), unit_of(posterior.prior), weight, rate)
    )


def _dmplug(
    posterior: Posterior, steps: int, *, ddim: int = 3, rate: float = 0.01, recompute: bool = False
) -> Recipe:
    return Recipe(posterior, DMPlug(leading(posterior, ddim), steps, rate, recompute))


def _d_flow(
    posterior: Posterior,
    steps: int,
    *,
    ode: int = 6,
    penalty: float = 1.0,
    blend: float = 0.1,
    recompute: bool = True,
) -> Recipe:
    width = size(posterior)
    levels = flow_levels(ode, posterior.sigma_range[1], width)
    between(blend, "blend", 0, 1)
    blend = 0.0 if linear_factor(posterior) is None else blend
    return Recipe(posterior, DFlow(levels, steps, width, penalty, blend, recompute=recompute))


VARIATIONAL = (
    Method(
        name="red-diff",
        family="variational",
        asks="gradient",
        needs="a differentiable forward model of clean images; its norm near 1, or another weight",
        jacobian=False,
        cost="1 network call a step",
        exact_when="never: a point estimate that seeks a mode; its samples' spread is no "
        "posterior's",
        paper="Mardani et al. 2024, A Variational Perspective on Solving Inverse Problems with "
        "Diffusion Models, https://arxiv.org/abs/2305.04391",
        steps=1000,
        applies=clean,
        build=_red_diff,
    ),
    Method(
        name="dmplug",
        family="variational",
        asks="gradient",
        needs="a differentiable forward model of clean images",
        jacobian=True,
        cost="3 network calls and 3 vector-Jacobian products a step, for the 3 steps of its map; "
        "6 and 3 with recompute",
        exact_when="never: the best fit to y among what the map makes; many steps fit the noise",
        paper="Wang et al. 2024, DMPlug: A Plug-in Method for Solving Inverse Problems with "
        "Diffusion Models, https://arxiv.org/abs/2405.16749",
        steps=5000,
        applies=clean,
        build=_dmplug,
    ),
    Method(
        name="d-flow",
        family="variational",
        asks="gradient",
        needs="a differentiable forward model of clean images",
        jacobian=True,
        cost="24 network calls and 12 vector-Jacobian products a step, for the 6 steps of its "
        "map; 12 and 12 without recompute; 12 calls more where it starts from y",
        exact_when="never: the most likely y among images of noise of typical norm",
        paper="Ben-Hamu et al. 2024, D-Flow: Differentiating through Flows for Controlled "
        "Generation, https://arxiv.org/abs/2402.14017",
        steps=400,
        applies=clean,
        build=_d_flow,
    ),
)
