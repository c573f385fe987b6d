"""Order 2 or 3 with one network call a step, from the denoised images of the steps before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from torch import Tensor

from priors import Prior

from .ancestral import fresh_and_kept
from .sampler import Noise, Past, Sampler, Transition

_FARTHEST = 3.0
"""Lengths of the step before over which fresh noise lets the denoised images be extrapolated."""


@final
class Multistep(Sampler):
    """Ancestral sampling with the denoiser extrapolated by a polynomial in log sigma.

    With h = log(sigma / sigma') and s in [0, 1] the share of the step that is done,

        x' = D* + k (x - D*) + c z,        c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2),
        D* = the mean of D(s) under the weight a exp(-a (1 - s)) / (1 - k),
        k  = exp(-a) = sqrt(sigma'^2 - c^2) / sigma,

    exact for a denoiser that is the polynomial D(s) through the denoised images of this step and
    of the `order` - 1 before; order 2 takes D(1/2) for the mean of a line, as is published. eta = 0
    is DPM-Solver++(2M) and (3M), eta = 1 their SDE versions. For the term of second degree in 3M
    diffusers' code takes half of the integral, which leaves it at order 2; here it is whole.

    Order 2, and 3 with eta = 0: with eta > 0 the noise between the images looked back at holds
    3M at order 2. The first steps have fewer images, so lower orders: the first one's error is
    h^2 (scale / sigma)^2, seen in the order of 3M where the levels start near the scale. A step to
    level 0 returns the denoised image. One network call a step.

    With fresh noise and order 2 a step over three times as long (in log sigma) as the one before
    looks back at nothing, for the images' difference holds noise that it would multiply; the grid
    of VP ends in such a step.

    Args:
        levels: see Sampler.
        eta: share of fresh noise, in [0, 1].
        order: 2 or 3.

    Paper: Lu et al., "DPM-Solver++", 2022, https://arxiv.org/abs/2211.01095
    """

    def __init__(self, levels: Tensor | Sequence[float], eta: float = 1.0, order: int = 2) -> None:
        super().__init__(levels)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}")
        if order not in (2, 3):
            raise ValueError(f"order must be 2 or 3, got {order!r}")
        self.eta, self.memory = eta, order - 1
        self.order = order if eta == 0 else 2

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        x0 = prior.denoise(x, sigma)
        mean, c, _ = self.transition(x, x0, sigma, sigma_next, past)
        return (mean + c * eps() if c > 0 else mean), x0

    def transition(
        self, x: Tensor, x0: Tensor, sigma: float, sigma_next: float, past: Past
    ) -> Transition:
        if sigma_next == 0:
            return Transition(x0, 0.0, 1.0)
        c, kept = fresh_and_kept(self.eta, sigma, sigma_next)
        h = math.log(sigma / sigma_next)
        ahead = x0
        if len(past) == 1:
            sigma_1, x0_1 = past[0]
            ratio = h / math.log(sigma_1 / sigma)
            if self.eta == 0 or ratio <= _FARTHEST:
                ahead = x0 + ratio / 2 * (x0 - x0_1)
        elif len(past) == 2:
            ahead = x0 + _parabola(x0, past, sigma, h, math.log(sigma / kept))
        return Transition(ahead + kept / sigma * (x - ahead), c, 1 - kept / sigma)


def _parabola(x0: Tensor, past: Past, sigma: float, h: float, a: float) -> Tensor:
    """The weighted mean of D(s) - D(0), D through the images at s = 0, -r1 and -(r1 + r2)."""
    (sigma_1, x0_1), (sigma_2, x0_2) = past
    r1, r2 = math.log(sigma_1 / sigma) / h, math.log(sigma_2 / sigma_1) / h
    slope, slope_1 = (x0 - x0_1) / r1, (x0_1 - x0_2) / r2
    bend = (slope - slope_1) / (r1 + r2)
    # The integrals over [0, 1] of a exp(-a (1 - s)) times s and times s^2.
    first = 1 + math.expm1(-a) / a
    second = 1 - 2 * first / a
    return (first * (slope + r1 * bend) + second * bend) / -math.expm1(-a)
