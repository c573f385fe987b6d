"""A B: one operator after another."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from ..checks import Shape
from .algebra import meet, same
from .linear_operator import LinearOperator
from .svd import SVD


@final
class _ComposedSVD(SVD):
    """A B = U (g s) (V^T B / g) for B B^T = g^2 I and A = U diag(s) V^T."""

    def __init__(self, outer: SVD, inner: LinearOperator, scale: float) -> None:
        self.outer, self.inner, self.scale = outer, inner, scale
        self.singular_values = scale * outer.singular_values

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return self.outer.to_spectral_x(self.inner._apply(x)) / self.scale

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer.from_spectral_x(z)) / self.scale

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return self.outer.to_spectral_y(y)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self.outer.from_spectral_y(z)


def _real_parts(z: Tensor) -> Tensor:
    """Real and imaginary parts of z (B, R) one after the other, (B, 2 R)."""
    return torch.view_as_real(z.resolve_conj()).flatten(1)


@final
class _RealCoordinatesSVD(SVD):
    """A complex decomposition as one over the reals: real and imaginary part of each coordinate."""

    def __init__(self, base: SVD) -> None:
        self.base = base
        self.singular_values = base.singular_values.repeat_interleave(2)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return _real_parts(self.base.to_spectral_x(x))

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return self.base.from_spectral_x(torch.view_as_complex(z.unflatten(1, (-1, 2))))

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return _real_parts(self.base.to_spectral_y(y))

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self.base.from_spectral_y(torch.view_as_complex(z.unflatten(1, (-1, 2))))


@final
class Composition(LinearOperator):
    """A B: x -> A(B(x)), adjoint B^T A^T.

    If B B^T is a multiple of the identity, every closed form of A serves A B too: the diagonal of
    its Gram matrix, its solve, and its `svd` once the image shape is known.

    `measured` is that of A; where A acts on every entry alone (`entrywise`: a mask, a multiple of
    the identity), both A and B must measure an entry. Any other A may spread what B leaves unseen.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        meet("output of the inner and input of the outer operator",
              inner.measurement_field, outer.event_field)  # fmt: skip
        middle = inner.measurement_shape
        self.event_shape = inner.event_shape
        if self.event_shape is None and outer.event_shape is not None:
            self.event_shape = inner.input_shape(outer.event_shape)
        if middle is None and self.event_shape is not None:
            middle = inner.output_shape(self.event_shape)
        same("output of the inner and input of the outer operator", middle, outer.event_shape)
        self.measurement_shape = outer.measurement_shape
        if self.measurement_shape is None and middle is not None:
            self.measurement_shape = outer.output_shape(middle)
        self.event_ndim, self.measurement_ndim = inner.event_ndim, outer.measurement_ndim
        # An operator that takes either field gives back the one it took.
        self.event_field, self.measurement_field = inner.event_field, outer.measurement_field
        if inner.event_field == inner.measurement_field == "any":
            self.event_field = outer.event_field
        if outer.event_field == outer.measurement_field == "any":
            self.measurement_field = inner.measurement_field
        self.entrywise = outer.entrywise and inner.entrywise
        self.outer, self.inner = outer, inner

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer.apply(self.inner._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer._adjoint(y))

    def output_shape(self, event_shape: Shape) -> Shape:
        return self.outer.output_shape(self.inner.output_shape(event_shape))

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.inner.input_shape(self.outer.input_shape(measurement_shape))

    def _sized(self, shape: Shape) -> LinearOperator:
        inner = self.inner.sized(shape)
        outer = self.outer.sized(inner.output_shape(shape))
        known = inner is self.inner and outer is self.outer
        return self if known else Composition(outer, inner)

    def _normal(self, x: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.normal.apply(self.inner._apply(x)))

    def _inner_gram(self, y: Tensor) -> Tensor | None:
        """g, () or (1, ...), if B B^T = g I in the precision of y (B, *measurement); else None."""
        dtype = y.dtype
        if self.inner.measurement_field != "any":
            complex_ = self.inner.measurement_field == "complex"
            dtype = dtype.to_complex() if complex_ else dtype.to_real()
        middle = self.outer.input_shape(tuple(y.shape[1:]))
        # Only its shape and dtype count: no memory is taken.
        like = torch.empty((), dtype=dtype, device=y.device).expand(len(y), *middle)
        gram = self.inner._gram_diagonal(like)
        return gram if gram is not None and gram.numel() == 1 else None

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        gram, inner = self.outer._gram_diagonal(y), self._inner_gram(y)
        return None if gram is None or inner is None else gram * inner.reshape(())

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor | None:
        inner = self._inner_gram(r)
        return None if inner is None else self.outer._solve_isotropic(r, c * inner.reshape(()), s)

    @cached_property
    def svd(self) -> SVD | None:
        outer = self.outer.svd
        if outer is None or self.measurement_shape is None:
            return None
        y = torch.empty((), dtype=torch.float64).expand(1, *self.measurement_shape)
        gram = self._inner_gram(y)
        if gram is None or float(gram) == 0:
            return None
        svd = _ComposedSVD(outer, self.inner, math.sqrt(float(gram)))
        only_reals = self.event_field == "real" and self.inner.measurement_field == "complex"
        return _RealCoordinatesSVD(svd) if only_reals else svd

    @property
    def measured(self) -> Tensor | None:
        outer, inner = self.outer.measured, self.inner.measured
        if not self.outer.entrywise or inner is None:
            return outer
        return inner if outer is None else outer & inner
