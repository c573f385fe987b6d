"""Euler-Maruyama on the reverse stochastic differential equation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from torch import Tensor

from priors import Prior, Schedule

from ..checks import positive
from .sampler import Noise, Past, Sampler, Transition


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
        mean, c, _ = self.transition(x, x0, sigma, sigma_next, past)
        return (mean + c * eps() if c > 0 else mean), x0

    def transition(
        self, x: Tensor, x0: Tensor, sigma: float, sigma_next: float, past: Past
    ) -> Transition:
        if sigma_next == 0:
            return Transition(x0, 0.0, 1.0)
        if self.schedule is None:
            variance = sigma**2 - sigma_next**2
            pull = variance / sigma**2
            return Transition(x + pull * (x0 - x), math.sqrt(variance), pull)
        schedule, unit = self.schedule, self.unit
        t, t_next = float(schedule.t(sigma / unit)), float(schedule.t(sigma_next / unit))
        alpha, alpha_next = float(schedule.alpha(t)), float(schedule.alpha(t_next))
        h, f, g2 = t - t_next, float(schedule.drift(t)), float(schedule.diffusion(t))
        score = (x0 - x) / (sigma / unit) ** 2 / alpha
        u = alpha * x
        mean = (u - h * (f * u - g2 * score)) / alpha_next
        pull = h * g2 / (sigma / unit) ** 2 / alpha / alpha_next
        return Transition(mean, unit * math.sqrt(g2 * h) / alpha_next, pull)
