"""The pooled lift: Tweedie's Gaussian, corrected by draws of the prior where they tell otherwise.

At high noise p(x0 | x) has many modes, and no Gaussian weighs them as p(y | x) does. But

    p(x0) = E[p(x0 | x_s)],   x_s ~ p_s,

so K draws x_k of p_s, s below sigma, make the prior a mixture of K narrow laws p(x0 | x_k), each
near the Gaussian N(D_k, C_k) of Tweedie's formulas; and under a mixture everything is known:

    r_k  ~  N(x; D_k, (c + sigma^2) I)                      which draws x may have come from,
    p_sigma(y | x)  ~  sum_k r_k N(y; A m_k, S + h A C_k A^T),     h = sigma^2 / (sigma^2 + c),

with c the mean variance of the C_k and m_k = h D_k + (1 - h) x, moved as one so that their mean is
the network's own D(x). Its error is that of K draws, and grows as sigma falls; Tweedie's falls.
Each state takes what is the nearer of the two by its own account:

    shift = shift_T + w (shift_P - shift_T),    w = 1 - 2 v / |shift_P - shift_T|^2,

shrunk in the manner of James and Stein, v being the variance of the pool's, from the influence of
each draw; w = 0 where they differ by less than three standard errors.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import LinearGaussian
from priors.prior import event_size

from .draws import Draws
from .gaussian_lift import GaussianLift
from .likelihood import Cost, Likelihood, Moments
from .linear_system import Measured
from .narrow_laws import NarrowLaws
from .tweedie import Tweedie

FEWEST = 8.0
"""Draws that must count for a state for the pool to be heard."""
CLEAR = 3.0
"""Standard errors by which it must differ from Tweedie to be heard."""
MOST = 64
"""Measured values: beyond them hardly a draw explains y."""
ENTRIES = 2**23
"""Of C_k A^T for all k, at one level of the pool."""


@final
class PooledLift(Likelihood):
    """log p_sigma(y | x) of a LinearGaussian model with few measured values, by Tweedie and a pool.

    As exact as Tweedie (on Gaussian priors, at low noise) where draws of the prior tell nothing
    else. Where several modes are in question, and Tweedie is wrong, the error of its score at noise
    3 to 30 was .2 to .9 of Tweedie's at states of the posterior's path, and .1 to 1 on the prior's,
    by medians over instances of 12 problems (benchmarks/results/conversion.json). On single ones,
    and where both are near, it may be further off, as v knows nothing of draws that are missing
    and of laws that are no Gaussians. What is wrong particles correct (`tds`).

    Levels of the pool nearest below sigma / 2, / 4 and / 8 are heard one after the other: the
    coarse ones have more draws for a state, the fine ones narrower Gaussians.

    Args:
        model, y: a LinearGaussian forward model and its measurement of M values.
        pool: of the same prior, an `inverse.Pool`.
    Raises:
        TypeError: another forward model, or no pool. ValueError: more measured values than the
        pool can bear (`bears`).

    Cost beside the one network call: M vector-Jacobian products, Tweedie's. Once, for each level of
    the pool that is heard: a network call and M + 1 products for each of the K draws.

    Papers: Boys et al., "Tweedie Moment Projected Diffusions for Inverse Problems", 2024,
    https://arxiv.org/abs/2310.06721; James and Stein, "Estimation with Quadratic Loss", 1961,
    https://projecteuclid.org/euclid.bsmsp/1200512173
    """

    needs_covariance = True

    def __init__(self, model: LinearGaussian, y: Tensor, pool: Draws) -> None:
        if not isinstance(model, LinearGaussian):
            raise TypeError(f"PooledLift needs a LinearGaussian model, got {type(model).__name__}")
        if not isinstance(pool, Draws):
            raise TypeError(f"pool must be an `inverse.Pool`, got {type(pool).__name__}")
        if model.event_shape not in (None, tuple(pool.prior.event_shape)):
            raise ValueError(
                f"the pool holds images {tuple(pool.prior.event_shape)}, the forward model takes "
                f"{model.event_shape}"
            )
        self.measured, self.pool = Measured(model, y), pool
        self.model, self.y, size = model, self.measured.y, self.measured.size
        if not bears(pool, size):
            raise ValueError(
                f"{pool} does not bear {size} measured values: at most {MOST}, and {ENTRIES} "
                "numbers for the C A^T of all draws; take fewer draws, or mmps"
            )
        self.base = GaussianLift(model, y, Tweedie(dense=size))

    @property
    def cost(self) -> Cost:
        return self.base.cost

    @property
    def density_cost(self) -> Cost:
        return self.base.density_cost

    @property
    def prepared_calls(self) -> int:
        return self.pool.spent

    def shift(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[0]

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[1]

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        shift, log = self.base.evaluate(moments)
        flat, log_double = shift.flatten(1).double(), log.double()
        levels = moments.sigma.flatten().expand(len(shift))
        x, r = moments.x.flatten(1), self.measured.residual(moments.x0)
        noise = self.measured.system(r).noise
        for sigma in levels.unique().tolist():
            own = (levels == sigma).nonzero().flatten()
            for part in own.split(self._together):
                for j in self.pool.below(sigma):
                    told = self.laws(j, r).tell(x[part], r[part], noise, sigma, FEWEST)
                    if not len(told.rows):  # finer levels have fewer draws near
                        break
                    rows = part[told.rows]
                    away = told.shift - flat[rows]
                    size = away.square().sum(1)
                    clear = size > CLEAR**2 * told.variance
                    w = torch.where(clear, 1 - 2 * told.variance / size, 0)
                    further = told.log_likelihood - log_double[rows]
                    flat = flat.index_add(0, rows, w[:, None] * away)
                    log_double = log_double.index_add(0, rows, w * further)
        return flat.to(shift).reshape(shift.shape), log_double.to(log)

    @property
    def _together(self) -> int:
        """States that are weighed at once, so that K M numbers for each of them fit."""
        return max(1, 2**22 // (self.pool.size * self.measured.size))

    def laws(self, j: int, like: Tensor) -> NarrowLaws:
        """What the draws at the pool's j-th level say of A x0; found once for a forward model."""
        operator = self.measured.model.operator
        return self.pool.once(
            operator, like, j, lambda: NarrowLaws.of(self.pool, j, self.measured, like)
        )


def bears(pool: Draws, size: int) -> bool:
    """Whether a pool can be heard behind `size` measured values: 64 at most, or what fits."""
    return 0 < size <= MOST and size * pool.size * event_size(pool.prior.event_shape) <= ENTRIES
