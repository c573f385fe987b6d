"""Singular value decompositions known in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class SVD(ABC):
    """A = U diag(s) V^T with R = rank-many or more orthonormal columns in U and V.

    Attributes:
        singular_values: s, (R,) in float64, not sorted, zeros allowed; convert it with `.to(x)`.

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


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, with 0 where b = 0: the pseudo-inverse of a diagonal matrix."""
    zero = b == 0
    return torch.where(zero, torch.zeros_like(a), a / torch.where(zero, torch.ones_like(b), b))
