"""Operators that keep lengths: A^T A = I."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from ..checks import Shape
from .linear_operator import LinearOperator
from .svd import SVD


@final
class _IsometrySVD(SVD):
    """A = A I I^T: U = A, s = 1, V = I."""

    def __init__(self, operator: LinearOperator, event_shape: Shape) -> None:
        self.operator, self._shape = operator, event_shape
        self.singular_values = torch.ones(math.prod(event_shape), dtype=torch.float64)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return z.reshape(-1, *self._shape)

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y).flatten(1)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self.operator._apply(self.from_spectral_x(z))


class Isometry(LinearOperator):
    """A with A^T A = I, (B, *event) to (B, *measurement), real or complex: |A x| = |x|.

    Exact: A^T A costs nothing (`normal`), all singular values are 1 (`svd`, once the image shape is
    known), and `solve` with C = c I is in closed form at the cost of one A and one A^T, or of one
    division where A A^T = I too. An author writes `_apply` and `_adjoint`.

    Attributes:
        onto: whether A A^T = I, too: then the adjoint is the inverse.
    """

    onto: bool = True

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        return torch.ones((), dtype=y.dtype.to_real(), device=y.device) if self.onto else None

    @cached_property
    def svd(self) -> SVD | None:
        """All singular values are 1; None while the image shape is open."""
        return None if self.event_shape is None else _IsometrySVD(self, self.event_shape)
