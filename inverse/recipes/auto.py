"""method="auto": what comes nearest to the posterior, of a number of samples."""

from __future__ import annotations

from typing import Any

from forward_models import LinearGaussian
from priors.prior import event_size

from ..lift import default_lift, joint
from ..likelihoods import Draws, Measured
from ..likelihoods.pooled_lift import bears
from ..posterior import Posterior
from . import applies
from .catalogue import choose, find
from .recipe import Method

FEW = 32
"""Measured values up to which particles are taken: beyond, few of them carry the weight, and the
density of the twist takes more products than all else."""
PARTICLES = 512
"""Samples of a measurement from which particles are taken."""


def nearest(
    posterior: Posterior, count: int, seed: int, pool: Draws | None = None
) -> tuple[Method, dict[str, Any]]:
    """The method, with its options, of which `count` samples come nearest by what is known.

    1. Exact draws where the posterior is known in closed form.
    2. Particles where at most 32 values are measured and 512 samples of a measurement or more are
       asked for: `tds`, whose twist for linear-Gaussian models is corrected by a pool of draws of
       the prior if one is given (`likelihoods.PooledLift`); `bootstrap` for black boxes.
    3. The default method (`choose`).

    Particles weigh modes rightly that all else weighs wrongly; where the posterior has one mode,
    as under a Gaussian prior, the default method is as near or nearer at a part of the cost. By how
    much: benchmarks/results/truth.md. A pool is not made here, as particles under it came out no
    nearer (mixtures of 25 modes), though its score is.
    """
    exact = find("exact")
    if exact.refusal(posterior) is None:
        return exact, {}
    own = posterior.lift is not default_lift
    black = not own and applies.differentiable(posterior) is not None
    particles = find("bootstrap" if black else "tds")
    few = posterior.decoder is None and measured_values(posterior) <= FEW
    if not few or count < PARTICLES or particles.refusal(posterior) is not None:
        return choose(posterior), {}
    linear = all(isinstance(model, LinearGaussian) for model, _ in posterior.factors)
    if own or not linear or pool is None:
        return particles, {}
    borne = bears(pool, measured_values(posterior))
    return particles, {"pool": pool} if borne else {}


def measured_values(posterior: Posterior) -> int:
    """Real numbers that one sample's measurements hold; a complex value is two, a class one."""
    return sum(
        Measured(model, y).size
        if isinstance(model, LinearGaussian)
        else event_size(y.shape[1:]) * (1 + y.is_complex())
        for model, y in joint(posterior.factors)
    )
