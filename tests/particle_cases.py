"""Every particle method by name, on the problems of `problems.py`: one line a class."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from inverse.particles import MCGDiff, ParticleMethod, TwistedFilter

PARTICLES: dict[str, Callable[[Tensor], ParticleMethod]] = {
    "twisted": TwistedFilter,
    "twisted-order-1": lambda levels: TwistedFilter(levels, order=1),
    "bootstrap": lambda levels: TwistedFilter(levels, guided=False),
    "mcgdiff": MCGDiff,
}

ROUGH = {"twisted-order-1"}
"""Those whose transitions discretise the prior to first order: their evidence is far off."""
