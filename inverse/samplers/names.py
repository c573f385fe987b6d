"""Samplers by name, with settings that suit most priors: for the command line and quick looks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from priors import VP, Prior, grid
from priors.grids import unit_of
from priors.words import did_you_mean

from ..checks import whole
from .adaptive_ode import AdaptiveODE
from .ancestral import Ancestral
from .annealed_langevin import AnnealedLangevin
from .euler_maruyama import EulerMaruyama
from .heun import Heun
from .langevin import Langevin
from .mala import MALA
from .multistep import Multistep
from .predictor_corrector import PredictorCorrector
from .sampler import Sampler
from .settling import Settling
from .spherical import Spherical
from .stochastic_heun import StochasticHeun
from .time_travel import TimeTravel

ON_LEVELS: dict[str, Callable[[Tensor, Prior], Sampler]] = {
    "multistep": lambda levels, prior: Multistep(levels),
    "multistep-ode": lambda levels, prior: Multistep(levels, eta=0.0),
    "multistep-3": lambda levels, prior: Multistep(levels, eta=0.0, order=3),
    "heun": lambda levels, prior: Heun(levels),
    "stochastic-heun": lambda levels, prior: StochasticHeun(levels),
    "ancestral": lambda levels, prior: Ancestral(levels),
    "ddim": lambda levels, prior: Ancestral(levels, eta=0.0),
    "spherical": lambda levels, prior: Spherical(levels),
    "euler-maruyama": lambda levels, prior: EulerMaruyama(levels),
    "euler-maruyama-vp": lambda levels, prior: EulerMaruyama(levels, VP(), unit_of(prior)),
    "predictor-corrector": lambda levels, prior: PredictorCorrector(Ancestral(levels)),
    "time-travel": lambda levels, prior: TimeTravel(Ancestral(levels)),
    "annealed-langevin": lambda levels, prior: AnnealedLangevin(levels),
    "langevin": lambda levels, prior: Settling(
        Multistep(levels), Langevin(float(levels[-2]), *_pace(levels))
    ),
    "mala": lambda levels, prior: Settling(
        Multistep(levels), MALA(float(levels[-2]), *_pace(levels))
    ),
}
"""Samplers of the levels that they go through."""

NAMES = (*ON_LEVELS, "adaptive-ode")


def named(name: str, prior: Prior, steps: int = 100, levels: str = "geometric") -> Sampler:
    """The sampler called `name` for this prior.

    Args:
        name: one of NAMES. `predictor-corrector` corrects once after each ancestral step,
            `time-travel` walks each of them twice, `annealed-langevin` takes 5 steps at each
            level; `langevin` and `mala` walk down by `multistep` and then take as many steps of
            size sigma^2 / 10 at the smallest level; `adaptive-ode` chooses its own steps.
        steps: noise levels; network calls are `.network_calls`.
        levels: how they are spread over the prior's range, a key of `priors.GRIDS`.
    Raises:
        ValueError: an unknown name, with the known ones; steps below 1.
    """
    if name not in NAMES:
        known = f"{', '.join(NAMES)}{did_you_mean(name, NAMES)}"
        raise ValueError(f"unknown sampler {name!r}; known: {known}")
    held = grid(levels, whole(steps, "steps"), prior)
    return ON_LEVELS[name](held, prior) if name in ON_LEVELS else AdaptiveODE(prior.sigma_range)


def _pace(levels: Tensor) -> tuple[float, int]:
    """Step size and number of Langevin steps at the smallest positive level."""
    return 0.1 * float(levels[-2]) ** 2, len(levels) - 1
