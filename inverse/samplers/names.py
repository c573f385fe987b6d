"""Samplers by name, with settings that suit most priors: for the command line and quick looks."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from priors import Prior, geometric

from .ancestral import Ancestral
from .annealed_langevin import AnnealedLangevin
from .euler_maruyama import EulerMaruyama
from .heun import Heun
from .langevin import Langevin, whole
from .multistep import Multistep
from .predictor_corrector import PredictorCorrector
from .sampler import Sampler

SigmaRange = tuple[float, float]


def _langevin(steps: int, levels: SigmaRange) -> Sampler:
    return Langevin(levels[0], 0.1 * levels[0] ** 2, steps)


NAMES: dict[str, Callable[[int, SigmaRange], Sampler]] = {
    "multistep": lambda steps, levels: Multistep(geometric(steps, levels)),
    "heun": lambda steps, levels: Heun(geometric(steps, levels)),
    "ancestral": lambda steps, levels: Ancestral(geometric(steps, levels)),
    "ddim": lambda steps, levels: Ancestral(geometric(steps, levels), eta=0.0),
    "euler-maruyama": lambda steps, levels: EulerMaruyama(geometric(steps, levels)),
    "predictor-corrector": lambda steps, levels: PredictorCorrector(
        Ancestral(geometric(steps, levels))
    ),
    "annealed-langevin": lambda steps, levels: AnnealedLangevin(geometric(steps, levels)),
    "langevin": _langevin,
}


def named(name: str, prior: Prior, steps: int = 100) -> Sampler:
    """The sampler called `name` for this prior, over `steps` noise levels of its range, geometric.

    Args:
        name: a key of NAMES. `predictor-corrector` corrects once after each ancestral step,
            `annealed-langevin` takes 5 steps at each level, `langevin` takes `steps` steps of size
            sigma^2 / 10 at the smallest level alone.
        steps: noise levels; network calls are `.network_calls`.
    Raises:
        ValueError: an unknown name, with the known ones; steps below 1.
    """
    if name not in NAMES:
        close = difflib.get_close_matches(str(name), NAMES, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown sampler {name!r}; known: {', '.join(NAMES)}{hint}")
    return NAMES[name](whole(steps, "steps"), prior.sigma_range)
