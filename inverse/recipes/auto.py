"""method="auto": what comes nearest to the posterior, of a number of samples."""

from __future__ import annotations

from typing import Any

from forward_models import LinearGaussian
from priors.prior import event_size

from ..lift import default_lift, joint
from ..likelihoods import Measured, Pool
from ..likelihoods.pooled_lift import bears
from ..posterior import Posterior
from . import applies
from .catalogue import choose, find
from .recipe import Method

FEW = 32
"""Measured values up to which particles are taken: beyond, few of them carry the weight, and the
density of the twist takes more products than all else."""
PARTICLES = 48
"""Samples of a measurement from which particles are taken; with 49 `tds` is calibrated
(benchmarks/results/calibration.json)."""
POOL = 512
"""Samples in all from which a pool of as many draws of the prior is made for them."""


def nearest(posterior: Posterior, n: int, count: int, seed: int) -> tuple[Method, dict[str, Any]]:
    """The method, with its options, whose n samples, `count` of a measurement, come nearest.

    1. Exact draws where the posterior is known in closed form.
    2. Particles where at most 32 values are measured and 48 samples or more are asked for: `tds`,
       `bootstrap` for black boxes. From 512 samples on the twist of linear-Gaussian models is
       corrected by a pool of draws of the prior (`likelihoods.PooledLift`): on the mixture of 25
       Gaussians nearest to the posterior of all (benchmarks/results/distances.json).
    3. The default method (`choose`).
    """
    exact = find("exact")
    if exact.refusal(posterior) is None:
        return exact, {}
    few = posterior.decoder is None and measured_values(posterior) <= FEW
    if not few or count < PARTICLES:
        return choose(posterior), {}
    if posterior.lift is not default_lift:
        return find("tds"), {}
    if applies.differentiable(posterior) is not None:
        return find("bootstrap"), {}
    linear = all(isinstance(model, LinearGaussian) for model, _ in posterior.factors)
    if not linear or n < POOL:
        return find("tds"), {}
    pool = Pool(posterior.prior, POOL, seed=seed)
    borne = bears(pool, measured_values(posterior))
    return find("tds"), {"pool": pool} if borne else {}


def measured_values(posterior: Posterior) -> int:
    """Real numbers that one sample's measurements hold; a class index is one."""
    return sum(
        Measured(model, y).size if isinstance(model, LinearGaussian) else event_size(y.shape[1:])
        for model, y in joint(posterior.factors)
    )
