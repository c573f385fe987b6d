"""Singular value decompositions known in closed form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from ..checks import Shape

if TYPE_CHECKING:
    from .linear_operator import LinearOperator


class SVD(ABC):
    """A = U diag(s) V^T with R = rank-many or more orthonormal columns in U and V.

    Attributes:
        singular_values: s, (R,) in float64, not sorted, zeros allowed; convert it with `.to(x)`.
            A value that is rounding alone is an exact 0, see `without_rounding`.

    V may be incomplete: the null space of A is what x - from_spectral_x(to_spectral_x(x)) leaves.
    """

    singular_values: Tensor

    @abstractmethod
    def to_spectral_x(self, x: Tensor) -> Tensor:
        """V^T x: (B, *event) to (B, R)."""

    @abstractmethod
    def from_spectral_x(self, z: Tensor) -> Tensor:
        """V z: (B, R) to (B, *event)."""

    @abstractmethod
    def to_spectral_y(self, y: Tensor) -> Tensor:
        """U^T y: (B, *measurement) to (B, R)."""

    @abstractmethod
    def from_spectral_y(self, z: Tensor) -> Tensor:
        """U z: (B, R) to (B, *measurement)."""


@final
class OrthogonalRowsSVD(SVD):
    """A with A A^T = g^2 I, g > 0: U = I, s = g, V^T = A / g.

    Args:
        operator: A.
        measurement_shape: that of A.
        scale: g.
    """

    def __init__(
        self, operator: LinearOperator, measurement_shape: Shape, scale: float = 1.0
    ) -> None:
        self.operator, self.scale, self._shape = operator, scale, measurement_shape
        count = math.prod(measurement_shape)
        self.singular_values = torch.full((count,), scale, dtype=torch.float64)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return self.operator._apply(x).flatten(1) / self.scale

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return self.operator._adjoint(self.from_spectral_y(z)) / self.scale

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return y.flatten(1)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return z.reshape(-1, *self._shape)


def without_rounding(values: Tensor, size: int) -> Tensor:
    """Singular values, or a spectrum, with 0 for those that cannot be told from it in float64.

    That is |s| <= size * eps * max |s|, with size = max(M, D) of the matrix: numpy's rule for the
    rank. Divided by such a value, rounding would outgrow the solution.
    """
    modulus = values.abs()
    limit = size * torch.finfo(torch.float64).eps * modulus.max()
    return torch.where(modulus > limit, values, 0.0)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, with 0 where b = 0: the pseudo-inverse of a diagonal matrix."""
    zero = b == 0
    return torch.where(zero, torch.zeros_like(a), a / torch.where(zero, torch.ones_like(b), b))
