"""The reverse process of the prior, as particle methods discretise it: Gaussian steps."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Transition(NamedTuple):
    """p(x' | x) = N(x'; mean, c^2 I).

    Attributes:
        mean: D + kept (x - D), with D extrapolated where the order is 2.
        c: standard deviation of the fresh noise; 0 at the last step, whose mean is D.
        kept: share of the old noise that stays.
    """

    mean: Tensor
    c: float
    kept: float


def check_transition(eta: float, order: int) -> None:
    if not 0 < eta <= 1:
        raise ValueError(f"eta must lie in (0, 1], got {eta}")
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")


def transition(
    levels: Tensor, k: int, x: Tensor, x0: Tensor, before: Tensor, eta: float, order: int
) -> Transition:
    """The step from levels[k] to levels[k + 1] of x with x0 = D(x), `before` the D before it.

        kept = sqrt(sigma'^2 - c^2) / sigma,    c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2)

    Order 1 is DDPM (eta = 1), order 2 SDE-DPM-Solver++(2M): D + r / 2 (D - D_before) stands for D.

    Papers: Ho et al., 2020, https://arxiv.org/abs/2006.11239; Lu et al., "DPM-Solver++", 2022,
    https://arxiv.org/abs/2211.01095
    """
    sigma, sigma_next = float(levels[k]), float(levels[k + 1])
    if sigma_next == 0:
        return Transition(x0, 0.0, 0.0)
    c = eta * sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
    kept = math.sqrt(max(sigma_next**2 - c**2, 0.0)) / sigma
    ahead = x0
    if order == 2 and k > 0:
        ratio = math.log(sigma / sigma_next) / math.log(float(levels[k - 1]) / sigma)
        ahead = x0 + ratio / 2 * (x0 - before)
    return Transition(ahead + kept * (x - ahead), c, kept)
