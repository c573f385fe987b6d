"""Poisson noise: counts of photons, in any unit."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import check_finite, check_positive
from .continued import Continued
from .noise import check_possible
from .parameter import PerEntry
from .special import poisson_log_prob


def poisson_counts(rate: Tensor, generator: torch.Generator | None) -> Tensor:
    """N ~ Poisson(rate), drawn on the generator's device."""
    device = rate.device if generator is None else generator.device
    return torch.poisson(rate.to(device), generator=generator).to(rate.device)


def is_multiple(y: Tensor, unit: Tensor) -> Tensor:
    """Whether y is a whole multiple of the unit, to the rounding of single precision.

    Whatever the dtype, since double precision may hold what was recorded, or a unit that was given,
    in single. The product and both factors are off by 2^-24 of y each: from 2^21 units on any y may
    be a multiple. But those of a power of two, such as counts in the unit 1, are exact.
    """
    n = y / unit
    rounding = 2**-22 * n.abs()
    exact = torch.frexp(unit).mantissa == 0.5
    rounding = torch.where(exact, rounding.clamp(max=0.25), rounding)
    return (n - n.round()).abs() <= rounding


def check_counts(y: Tensor, gain: Tensor) -> None:
    """Raise ValueError unless y are counts 0, 1, 2, ... in the unit of the gain; see above."""
    check_finite("y", y)
    check_possible(
        "y", y, is_multiple(y, gain) & (y / gain > -0.5),
        "gain times a count 0, 1, 2, ...; check the gain, or use PoissonGaussian for data that "
        "also have read-out noise",
    )  # fmt: skip


@final
class Poisson(Continued):
    """y = gain * N, N ~ Poisson((z + background) / gain): counting noise in the unit of z.

    E[y] = z + background, Var[y] = gain (z + background), information 1 / (gain (z + background)).

    `gain` is the value recorded for one count: 1 for counts, 1 / P for an image in [0, 1] at whose
    white P counts are expected. For counts of an image in [0, 1] put P into the operator:
    `Observation(P * A, Poisson())`. log p is that of the probability of y, a discrete variable;
    exact for an expected count of at least `floor`, continued below; see `Continued`. Cost: a few
    logarithms for each entry.

    Args:
        gain: unit of y per count, a positive number, or one for each entry.
        background: expected y at z = 0 (dark counts, scatter, randoms), likewise, may be zero.
        floor: the least expected count at which log p is exact.

    Raises:
        TypeError: a parameter is no real number or tensor.
        ValueError: it is not positive; at use, y is no multiple of the gain or is negative, or,
            in a simulation, z + background is negative.

    Paper: Shepp and Vardi, Maximum likelihood reconstruction for emission tomography,
    https://doi.org/10.1109/TMI.1982.4307558
    """

    # The one value that is a count in every unit.
    neutral = 0.0

    def __init__(
        self,
        gain: float | Tensor = 1.0,
        background: float | Tensor = 0.0,
        *,
        floor: float = 1e-3,
    ) -> None:
        self._gain = PerEntry("gain", gain)
        self._background = PerEntry("background", background, zero=True)
        self.floor = check_positive("floor", floor)

    def _rate(self, z: Tensor) -> Tensor:
        return (z + self._background.like(z)) / self._gain.like(z)

    def _floor(self, z: Tensor) -> Tensor:
        return self.floor * self._gain.like(z) - self._background.like(z)

    def _exact_log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        return poisson_log_prob((y / self._gain.like(z)).round(), self._rate(z))

    def _exact_score(self, y: Tensor, z: Tensor) -> Tensor:
        expected = z + self._background.like(z)
        return (y - expected) / (self._gain.like(z) * expected)

    def _exact_information(self, z: Tensor) -> Tensor:
        return 1 / self._exact_variance(z)

    def _exact_variance(self, z: Tensor) -> Tensor:
        return self._gain.like(z) * (z + self._background.like(z))

    def mean(self, z: Tensor) -> Tensor:
        return z + self._background.like(z)

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return self._gain.like(z) * poisson_counts(self._rate(z), generator)

    def check_clean(self, z: Tensor) -> Tensor:
        super().check_clean(z)
        least = "z + background >= 0: no negative number of photons is expected"
        check_possible("the clean measurement", z, self._rate(z) >= 0, least)
        return z

    def check_recorded(self, y: Tensor) -> Tensor:
        check_counts(y, self._gain.like(y))
        return y
