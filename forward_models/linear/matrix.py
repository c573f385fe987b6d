"""Operators given by a matrix, and the identity."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, Shape, check_dtype, check_finite, check_shape, check_tensor
from .isometry import Isometry
from .linear_operator import LinearOperator
from .svd import SVD, without_rounding


@final
class _DenseSVD(SVD):
    """The thin decomposition of an explicit matrix, R = min(M, D)."""

    def __init__(self, matrix: Tensor, event_shape: Shape) -> None:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        self.singular_values = without_rounding(s, max(matrix.shape))
        self._u, self._vh, self._event_shape = Constant(u), Constant(vh), event_shape

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._vh.like(x).mT

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return (z @ self._vh.like(z).conj()).reshape(-1, *self._event_shape)

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return y @ self._u.like(y).conj()

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return z @ self._u.like(z).mT


@final
class MatrixOperator(LinearOperator):
    """y = A x for an explicit matrix A, (M, D), acting on (B, D), or on flattened images.

    The closed-form solve uses the singular value decomposition, computed in double precision on
    first use at O(M D min(M, D)).

    Args:
        matrix: A, (M, D), real or complex; kept as a copy in double precision.
        event_shape: shape of one image with D entries; default (D,).

    Raises:
        TypeError: A is not a floating-point or complex tensor.
        ValueError: A is not a matrix, has NaN or infinite entries, or does not fit `event_shape`.
    """

    measurement_ndim = 1

    def __init__(self, matrix: Tensor, event_shape: Shape | None = None) -> None:
        check_tensor("matrix", matrix)
        check_dtype("matrix", matrix, "any")
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(f"matrix has shape {tuple(matrix.shape)}, expected (M, D)")
        check_finite("matrix", matrix)
        rows, columns = matrix.shape
        shape = (columns,) if event_shape is None else check_shape("event_shape", event_shape)
        if math.prod(shape) != columns:
            raise ValueError(
                f"event_shape {shape} has {math.prod(shape)} entries, the matrix {columns} columns"
            )
        self.event_shape, self.event_ndim = shape, len(shape)
        self.measurement_shape = (rows,)
        field: Field = "complex" if matrix.is_complex() else "real"
        self.event_field = self.measurement_field = field
        double = torch.complex128 if matrix.is_complex() else torch.float64
        self._matrix = Constant(matrix.to(double))
        self._gram: Constant | None = None
        self._svd: SVD | None = None

    @property
    def matrix(self) -> Tensor:
        """A, (M, D), in double precision."""
        return self._matrix.value

    def _apply(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._matrix.like(x).mT

    def _adjoint(self, y: Tensor) -> Tensor:
        assert self.event_shape is not None
        return (y @ self._matrix.like(y).conj()).reshape(-1, *self.event_shape)

    def _normal(self, x: Tensor) -> Tensor:
        """By the Gram matrix A^T A, (D, D), where it is the smaller one: M > D."""
        assert self.event_shape is not None
        matrix = self._matrix.value
        if len(matrix) <= matrix.shape[1]:
            return super()._normal(x)
        if self._gram is None:
            self._gram = Constant(matrix.mH @ matrix)
        return (x.flatten(1) @ self._gram.like(x).mT).reshape(-1, *self.event_shape)

    @property
    def svd(self) -> SVD:
        if self._svd is None:
            assert self.event_shape is not None
            self._svd = _DenseSVD(self._matrix.value, self.event_shape)
        return self._svd


@final
class Identity(Isometry):
    """y = x: the whole image is seen, real or complex.

    Args:
        event_shape: shape of one image; default any.
    """

    event_field: Field = "any"
    measurement_field: Field = "any"
    entrywise = True

    def __init__(self, event_shape: Shape | None = None) -> None:
        if event_shape is not None:
            shape = check_shape("event_shape", event_shape)
            self.event_shape = self.measurement_shape = shape
            self.event_ndim = self.measurement_ndim = len(shape)

    def _apply(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y
