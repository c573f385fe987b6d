"""Euler-Maruyama on the reverse stochastic differential equation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

from torch import Tensor

from priors import Prior

from .sampler import Sampler


@final
class EulerMaruyama(Sampler):
    """dx = -d(sigma^2) score + dw, with the exact variance sigma^2 - sigma'^2 of each step.

        x' = x + (sigma^2 - sigma'^2) score(x, sigma) + sqrt(sigma^2 - sigma'^2) z

    The reverse SDE of every schedule, in noise-level coordinates: the schedule chooses the
    levels. Weak order 1. A step to level 0 returns the denoised image. One network call a step.

    Paper: Song et al., 2021, https://arxiv.org/abs/2011.13456
    """

    order = 1

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Callable[[], Tensor],
        before: tuple[float, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        x0 = prior.denoise(x, sigma)
        if sigma_next == 0:
            return x0, x0
        variance = sigma**2 - sigma_next**2
        return x + variance / sigma**2 * (x0 - x) + math.sqrt(variance) * eps(), x0
