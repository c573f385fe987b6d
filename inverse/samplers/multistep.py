"""Second order with one network call a step, from the denoised image of the step before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor

from priors import Prior

from .sampler import Sampler


@final
class Multistep(Sampler):
    """Ancestral sampling with the denoiser extrapolated linearly in log sigma.

        D* = D + h / (2 h_before) (D - D_before),        h = log(sigma / sigma')
        x' = D* + sqrt(sigma'^2 - c^2) (x - D*) / sigma + c z,
        c  = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2)

    eta = 1 is SDE-DPM-Solver++(2M), eta = 0 DPM-Solver++(2M). Order 2; the first step and a step
    to level 0 are of first order. One network call a step.

    Paper: Lu et al., "DPM-Solver++", 2022, https://arxiv.org/abs/2211.01095
    """

    order = 2
    uses_history = True

    def __init__(self, levels: Tensor | Sequence[float], eta: float = 1.0) -> None:
        super().__init__(levels)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}")
        self.eta = eta

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
        ahead = x0
        if before is not None:
            sigma_before, x0_before = before
            ratio = math.log(sigma / sigma_next) / math.log(sigma_before / sigma)
            ahead = x0 + ratio / 2 * (x0 - x0_before)
        fresh = self.eta * sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
        kept = math.sqrt(max(sigma_next**2 - fresh**2, 0.0))
        x_next = ahead + kept / sigma * (x - ahead)
        return (x_next + fresh * eps() if fresh > 0 else x_next), x0
