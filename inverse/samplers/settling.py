"""A walk down, and Langevin steps at its end: where plain Langevin steps find their start."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from priors import Prior

from .langevin import Langevin
from .mala import MALA
from .sampler import Noise, Past, Sampler


@final
class Settling(Sampler):
    """A sampler's walk to its smallest positive level, Langevin or MALA steps there, then D(x).

    Langevin steps at one small level mend what lies within their reach, a few step sizes; from
    noise they would never arrive. The walk brings the samples to the modes in their shares, the
    steps remove the error that the walk's discretisation left within each. Network calls of the
    walk, of the steps, and one for the denoised image.

    Args:
        walk: a sampler that takes one step between two levels, the last of them 0.
        steps: Langevin or MALA at the last positive level of the walk.
    Raises:
        TypeError, ValueError: parts of other kinds, or that do not meet at one level.
    """

    def __init__(self, walk: Sampler, steps: Langevin | MALA) -> None:
        if not isinstance(walk, Sampler):
            raise TypeError(f"walk must be a Sampler, got {type(walk).__name__}")
        if not isinstance(steps, Langevin | MALA):
            raise TypeError(f"steps must be Langevin or MALA, got {type(steps).__name__}")
        if walk.stationary or walk.adaptive or not torch.equal(walk.path, walk.levels):
            raise ValueError(
                f"{type(walk).__name__} does not take one step between two levels; choose "
                "Multistep, Ancestral, EulerMaruyama or Heun as walk"
            )
        last = float(walk.levels[-2])
        if float(walk.levels[-1]) != 0 or abs(steps.sigma - last) > 1e-6 * last:
            raise ValueError(
                f"the walk must end at 0 and the steps be at the level before, got levels "
                f"{walk.levels[-2:].tolist()} and steps at {steps.sigma}"
            )
        self.walk, self.steps, self.levels = walk, steps, walk.levels
        self.order = walk.order
        self.memory, self.draws = max(walk.memory, steps.memory), max(walk.draws, steps.draws)

    @property
    def path(self) -> Tensor:
        return torch.cat([
            self.levels[:-1], self.levels[-2].repeat(self.steps.steps), self.levels[-1:]
        ])  # fmt: skip

    @property
    def network_calls(self) -> int:
        walked = sum(self.walk._calls(a, b) for a, b in pairwise(self.levels[:-1].tolist()))
        return walked + (self.steps.network_calls or 0) + 1

    def _begin(self, n: int) -> None:
        self.walk._begin(n)
        self.steps._begin(n)

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        if sigma_next == 0:
            x0 = prior.denoise(x, sigma)
            return x0, x0
        if sigma_next < sigma:
            return self.walk._step(prior, x, sigma, sigma_next, eps, past)
        here = past[: self.steps.memory] if past and past[0][0] == sigma else ()
        return self.steps._step(prior, x, sigma, sigma_next, eps, here)
