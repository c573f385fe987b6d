"""Euler-Maruyama on the reverse stochastic differential equation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from torch import Tensor

from priors import Prior, Schedule

from ..checks import positive
from .sampler import Noise, Past, Sampler


@final
class EulerMaruyama(Sampler):
    """dx = -d(sigma^2) score + dw, or the reverse SDE of a schedule in its own time and coordinate.

    Without a schedule, with the exact variance of each step,

        x' = x + (sigma^2 - sigma'^2) score(x, sigma) + sqrt(sigma^2 - sigma'^2) z.

    With one, u = alpha(t) x follows du = (f u - g^2 score) dt + g dw back in time, where
    f = d log alpha / dt and g^2 = alpha^2 d sigma^2 / dt. A step from t to t' = t - h, at which
    the levels are sigma and sigma', is

        u' = u - h (f u - g^2 score_u) + g sqrt(h) z,       score_u = score(x, sigma) / alpha(t),

    and x' = u' / alpha(t'). All these are the same SDE in the limit; with finite steps they differ
    in their errors. Weak order 1. A step to level 0 returns the denoised image. One network call a
    step.

    Args:
        levels: see Sampler; `schedule.levels` has those uniform in the schedule's time.
        schedule: VP, SubVP, ...; None for no schedule.
        unit: what is 1 in the schedule's levels, data units; half the data range for a prior whose
            network sees images in [-1, 1].

    Paper: Song et al., 2021, https://arxiv.org/abs/2011.13456
    """

    order = 1

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        schedule: Schedule | None = None,
        unit: float = 1.0,
    ) -> None:
        super().__init__(levels)
        if schedule is not None and not isinstance(schedule, Schedule):
            raise TypeError(f"schedule must be a priors.Schedule, got {type(schedule).__name__}")
        self.schedule, self.unit = schedule, positive(unit, "unit")

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
        if sigma_next == 0:
            return x0, x0
        if self.schedule is not None:
            scaled = (x / self.unit, x0 / self.unit, sigma / self.unit, sigma_next / self.unit)
            return self.unit * _schedule_step(self.schedule, *scaled, eps), x0
        variance = sigma**2 - sigma_next**2
        return x + variance / sigma**2 * (x0 - x) + math.sqrt(variance) * eps(), x0


def _schedule_step(
    schedule: Schedule, x: Tensor, x0: Tensor, sigma: float, sigma_next: float, eps: Noise
) -> Tensor:
    t, t_next = float(schedule.t(sigma)), float(schedule.t(sigma_next))
    alpha, alpha_next = float(schedule.alpha(t)), float(schedule.alpha(t_next))
    h, f, g2 = t - t_next, float(schedule.drift(t)), float(schedule.diffusion(t))
    score = (x0 - x) / sigma**2 / alpha
    u = alpha * x
    return (u - h * (f * u - g2 * score) + math.sqrt(g2 * h) * eps()) / alpha_next
