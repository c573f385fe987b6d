"""Saturation: Gaussian noise, then a range that the recording cannot leave."""

from __future__ import annotations

import math
from numbers import Real
from typing import final

import torch
from torch import Tensor

from ..checks import check_number
from .noise import IndependentNoise, check_possible, standard_normal
from .parameter import PerEntry
from .special import hazard, log_ndtr, normal_log_prob


@final
class Saturated(IndependentNoise):
    """y = clip(z + sigma * eps, low, high): a detector that saturates (a censored Gaussian).

    With t = (low - z) / sigma, or t = (z - high) / sigma, for either end,

        P(y = end | z) = Phi(t),    p(y | z) = N(y; z, sigma^2) between,
        E[y] = z + sigma (g(t_low) - g(t_high)),    g(t) = t Phi(t) + phi(t),
        information = [1 + sum over the ends of t phi(t) - Phi(t) + phi(t)^2 / Phi(t)] / sigma^2,

    exact for every z. log p is concave in z, and its own curvature, which is 1 / sigma^2 wherever y
    is not saturated, is what `gaussian` takes. log p is a density between the ends and the
    logarithm of a probability on them, where y is an end to the rounding of single precision.
    Cost: an error function for each entry and end.

    Args:
        sigma: noise standard deviation before saturation, in the unit of y, a positive number, or
            one for each entry.
        low, high: the range, numbers in the unit of y; -inf or inf for a range open there.

    Raises:
        TypeError: a parameter is no real number (or tensor).
        ValueError: sigma is not positive, or the range is empty or without end on both sides; at
            use, y leaves the range.

    Paper: Tobin, Estimation of relationships for limited dependent variables,
    https://doi.org/10.2307/1907382
    """

    def __init__(self, sigma: float | Tensor, low: float, high: float) -> None:
        self._sigma = PerEntry("sigma", sigma)
        self.low, self.high = _end("low", low), _end("high", high)
        if not self.low < self.high or (math.isinf(self.low) and math.isinf(self.high)):
            raise ValueError(
                f"the range is from low={low} to high={high}; expected low < high, one finite"
            )
        self._low, self._high = _around(self.low), _around(self.high)
        self.neutral = self.low if math.isfinite(self.low) else self.high

    def _ends(self, z: Tensor) -> list[Tensor | None]:
        """t at either end, None where the range is open."""
        sigma = self._sigma.like(z)
        low = (self.low - z) / sigma if math.isfinite(self.low) else None
        high = (z - self.high) / sigma if math.isfinite(self.high) else None
        return [low, high]

    def _at_ends(self, y: Tensor) -> list[Tensor]:
        # A recording kept in single precision is saturated in double precision too.
        return [y <= self._low[1], y >= self._high[0]]

    def _log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        sigma = self._sigma.like(z)
        result = normal_log_prob((y - z) / sigma) - sigma.log()
        for t, here in zip(self._ends(z), self._at_ends(y), strict=True):
            if t is not None:
                result = torch.where(here, log_ndtr(t), result)
        return result

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        result = (y - z) / self._sigma.like(z)
        for t, here, sign in zip(self._ends(z), self._at_ends(y), (-1, 1), strict=True):
            if t is not None:
                result = torch.where(here, sign * hazard(t), result)
        return result / self._sigma.like(z)

    def curvature(self, y: Tensor, z: Tensor) -> Tensor:
        result = torch.ones_like(z + y)
        for t, here in zip(self._ends(z), self._at_ends(y), strict=True):
            if t is not None:
                h = hazard(t)
                # Rounding alone leaves [0, 1].
                result = torch.where(here, (h * (h + t)).clamp(0, 1), result)
        return result / self._sigma.like(z).square()

    def information(self, z: Tensor) -> Tensor:
        total = torch.ones_like(z)
        for t in self._ends(z):
            if t is not None:
                phi = normal_log_prob(t).exp()
                total = total + phi * (t + hazard(t)) - torch.special.ndtr(t)
        return total.clamp(min=0) / self._sigma.like(z).square()

    def _excess(self, z: Tensor) -> Tensor:
        """(E[y] - z) / sigma."""
        total = torch.zeros_like(z)
        for t, sign in zip(self._ends(z), (1, -1), strict=True):
            if t is not None:
                total = total + sign * (t * torch.special.ndtr(t) + normal_log_prob(t).exp())
        return total

    def mean(self, z: Tensor) -> Tensor:
        return z + self._sigma.like(z) * self._excess(z)

    def variance(self, z: Tensor) -> Tensor:
        total = 1 - self._excess(z).square()
        for t in self._ends(z):
            if t is not None:
                phi, below = normal_log_prob(t).exp(), torch.special.ndtr(t)
                total = total + (t.square() - 1) * below + t * phi
        return total.clamp(min=0) * self._sigma.like(z).square()

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        noisy = z + self._sigma.like(z) * standard_normal(z, generator)
        return noisy.clamp(self.low, self.high)

    def check_recorded(self, y: Tensor) -> Tensor:
        super().check_recorded(y)
        inside = (y >= self._low[0]) & (y <= self._high[1])
        check_possible("y", y, inside, f"values from {self.low:g} to {self.high:g}")
        return y


def _end(name: str, value: float) -> float:
    """A finite number or an infinity, as a float."""
    if isinstance(value, Real) and math.isinf(value):
        return float(value)
    return check_number(name, value)


def _around(end: float) -> tuple[float, float]:
    """The interval of numbers that are `end` to the rounding of single precision."""
    if math.isinf(end):
        return end, end
    rounding = 4 * torch.finfo(torch.float32).eps * abs(end)
    return end - rounding, end + rounding
