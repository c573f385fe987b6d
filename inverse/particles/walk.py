"""A posterior as particles see it: all of them at once, in micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..posterior import Posterior
from ..randomness import NoiseStream

Shape = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """What one evaluation of the posterior says of particles x: its parts, (B, ...) each.

    Attributes:
        x0: E[x0 | x] under the prior.
        shift: what the measurement adds to it.
        log_g: log p_sigma(y | x), the twist.
    """

    x0: Tensor
    shift: Tensor
    log_g: Tensor


class Walk:
    """A posterior seen by n particles: evaluated in micro-batches, each with its rows of y."""

    def __init__(
        self, posterior: Posterior, n: int, groups: int, batch: int, noise: NoiseStream
    ) -> None:
        self.posterior, self.n, self.groups, self.stream = posterior, n, groups, noise
        self._made: dict[Callable[..., Any], Any] = {}
        rows = [range(i, min(i + batch, n)) for i in range(0, n, batch)]
        self.parts = [(slice(r.start, r.stop), posterior.paired(r)) for r in rows]

    def noise(self, purpose: int, step: int, shape: Shape) -> Tensor:
        """(n, *shape) unit noise of a step, beside that of x itself; purpose >= 1 tells which."""
        return self.stream.beside(purpose, shape).normal(step)

    def once(self, make: Callable[[Posterior, Tensor], T], like: Tensor) -> T:
        """make(posterior, like), made at its first call of the run."""
        if make not in self._made:
            self._made[make] = make(self.posterior, like)
        made: T = self._made[make]
        return made

    def shared(self, values: Tensor) -> Tensor:
        """(n, ...) the values of the first particle of each group, for all of its group."""
        count = self.n // self.groups
        return values[::count].repeat_interleave(count, 0)

    def look(self, x: Tensor, sigma: float) -> Look:
        """x0, shift and twist of all particles; one network call each."""
        seen = [part.twisted(x[rows], sigma) for rows, part in self.parts]
        return Look(*(torch.cat(column) for column in zip(*seen, strict=True)))

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x] under the prior, whatever was measured."""
        return torch.cat([self.posterior.prior.denoise(x[rows], sigma) for rows, _ in self.parts])

    def weigh(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """x0 and twist of all particles; one network call each, and no derivative of the twist."""
        seen = [part.weighed(x[rows], sigma) for rows, part in self.parts]
        x0, log_g = zip(*seen, strict=True)
        return torch.cat(x0), torch.cat(log_g)

    def log_likelihood(self, x0: Tensor) -> Tensor:
        """log p(y | x0) of clean images, (n,); NaN where an image is not finite."""
        if not bool(torch.isfinite(x0).all()):
            return x0.new_full((len(x0),), math.nan)
        return torch.cat([part.log_clean(x0[rows]) for rows, part in self.parts])
