"""Operators f: what an ideal instrument makes of an image, linear or not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from .checks import Field, Shape, check_batched, check_dtype, check_same, check_tensor
from .words import described


class Operator(ABC):
    """A map f from images (B, *event) to clean measurements (B, *measurement), sample by sample.

    An author writes `_apply`; it is differentiable by autograd unless `differentiable` says
    otherwise. Single and double precision are accepted and kept. `LinearOperator` adds the adjoint.

    Attributes:
        event_shape: shape of one image, or None if any size is accepted.
        measurement_shape: shape of one measurement, or None if it follows from the image's.
        event_ndim, measurement_ndim: their number of axes, or None if any.
        event_field, measurement_field: "real", "complex", or "any" of the two.
        differentiable: whether autograd sees through `apply`.
    """

    event_shape: Shape | None = None
    measurement_shape: Shape | None = None
    event_ndim: int | None = None
    measurement_ndim: int | None = None
    event_field: Field = "real"
    measurement_field: Field = "real"
    differentiable: bool = True

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """f(x) for a checked x."""

    def __repr__(self) -> str:
        shapes = {"event_shape": self.event_shape, "measurement_shape": self.measurement_shape}
        return described(self, **shapes)

    def check_image(self, x: Tensor) -> None:
        """Raise TypeError for a dtype and ValueError for a shape of x that does not fit."""
        check_tensor("x", x)
        check_dtype("x", x, self.event_field)
        check_batched("x", x, self.event_shape, self.event_ndim)
        self.output_shape(tuple(x.shape[1:]))

    def apply(self, x: Tensor) -> Tensor:
        """f(x): (B, *event) to (B, *measurement).

        Raises TypeError for a dtype and ValueError for a shape that does not fit.
        """
        self.check_image(x)
        return self._apply(x)

    def __call__(self, x: Tensor) -> Tensor:
        return self.apply(x)

    def record(self, x: Tensor) -> Tensor:
        """What the instrument returns; differs from `apply` only where that is a surrogate."""
        return self.apply(x)

    def output_shape(self, event_shape: Shape) -> Shape:
        """Shape of the measurement of an image of this shape; raises ValueError if it cannot be."""
        return self.measurement_shape or event_shape

    def input_shape(self, measurement_shape: Shape) -> Shape | None:
        """Shape of the image behind a measurement of this shape, found without computing it.

        None where the operator does not know it; raises ValueError if no image gives this shape.
        """
        return self.event_shape

    @property
    def measured(self) -> Tensor | None:
        """Which entries of y carry data: bool, broadcastable to a measurement; None means all."""
        return None

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """J(x) v, (B, *measurement), for v like x.

        By forward differentiation, about the cost of two evaluations of f; where some function in f
        has a backward pass alone, by differentiating u -> J(x)^T u, some two more. Raises
        RuntimeError if f is not differentiable.
        """
        self._check_differentiable()
        self.check_image(x)
        check_same("v", v, "x", x)
        try:
            result: Tensor = torch.func.jvp(self._apply, (x,), (v,))[1]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            # What torch raises where a forward derivative is missing; an error of f itself, which
            # is of the same type, comes back from the second way.
            return self._jvp_by_backward(x, v)
        return result

    def _jvp_by_backward(self, x: Tensor, v: Tensor) -> Tensor:
        """J(x) v, as J v is the derivative of u -> J^T u, which is linear in u."""
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_()
            y = self._apply(leaf)
            u = torch.zeros_like(y, requires_grad=True)
            (pulled,) = torch.autograd.grad(y, leaf, u, create_graph=True)
            (result,) = torch.autograd.grad(pulled, u, v, create_graph=x.requires_grad)
        return result

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        """J(x)^T u, (B, *event), for u like f(x); the conjugate transpose for complex tensors.

        Costs one evaluation of f and one gradient; differentiable in x and u. Raises RuntimeError
        if f is not differentiable.
        """
        self._check_differentiable()
        self.check_image(x)
        check_tensor("u", u)
        keep_graph = torch.is_grad_enabled() and (x.requires_grad or u.requires_grad)
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_()
            y = self._apply(leaf)
            check_same("u", u, "f(x)", y)
            (result,) = torch.autograd.grad(y, leaf, u, create_graph=keep_graph)
        return result

    def _check_differentiable(self) -> None:
        if not self.differentiable:
            raise RuntimeError(f"{type(self).__name__} is a black box: it has no derivative")

    def __matmul__(self, other: Operator) -> Operator:
        """f @ g, the operator x -> f(g(x))."""
        return Chain(self, other) if isinstance(other, Operator) else NotImplemented


class Pointwise(Operator):
    """An operator that maps every entry alone, y_i = f(x_i): a tone curve, a modulus.

    It keeps the shape, and after another operator it keeps which entries carry data.
    """

    def input_shape(self, measurement_shape: Shape) -> Shape:
        """Shape of the image behind a measurement of this shape: the same."""
        return measurement_shape


@final
class Chain(Operator):
    """f @ g: x -> f(g(x)), where at least one of the two is not linear.

    Raises ValueError if the output of g cannot be the input of f.
    """

    def __init__(self, outer: Operator, inner: Operator) -> None:
        self.outer, self.inner = outer, inner
        given, taken = inner.measurement_field, outer.event_field
        if given != taken and "any" not in (given, taken):
            raise ValueError(
                f"the inner operator gives {given} values, the outer one takes {taken} ones"
            )
        self.event_shape, self.event_ndim = inner.event_shape, inner.event_ndim
        if self.event_shape is None and outer.event_shape is not None:
            self.event_shape = inner.input_shape(outer.event_shape)
        # An operator that takes either field gives back the one it took.
        self.event_field, self.measurement_field = inner.event_field, outer.measurement_field
        if inner.event_field == inner.measurement_field == "any":
            self.event_field = outer.event_field
        if outer.event_field == outer.measurement_field == "any":
            self.measurement_field = inner.measurement_field
        middle = inner.measurement_shape
        if middle is None and self.event_shape is not None:
            middle = inner.output_shape(self.event_shape)
        if None not in (middle, outer.event_shape) and middle != outer.event_shape:
            raise ValueError(
                f"the inner operator gives {middle}, the outer one takes {outer.event_shape}"
            )
        self._last = inner if _keeps_entries(outer) else outer
        self.measurement_ndim = self._last.measurement_ndim
        if _keeps_entries(inner):
            self.event_ndim = outer.event_ndim
        self.measurement_shape = outer.measurement_shape
        if self.measurement_shape is None and middle is not None:
            self.measurement_shape = outer.output_shape(middle)
        self.differentiable = outer.differentiable and inner.differentiable

    def _apply(self, x: Tensor) -> Tensor:
        return self.outer.apply(self.inner._apply(x))

    def record(self, x: Tensor) -> Tensor:
        return self.outer.record(self.inner.record(x))

    def output_shape(self, event_shape: Shape) -> Shape:
        return self.outer.output_shape(self.inner.output_shape(event_shape))

    def input_shape(self, measurement_shape: Shape) -> Shape | None:
        if self.event_shape is not None:
            return self.event_shape
        middle = self.outer.input_shape(measurement_shape)
        return None if middle is None else self.inner.input_shape(middle)

    @property
    def measured(self) -> Tensor | None:
        return self._last.measured


def _keeps_entries(f: Operator) -> bool:
    """Whether every entry is mapped alone."""
    if isinstance(f, Chain):
        return _keeps_entries(f.outer) and _keeps_entries(f.inner)
    return isinstance(f, Pointwise)
