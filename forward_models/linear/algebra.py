"""Operators made of operators: adjoint, sum, multiple."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

from torch import Tensor

from ..checks import Field, Shape
from .linear_operator import LinearOperator
from .svd import SVD


@final
class AdjointOperator(LinearOperator):
    """A^T as an operator on measurements."""

    def __init__(self, base: LinearOperator) -> None:
        self.base = base
        self.event_shape, self.measurement_shape = base.measurement_shape, base.event_shape
        self.event_ndim, self.measurement_ndim = base.measurement_ndim, base.event_ndim
        self.event_field, self.measurement_field = base.measurement_field, base.event_field

    def _apply(self, x: Tensor) -> Tensor:
        return self.base._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.base._apply(y)

    def output_shape(self, event_shape: Shape) -> Shape:
        return self.base.input_shape(event_shape)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.base.output_shape(measurement_shape)

    def _sized(self, shape: Shape) -> LinearOperator:
        base = self.base.sized(self.base.input_shape(shape))
        if base.output_shape(self.output_shape(shape)) != shape:
            raise ValueError(f"{type(self.base).__name__} measures no {shape}")
        return base.T

    @property
    def T(self) -> LinearOperator:
        return self.base


def meet(what: str, first: Field, second: Field) -> Field:
    """The field that both accept."""
    if first != second and "any" not in (first, second):
        raise ValueError(f"{what} are {first} and {second}: the operators do not fit together")
    return second if first == "any" else first


def same(what: str, first: Shape | None, second: Shape | None) -> Shape | None:
    """The shape that both have, where at least one is known."""
    if first is not None and second is not None and first != second:
        raise ValueError(f"{what} are {first} and {second}: the operators do not fit together")
    return first or second


@final
class Sum(LinearOperator):
    """A + B: x -> A(x) + B(x); an entry carries data if either operator measures it."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        self.event_shape = same("image shapes", first.event_shape, second.event_shape)
        if self.event_shape is None:
            self.measurement_shape = same(
                "measurement shapes", first.measurement_shape, second.measurement_shape
            )
        else:
            self.measurement_shape = same(
                "measurement shapes",
                first.output_shape(self.event_shape),
                second.output_shape(self.event_shape),
            )
        self.event_ndim = first.event_ndim or second.event_ndim
        self.measurement_ndim = first.measurement_ndim or second.measurement_ndim
        self.event_field = meet("images", first.event_field, second.event_field)
        self.measurement_field = meet(
            "measurements", first.measurement_field, second.measurement_field
        )
        self.first, self.second = first, second

    def _apply(self, x: Tensor) -> Tensor:
        return self.first.apply(x) + self.second.apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.first.adjoint(y) + self.second.adjoint(y)

    def output_shape(self, event_shape: Shape) -> Shape:
        first, second = (A.output_shape(event_shape) for A in (self.first, self.second))
        if first != second:
            raise ValueError(f"the terms of the sum measure {first} and {second}, not one shape")
        return first

    def input_shape(self, measurement_shape: Shape) -> Shape:
        first, second = (A.input_shape(measurement_shape) for A in (self.first, self.second))
        if first != second:
            raise ValueError(f"the terms of the sum see images {first} and {second}, not one shape")
        return first

    def _sized(self, shape: Shape) -> LinearOperator:
        first, second = self.first.sized(shape), self.second.sized(shape)
        known = first is self.first and second is self.second
        return self if known else Sum(first, second)

    @property
    def measured(self) -> Tensor | None:
        first, second = self.first.measured, self.second.measured
        return None if first is None or second is None else first | second


@final
class _ScaledSVD(SVD):
    """c A = (sign(c) U) diag(|c| s) V^T."""

    def __init__(self, base: SVD, factor: float) -> None:
        self.base, self.sign = base, math.copysign(1.0, factor)
        self.singular_values = abs(factor) * base.singular_values

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return self.base.to_spectral_x(x)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return self.base.from_spectral_x(z)

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return self.sign * self.base.to_spectral_y(y)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self.sign * self.base.from_spectral_y(z)


@final
class Scaled(LinearOperator):
    """c A for a real number c, with the closed forms of A."""

    def __init__(self, base: LinearOperator, factor: float) -> None:
        if not math.isfinite(factor):
            raise ValueError(f"an operator can be multiplied by a finite number, got {factor}")
        self.base, self.factor = base, float(factor)
        self.event_shape, self.measurement_shape = base.event_shape, base.measurement_shape
        self.event_ndim, self.measurement_ndim = base.event_ndim, base.measurement_ndim
        self.event_field, self.measurement_field = base.event_field, base.measurement_field
        self.entrywise = base.entrywise

    def _apply(self, x: Tensor) -> Tensor:
        return self.factor * self.base._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor * self.base._adjoint(y)

    def output_shape(self, event_shape: Shape) -> Shape:
        return self.base.output_shape(event_shape)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.base.input_shape(measurement_shape)

    def _sized(self, shape: Shape) -> LinearOperator:
        base = self.base.sized(shape)
        return self if base is self.base else Scaled(base, self.factor)

    def _normal(self, x: Tensor) -> Tensor:
        return self.factor**2 * self.base._normal(x)

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        gram = self.base._gram_diagonal(y)
        return None if gram is None else self.factor**2 * gram

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor | None:
        return self.base._solve_isotropic(r, self.factor**2 * c, s)

    @property
    def measured(self) -> Tensor | None:
        return self.base.measured

    @cached_property
    def svd(self) -> SVD | None:
        svd = self.base.svd
        return None if svd is None else _ScaledSVD(svd, self.factor)
