"""Every particle method by name, on the problems of `problems.py`: one line a class."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inverse.particles import (
    BestOf,
    DecoupledDiffusion,
    EnsembleKalman,
    FilteringPosterior,
    MCGDiff,
    ParticleMethod,
    TwistedFilter,
)

PARTICLES: dict[str, Callable[[Tensor], ParticleMethod]] = {
    "twisted": TwistedFilter,
    "twisted-order-1": lambda levels: TwistedFilter(levels, order=1),
    "bootstrap": lambda levels: TwistedFilter(levels, guided=False),
    "mcgdiff": MCGDiff,
    "ddsmc": DecoupledDiffusion,
    "fps": FilteringPosterior,
    "best-of": lambda levels: BestOf(levels, candidates=2, begin=0.0, greedy=False),
    "ensemble-kalman": lambda levels: EnsembleKalman(levels, inner=3),
}

ROUGH = {"twisted-order-1", "best-of", "ensemble-kalman", "fps"}
"""Those whose evidence is far off, as steps of order 1 or a plug-in twist make it, or unknown."""

GAUSSIAN = {"ensemble-kalman"}
"""Those that are exact for Gaussian priors alone, so that two modes get other weights."""

SEVERAL_CALLS = {"best-of", "ensemble-kalman"}
"""Those that call the network more than once a step."""
