"""Ancestral sampling: denoise, then put back part of the old noise and part fresh noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from torch import Tensor

from priors import Prior

from .sampler import Noise, Past, Sampler, Transition


@final
class Ancestral(Sampler):
    """x' = x0 + sqrt(sigma'^2 - c^2) (x - x0) / sigma + c z.

    Args:
        levels: see Sampler.
        eta: c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2): 1 is DDPM, 0 is DDIM.
        zeta: instead of eta: c = sqrt(zeta) sigma', a fixed share of fresh noise (DiffPIR).
        keep_noise: under a posterior, take the old noise as the prior alone sees it, so that the
            measurement moves x0 and nothing else (MPGD):
            x' = x0 + sqrt(sigma'^2 - c^2) (x - D) / sigma + c z, with D the prior's E[x0 | x].

    Each step is exact for a prior whose denoiser does not change along it; weak order 1 with eta.
    With zeta > 0 fresh noise is drawn at every step however short, so the law does not converge
    to the prior's as steps shrink; it serves the splitting methods. With keep_noise the law is
    not the posterior's. One network call a step.

    Papers: Ho et al., 2020, https://arxiv.org/abs/2006.11239; Song et al., 2020,
    https://arxiv.org/abs/2010.02502; Zhu et al., 2023, https://arxiv.org/abs/2305.08995;
    He et al., 2024, https://arxiv.org/abs/2311.16424
    """

    order = 1

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        eta: float | None = None,
        zeta: float | None = None,
        keep_noise: bool = False,
    ) -> None:
        super().__init__(levels)
        if eta is not None and zeta is not None:
            raise ValueError("give eta or zeta, not both")
        for name, value in {"eta": eta, "zeta": zeta}.items():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        self.eta = 1.0 if eta is None else eta
        self.zeta, self.keep_noise = zeta, bool(keep_noise)

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        if self.keep_noise:
            denoised, shift = prior.guided(x, sigma)
            mean, c, _ = self.transition(x, denoised, sigma, sigma_next, past)
            mean, x0 = mean + shift, denoised + shift
        else:
            x0 = prior.denoise(x, sigma)
            mean, c, _ = self.transition(x, x0, sigma, sigma_next, past)
        return (mean + c * eps() if c > 0 else mean), x0

    def transition(
        self, x: Tensor, x0: Tensor, sigma: float, sigma_next: float, past: Past
    ) -> Transition:
        c, kept = fresh_and_kept(self.eta, sigma, sigma_next, self.zeta)
        pull = 1.0 if self.keep_noise else 1 - kept / sigma
        return Transition(x0 + kept / sigma * (x - x0), c, pull)


def fresh_and_kept(
    eta: float, sigma: float, sigma_next: float, zeta: float | None = None
) -> tuple[float, float]:
    """The standard deviations c and sqrt(sigma'^2 - c^2) of the fresh and of the old noise."""
    if zeta is None:
        fresh = eta * sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
    else:
        fresh = math.sqrt(zeta) * sigma_next
    return fresh, math.sqrt(max(sigma_next**2 - fresh**2, 0.0))
