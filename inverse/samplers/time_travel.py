"""Time travel: go back up in noise after a few steps, and take them again."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from priors import Prior

from ..checks import whole
from .sampler import Noise, Past, Sampler


@final
class TimeTravel(Sampler):
    """Any one-step sampler, whose steps are taken several times over, noise put back in between:

        x at sigma_end  ->  x + sqrt(sigma_start^2 - sigma_end^2) z at sigma_start.

    The levels are cut into blocks of `jumps` steps, counted from the last; each block inside
    `sigma_range` is walked `repeats` times. Going up is exact, so the order of convergence is the
    sampler's; what repeating mends is a guidance that is wrong in a way the prior can see.
    With jumps = 1 the recurrences of universal guidance, FreeDoM and TFG, with more RePaint's.
    Network calls as the sampler has for all steps down; none for those up.

    Args:
        sampler: one whose steps do not look back (not Multistep) and that is neither a Langevin
            method nor adaptive nor TimeTravel itself; PredictorCorrector is one.
        jumps: steps in a block; 10 in RePaint.
        repeats: how often a block is walked in all; 10 in RePaint.
        sigma_range: (low, high), data units: a block is repeated if it starts at most at high and
            ends at least at low.
    Raises:
        TypeError, ValueError: arguments of other kinds, or out of range.

    Papers: Lugmayr et al., "RePaint", 2022, https://arxiv.org/abs/2201.09865; Yu et al.,
    "FreeDoM", 2023, https://arxiv.org/abs/2303.09833; Bansal et al., "Universal Guidance for
    Diffusion Models", 2023, https://arxiv.org/abs/2302.07121
    """

    def __init__(
        self,
        sampler: Sampler,
        jumps: int = 1,
        repeats: int = 2,
        sigma_range: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        if not isinstance(sampler, Sampler):
            raise TypeError(f"sampler must be a Sampler, got {type(sampler).__name__}")
        why = {
            "looks back at the steps before, which going back makes meaningless": sampler.memory,
            "settles at each level already": sampler.stationary,
            "chooses its own steps": sampler.adaptive,
            "goes back itself": isinstance(sampler, TimeTravel),
        }
        for reason, holds in why.items():
            if holds:
                raise ValueError(
                    f"{type(sampler).__name__} {reason}; choose Ancestral, EulerMaruyama or Heun"
                )
        low, high = sigma_range
        if not 0 <= low < high:
            raise ValueError(f"sigma_range must be (low, high), 0 <= low < high, got {sigma_range}")
        self.sampler, self.levels, self.order = sampler, sampler.levels, sampler.order
        self.draws, self.splits = sampler.draws, sampler.splits
        self.jumps, self.repeats = whole(jumps, "jumps"), whole(repeats, "repeats")
        self.sigma_range = (float(low), float(high))

    def above(self, sigma: float) -> TimeTravel:
        """The same, without the repeats that end at sigma or below."""
        low, high = self.sigma_range
        low = max(low, math.nextafter(sigma, math.inf))
        repeats = self.repeats if low < high else 1
        within = (low, high) if low < high else self.sigma_range
        return TimeTravel(self.sampler, self.jumps, repeats, within)

    @property
    def path(self) -> Tensor:
        start, legs = _legs(self.sampler.path.tolist())
        path, low, high = [start], *self.sigma_range
        first = len(legs) % self.jumps or self.jumps
        cuts = [0, *range(first, len(legs) + 1, self.jumps)]
        for begin, end in pairwise(cuts):
            block = [level for leg in legs[begin:end] for level in leg]
            top = path[-1]
            again = self.repeats - 1 if top <= high and block[-1] >= low else 0
            path += block + again * [top, *block]
        return torch.tensor(path, dtype=torch.float64)

    def _calls(self, sigma: float, sigma_next: float) -> int:
        return self.sampler._calls(sigma, sigma_next) if sigma_next <= sigma else 0

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        if sigma_next > sigma:
            return x + math.sqrt(sigma_next**2 - sigma**2) * eps(), x
        return self.sampler._step(prior, x, sigma, sigma_next, eps, ())


def _legs(path: list[float]) -> tuple[float, list[list[float]]]:
    """The first level, and from each level to the next those a sampler's steps end at."""
    legs: list[list[float]] = []
    for level, level_next in pairwise(path):
        if level_next < level:
            legs.append([level_next])
        else:
            legs[-1].append(level_next)
    return path[0], legs
