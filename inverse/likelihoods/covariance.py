"""The covariance that a Gaussian lift assumes of x0 given x: **it is the method**."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from .likelihood import Cost, Moments
from .linear_system import Measured
from .solution import Solution


class AssumedCovariance(ABC):
    """C of p(x0 | x) ~ N(D, C).

    Attributes:
        jacobian: whether a lift takes K = Cov[x0 | x] by default, rather than K = C.
        assumable: whether K = C is a choice.
        needs_covariance: whether `solve` takes products with Cov[x0 | x].
        gathers: whether `solve` returns K A^T v, too.
    """

    jacobian: bool = True
    assumable: bool = True
    needs_covariance: bool = False
    gathers: bool = False

    @abstractmethod
    def solve(self, moments: Moments, measured: Measured, r: Tensor, density: bool) -> Solution:
        """(S + A C A^T) v = r for r (B, M), with the log-determinant if `density` asks for it."""

    def product(self, moments: Moments, u: Tensor) -> Tensor:
        """C u, (B, *event), where it is assumable; else TypeError."""
        raise TypeError(
            f"{type(self).__name__} has no product of its own: write `product`, or set "
            "assumable = False"
        )

    def taken(self, sigma: Tensor) -> Tensor | None:
        """The part of a shift at noise level sigma (B,) that one step takes, (B,), where steps are
        kept from overshooting y; None where shifts are left as they are."""
        return None

    def cost(self, size: int) -> Cost:
        """What `solve` costs for a measurement of M = size values, beside K A^T v."""
        return Cost()

    def density_cost(self, size: int) -> Cost:
        """What the log-determinant adds."""
        return Cost()
