"""Noise whose clean values are bounded below, continued beyond the bound."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

from torch import Tensor

from .noise import IndependentNoise


class Continued(IndependentNoise):
    """Noise whose density needs z above a bound, continued so that solvers may pass it.

    Exact for z >= floor. Below, with d = z - floor < 0, log p(y | z) stands for

        log p(y | floor) + d score(y, floor) - d^2 / 2 information(floor),

    which is no density. It is finite, concave, has a continuous slope, and a slope that grows as
    z falls, so that it pushes back even where y is what z -> 0 would give. `information` and
    `variance` stay there what they are at the floor. Simulation is exact wherever p(y | z) exists
    and refused elsewhere.
    """

    @abstractmethod
    def _floor(self, z: Tensor) -> Tensor:
        """The least z at which the formulas hold, broadcastable to z."""

    @abstractmethod
    def _exact_log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(y_i | z_i) for z >= floor."""

    @abstractmethod
    def _exact_score(self, y: Tensor, z: Tensor) -> Tensor:
        """d log p(y_i | z_i) / dz_i for z >= floor."""

    @abstractmethod
    def _exact_information(self, z: Tensor) -> Tensor:
        """Fisher information of z_i for z >= floor."""

    @abstractmethod
    def _exact_variance(self, z: Tensor) -> Tensor:
        """Var[y_i | z] for z >= floor."""

    def _value_and_slope(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(y_i | z_i) and, without a graph, its slope, for z >= floor."""
        # Where the slope matters it is that at the floor: a constant.
        return self._exact_log_prob(y, z), self._exact_score(y, z.detach())

    def _inside(self, z: Tensor) -> Tensor:
        return z.clamp(min=self._floor(z))

    @final
    def _log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        inside = self._inside(z)
        d = z - inside
        value, slope = self._value_and_slope(y, inside)
        return value + d * (slope - 0.5 * d * self._exact_information(inside.detach()))

    @final
    def score(self, y: Tensor, z: Tensor) -> Tensor:
        inside = self._inside(z)
        return self._exact_score(y, inside) + (inside - z) * self._exact_information(inside)

    @final
    def information(self, z: Tensor) -> Tensor:
        return self._exact_information(self._inside(z))

    @final
    def variance(self, z: Tensor) -> Tensor:
        return self._exact_variance(self._inside(z))
