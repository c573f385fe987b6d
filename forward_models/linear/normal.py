"""The normal operator A^T A, at the cost of its shortest form."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

from torch import Tensor

from ..checks import Shape
from .linear_operator import LinearOperator
from .svd import SVD, without_rounding


@final
class _NormalSVD(SVD):
    """A^T A = V diag(s^2) V^T, of D rows and columns."""

    def __init__(self, base: SVD, size: int) -> None:
        self.base = base
        self.singular_values = without_rounding(base.singular_values.square(), size)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return self.base.to_spectral_x(x)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return self.base.from_spectral_x(z)

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return self.base.to_spectral_x(y)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self.base.from_spectral_x(z)


@final
class Normal(LinearOperator):
    """A^T A, self-adjoint and positive semi-definite: images (B, *event) to images.

    One step where A has a shortcut (`_normal`): a multiplication for a mask, one filter |k^|^2 for
    circular blur, the Gram matrix of a tall matrix; else A and then A^T. It has an `svd` where A
    has one. Made by `A.normal`.
    """

    def __init__(self, base: LinearOperator) -> None:
        self.base = base
        self.event_shape = self.measurement_shape = base.event_shape
        self.event_ndim = self.measurement_ndim = base.event_ndim
        self.event_field = self.measurement_field = base.event_field

    def _apply(self, x: Tensor) -> Tensor:
        return self.base._normal(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.base._normal(y)

    def output_shape(self, event_shape: Shape) -> Shape:
        self.base.output_shape(event_shape)
        return event_shape

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.output_shape(measurement_shape)

    def _sized(self, shape: Shape) -> LinearOperator:
        base = self.base.sized(shape)
        return self if base is self.base else base.normal

    @property
    def T(self) -> LinearOperator:
        return self

    @cached_property
    def svd(self) -> SVD | None:
        svd = self.base.svd
        if svd is None or self.event_shape is None:
            return None
        return _NormalSVD(svd, math.prod(self.event_shape))
