"""Operators made of operators: adjoint, composition, sum, multiple, stack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ..checks import Field, Shape, check_shape
from .linear_operator import SVD, LinearOperator


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

    @property
    def T(self) -> LinearOperator:
        return self.base


def _meet(what: str, first: Field, second: Field) -> Field:
    """The field that both accept."""
    if first != second and "any" not in (first, second):
        raise ValueError(f"{what} are {first} and {second}: the operators do not fit together")
    return second if first == "any" else first


def _same(what: str, first: Shape | None, second: Shape | None) -> Shape | None:
    if first is not None and second is not None and first != second:
        raise ValueError(f"{what} are {first} and {second}: the operators do not fit together")
    return first or second


@final
class Composition(LinearOperator):
    """A B: x -> A(B(x)), adjoint B^T A^T."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        _meet("output of the inner and input of the outer operator",
              inner.measurement_field, outer.event_field)  # fmt: skip
        middle = inner.measurement_shape
        self.event_shape = inner.event_shape
        if self.event_shape is None and outer.event_shape is not None:
            self.event_shape = inner.input_shape(outer.event_shape)
        if middle is None and self.event_shape is not None:
            middle = inner.output_shape(self.event_shape)
        _same("output of the inner and input of the outer operator", middle, outer.event_shape)
        self.measurement_shape = outer.measurement_shape
        if self.measurement_shape is None and middle is not None:
            self.measurement_shape = outer.output_shape(middle)
        self.event_ndim, self.measurement_ndim = inner.event_ndim, outer.measurement_ndim
        self.event_field, self.measurement_field = inner.event_field, outer.measurement_field
        self.outer, self.inner = outer, inner

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer.apply(self.inner._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer._adjoint(y))

    def output_shape(self, event_shape: Shape) -> Shape:
        return self.outer.output_shape(self.inner.output_shape(event_shape))

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.inner.input_shape(self.outer.input_shape(measurement_shape))

    @property
    def measured(self) -> Tensor | None:
        return self.outer.measured


@final
class Sum(LinearOperator):
    """A + B: x -> A(x) + B(x); an entry carries data if either operator measures it."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        self.event_shape = _same("image shapes", first.event_shape, second.event_shape)
        if self.event_shape is None:
            self.measurement_shape = _same(
                "measurement shapes", first.measurement_shape, second.measurement_shape
            )
        else:
            self.measurement_shape = _same(
                "measurement shapes",
                first.output_shape(self.event_shape),
                second.output_shape(self.event_shape),
            )
        self.event_ndim = first.event_ndim or second.event_ndim
        self.measurement_ndim = first.measurement_ndim or second.measurement_ndim
        self.event_field = _meet("images", first.event_field, second.event_field)
        self.measurement_field = _meet(
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

    def _apply(self, x: Tensor) -> Tensor:
        return self.factor * self.base._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.factor * self.base._adjoint(y)

    def output_shape(self, event_shape: Shape) -> Shape:
        return self.base.output_shape(event_shape)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.base.input_shape(measurement_shape)

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor | None:
        return self.base._solve_isotropic(r, self.factor**2 * c, s)

    @property
    def measured(self) -> Tensor | None:
        return self.base.measured

    @property
    def svd(self) -> SVD | None:
        svd = self.base.svd
        return None if svd is None else _ScaledSVD(svd, self.factor)


@final
class Stack(LinearOperator):
    """Several measurements of one image: x -> (A_1 x, A_2 x, ...), flattened and concatenated.

    y has shape (B, M_1 + M_2 + ...); `split(y)` gives the pieces in their own shapes.

    Args:
        operators: the A_i; their measurements may differ in shape.
        event_shape: image shape, needed only if every operator accepts any size.

    Raises:
        ValueError: no operator, no known image shape, or shapes or fields that do not fit.
    """

    measurement_ndim = 1

    def __init__(
        self, operators: Sequence[LinearOperator], event_shape: Shape | None = None
    ) -> None:
        self.operators = tuple(operators)
        if not self.operators:
            raise ValueError("Stack needs at least one operator, got none")
        shape = None if event_shape is None else check_shape("event_shape", event_shape)
        for A in self.operators:
            shape = _same("image shapes", shape, A.event_shape)
        if shape is None:
            raise ValueError(
                "every stacked operator accepts any image size: pass Stack(operators, "
                "event_shape=(C, H, W))"
            )
        self.event_shape = shape
        self.event_ndim = len(shape)
        self.pieces = tuple(A.output_shape(shape) for A in self.operators)
        self.sizes = tuple(math.prod(piece) for piece in self.pieces)
        self.measurement_shape = (sum(self.sizes),)
        self.event_field = self.operators[0].event_field
        self.measurement_field = self.operators[0].measurement_field
        for A in self.operators[1:]:
            self.event_field = _meet("images", self.event_field, A.event_field)
            self.measurement_field = _meet(
                "measurements", self.measurement_field, A.measurement_field
            )

    def split(self, y: Tensor) -> tuple[Tensor, ...]:
        """The measurements of each operator, (B, *measurement_i), from y (B, M)."""
        if y.ndim != 2 or (y.shape[1],) != self.measurement_shape:
            raise ValueError(f"y has shape {tuple(y.shape)}, expected (B, {sum(self.sizes)})")
        parts = y.split(list(self.sizes), dim=1)
        return tuple(p.reshape(-1, *shape) for p, shape in zip(parts, self.pieces, strict=True))

    def _apply(self, x: Tensor) -> Tensor:
        return torch.cat([A.apply(x).flatten(1) for A in self.operators], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        pieces = zip(self.operators, self.split(y), strict=True)
        images = [A.adjoint(piece) for A, piece in pieces]
        return torch.stack(images).sum(0) if len(images) > 1 else images[0]

    @property
    def measured(self) -> Tensor | None:
        masks = [A.measured for A in self.operators]
        if all(mask is None for mask in masks):
            return None
        full = [
            torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
            for mask, shape in zip(masks, self.pieces, strict=True)
        ]
        return torch.cat([mask.flatten() for mask in full])
