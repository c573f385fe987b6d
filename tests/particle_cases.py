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
from inverse.samplers import EulerMaruyama, Multistep

PARTICLES: dict[str, Callable[[Tensor], ParticleMethod]] = {
    "twisted": TwistedFilter,
    "twisted-order-1": lambda levels: TwistedFilter(levels, order=1),
    "twisted-euler": lambda levels: TwistedFilter(levels, proposal=EulerMaruyama(levels)),
    "twisted-3m": lambda levels: TwistedFilter(levels, proposal=Multistep(levels, 0.7, 3)),
    "bootstrap": lambda levels: TwistedFilter(levels, guided=False),
    "mcgdiff": MCGDiff,
    "ddsmc": DecoupledDiffusion,
    "fps": FilteringPosterior,
    "best-of": lambda levels: BestOf(levels, candidates=2, begin=0.0, greedy=False),
    "ensemble-kalman": lambda levels: EnsembleKalman(levels, inner=3),
}

NO_EVIDENCE = {"ensemble-kalman", "fps"}
"""Those without an estimate of it, whose own limits test_particle_methods.py measures."""

ORDER_1 = {"twisted-order-1", "twisted-euler"}
"""Those whose prior is discretised to first order, which shows in variances."""

GAUSSIAN = {"ensemble-kalman"}
"""Those that are exact for Gaussian priors alone, so that two modes get other weights."""

SEVERAL_CALLS = {"best-of", "ensemble-kalman"}
"""Those that call the network more than once a step."""
