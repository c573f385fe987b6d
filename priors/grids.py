"""Grids of noise levels: `steps` levels from the largest to the smallest of a range, then 0.

The last interval leads from the smallest level to 0, so that `steps` network calls end at a clean
image. No level lies outside of the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .network import NetworkPrior
from .prior import Prior
from .schedule import VP, Cosine, Flow, Schedule, SubVP, check_grid
from .words import did_you_mean

SigmaRange = tuple[float, float]


def karras(steps: int, sigma_range: SigmaRange, rho: float = 7.0) -> Tensor:
    """steps + 1 levels, uniform in sigma^(1/rho), then 0: most steps go to small noise.

    Paper: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
    2022, https://arxiv.org/abs/2206.00364
    """
    low, high = check_grid(steps, sigma_range)
    ramp = torch.linspace(high ** (1 / rho), low ** (1 / rho), steps, dtype=torch.float64)
    return _ended(ramp**rho, low, high)


def geometric(steps: int, sigma_range: SigmaRange) -> Tensor:
    """steps + 1 levels, uniform in log sigma, then 0."""
    low, high = check_grid(steps, sigma_range)
    ramp = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64)
    return _ended(ramp.exp(), low, high)


def uniform_time(
    steps: int, sigma_range: SigmaRange, schedule: Schedule, unit: float = 1.0
) -> Tensor:
    """steps + 1 levels, uniform in a schedule's time, then 0.

    Args:
        unit: what is 1 in the schedule's levels, data units; half the data range for networks of
            images in [-1, 1].
    """
    low, high = check_grid(steps, sigma_range)
    levels = schedule.levels(steps, (low / unit, high / unit)) * unit
    return _ended(levels[:-1], low, high)


def uniform_alpha(steps: int, sigma_range: SigmaRange, unit: float = 1.0) -> Tensor:
    """steps + 1 levels, uniform in alpha = 1 / sqrt(1 + (sigma / unit)^2), then 0.

    alpha is the scale of the signal under variance preservation, sqrt(abar) in the papers.

    Args:
        unit: see `uniform_time`.
    """
    low, high = check_grid(steps, sigma_range)
    ends = [1 / math.sqrt(1 + (sigma / unit) ** 2) for sigma in (high, low)]
    alpha = torch.linspace(ends[0], ends[1], steps, dtype=torch.float64)
    return _ended(unit * ((1 - alpha) * (1 + alpha)).sqrt() / alpha, low, high)


def levels_of(scheduler: Any, steps: int, prior: Prior) -> Tensor:
    """The noise levels of a diffusers scheduler's own timesteps, data units, then 0.

    The scheduler is asked for `steps` inference steps (a copy of it; the caller's is untouched),
    and its times turned into levels by its law of the noise, as `priors.load` does. Each level
    counts once, where a scheduler of second order names it twice or nearly so; levels outside of
    the prior's range are held at its ends. So there may be fewer or more than steps + 1.

    Args:
        scheduler: any that `priors.load` reads, such as `DDIMScheduler` or
            `EulerDiscreteScheduler(use_karras_sigmas=True)`.
        prior: whose noise levels and units count.
    Raises:
        ValueError: another scheduler, with those known.
    """
    from .pretrained.diffusers_schedulers import SCHEDULERS, noise_law

    check_grid(steps, prior.sigma_range)
    name = type(scheduler).__name__
    if name not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {name}; known: {', '.join(SCHEDULERS)}")
    law = noise_law(name, dict(scheduler.config))
    twin = type(scheduler).from_config(scheduler.config)
    twin.set_timesteps(steps)
    if law.parametrization == "score":  # whose times only count the steps
        twin.set_sigmas(steps)
        own = twin.sigmas.double()
    else:
        own = law.time.sigma(twin.timesteps.double())
    low, high = prior.sigma_range
    levels = (own.cpu() * unit_of(prior)).clamp(low, high).sort(descending=True).values
    distinct = torch.ones(len(levels), dtype=torch.bool)
    distinct[1:] = levels[1:] < levels[:-1] * (1 - 3e-4)
    return torch.cat([levels[distinct], levels.new_zeros(1)])


def unit_of(prior: Prior) -> float:
    """Data units per unit of the network, in which papers state their constants.

    Of a network the width of the data range over that of its `network_range`: half the data range
    where it sees images in [-1, 1]. Of other priors half the data range, or 1 where there is none.
    Of a prior that is made of another, that one's.
    """
    for part in ("prior", "conditional"):
        inner = getattr(prior, part, None)
        if isinstance(inner, Prior):
            return unit_of(inner)
    if isinstance(prior, NetworkPrior):
        return prior.unit
    return 1.0 if prior.data_range is None else (prior.data_range[1] - prior.data_range[0]) / 2


def _in_time(schedule: Schedule) -> Callable[[int, SigmaRange, float], Tensor]:
    return lambda steps, sigma_range, unit: uniform_time(steps, sigma_range, schedule, unit)


GRIDS: dict[str, Callable[[int, SigmaRange, float], Tensor]] = {
    "karras": lambda steps, sigma_range, unit: karras(steps, sigma_range),
    "geometric": lambda steps, sigma_range, unit: geometric(steps, sigma_range),
    "uniform-alpha": uniform_alpha,
    "vp": _in_time(VP()),
    "sub-vp": _in_time(SubVP()),
    "cosine": _in_time(Cosine()),
    "flow": _in_time(Flow()),
}
"""Grids by name: of steps, sigma_range and unit; those named after a schedule are uniform in its
time, which for VE is geometric."""


def grid(name: str, steps: int, prior: Prior) -> Tensor:
    """The grid called `name` (a key of GRIDS) over a prior's noise levels, in its units.

    Raises ValueError: an unknown name, with the known ones; steps below 1.
    """
    if name not in GRIDS:
        known = f"{', '.join(GRIDS)}{did_you_mean(name, GRIDS)}"
        raise ValueError(f"unknown grid of levels {name!r}; known: {known}")
    return GRIDS[name](steps, prior.sigma_range, unit_of(prior))


def _ended(levels: Tensor, low: float, high: float) -> Tensor:
    """The levels with ends free of rounding, then 0."""
    levels = levels.clone()
    levels[-1] = low
    levels[0] = high
    return torch.cat([levels, levels.new_zeros(1)])
