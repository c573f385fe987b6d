"""Ancestral sampling: denoise, then put back part of the old noise and part fresh noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor

from priors import Prior

from .sampler import Sampler


@final
class Ancestral(Sampler):
    """x' = x0 + sqrt(sigma'^2 - c^2) (x - x0) / sigma + c z.

    Args:
        levels: see Sampler.
        eta: c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2): 1 is DDPM, 0 is DDIM.
        zeta: instead of eta: c = sqrt(zeta) sigma', a fixed share of fresh noise (DiffPIR).

    Each step is exact for a prior whose denoiser does not change along it; weak order 1 with eta.
    With zeta > 0 fresh noise is drawn at every step however short, so the law does not converge
    to the prior's as steps shrink; it serves the splitting methods. One network call a step.

    Papers: Ho et al., 2020, https://arxiv.org/abs/2006.11239; Song et al., 2020,
    https://arxiv.org/abs/2010.02502; Zhu et al., 2023, https://arxiv.org/abs/2305.08995
    """

    order = 1

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        eta: float | None = None,
        zeta: float | None = None,
    ) -> None:
        super().__init__(levels)
        if eta is not None and zeta is not None:
            raise ValueError("give eta or zeta, not both")
        for name, value in {"eta": eta, "zeta": zeta}.items():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        self.eta = 1.0 if eta is None else eta
        self.zeta = zeta

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
        if self.zeta is not None:
            fresh = math.sqrt(self.zeta) * sigma_next
        else:
            fresh = self.eta * sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
        kept = math.sqrt(max(sigma_next**2 - fresh**2, 0.0))
        x_next = x0 + kept / sigma * (x - x0)
        return (x_next + fresh * eps() if fresh > 0 else x_next), x0
