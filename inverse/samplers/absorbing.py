"""Guidance down to the level where the noise absorbs the measurement, and none below."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from priors import Prior

from ..checks import positive, whole
from .langevin import langevin_step
from .sampler import Noise, Past, Sampler


@final
class Absorbing(Sampler):
    """A sampler's guided steps, Langevin steps at one level, then its steps without guidance.

    For posteriors under `Absorbed` likelihoods: below their threshold sigma* the law that unguided
    steps carry to the exact posterior is p_sigma(x) h_sigma(y | x), not p_sigma(x | y). So guided
    steps lead to the first level at or below sigma*, M Langevin steps,

        x' = x + a (score + shift / sigma^2) + sqrt(2 a) z,     a = relative_step sigma^2,

    go over to that law, and from there only the prior is walked: no derivative of a network, and
    none of the small steps that guidance needs where sigma is far below the measurement's noise.

    Below sigma* exact, up to the Langevin steps' own bias (of order a) and what is left of the
    error of the guided part. Network calls of the sampler, and M.

    Args:
        sampler: one that is neither a Langevin method nor adaptive, and that does not go back up.
        threshold: sigma*, data units.
        corrections: M.
        relative_step: a / sigma^2, in (0, 1).
    Raises:
        TypeError, ValueError: arguments of other kinds, or out of range.

    Paper: Bruna and Han, "Provable Posterior Sampling with Denoising Oracles via Tilted
    Transport", 2024, https://arxiv.org/abs/2407.00745
    """

    def __init__(
        self,
        sampler: Sampler,
        threshold: float,
        corrections: int = 10,
        relative_step: float = 0.2,
    ) -> None:
        if not isinstance(sampler, Sampler):
            raise TypeError(f"sampler must be a Sampler, got {type(sampler).__name__}")
        path = sampler.path.tolist()
        if sampler.stationary or sampler.adaptive or any(b >= a for a, b in pairwise(path)):
            raise ValueError(
                f"{type(sampler).__name__} does not go straight down a grid of levels; choose "
                "Multistep, Ancestral, EulerMaruyama or Heun"
            )
        self.sampler, self.levels = sampler, sampler.levels
        self.order, self.memory, self.draws = sampler.order, sampler.memory, sampler.draws
        self.threshold = positive(threshold, "threshold")
        self.corrections = whole(corrections, "corrections")
        self.relative_step = positive(relative_step, "relative_step")
        if relative_step >= 1:
            raise ValueError(f"relative_step must be below 1, got {relative_step}")

    @property
    def path(self) -> Tensor:
        walked = self.sampler.path
        below = (walked <= self.threshold) & (walked > 0)
        if not bool(below.any()):
            return walked
        first = int(below.nonzero()[0])
        held = walked[first].repeat(self.corrections)
        return torch.cat([walked[: first + 1], held, walked[first + 1 :]])

    def _calls(self, sigma: float, sigma_next: float) -> int:
        return 1 if sigma_next == sigma else self.sampler._calls(sigma, sigma_next)

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        if sigma_next == sigma:
            x0 = prior.denoise(x, sigma)
            pull = (x0 - x) / sigma**2
            return langevin_step(x, pull, self.relative_step * sigma**2, eps()), x0
        if sigma <= self.threshold:
            before = _falling(past, sigma)
            return self.sampler._step(prior.unmeasured, x, sigma, sigma_next, eps, before)
        return self.sampler._step(prior, x, sigma, sigma_next, eps, past)


def _falling(past: Past, sigma: float) -> Past:
    """The steps before, back to where the level last stayed: Langevin steps are not on the way."""
    kept: list[tuple[float, Tensor]] = []
    for level, x0 in past:
        if level <= (kept[-1][0] if kept else sigma):
            break
        kept.append((level, x0))
    return tuple(kept)
