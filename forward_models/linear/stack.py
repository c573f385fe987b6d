"""Several measurements of one image, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ..checks import Shape, check_shape
from .algebra import meet, same
from .linear_operator import LinearOperator


def _total(images: list[Tensor]) -> Tensor:
    return torch.stack(images).sum(0) if len(images) > 1 else images[0]


@final
class Stack(LinearOperator):
    """Several measurements of one image: x -> (A_1 x, A_2 x, ...), flattened and concatenated.

    y has shape (B, M_1 + M_2 + ...); `split(y)` gives the pieces in their own shapes.

    Args:
        operators: the A_i, a list or tuple; their measurements may differ in shape.
        event_shape: image shape, needed only if every operator accepts any size.

    Raises:
        TypeError: not a sequence of LinearOperators.
        ValueError: no operator, no known image shape, or shapes or fields that do not fit.
    """

    measurement_ndim = 1

    def __init__(
        self, operators: Sequence[LinearOperator], event_shape: Shape | None = None
    ) -> None:
        if not isinstance(operators, Sequence):
            raise TypeError(
                f"operators must be a list of LinearOperators, got {type(operators).__name__}; "
                "pass Stack([A, B])"
            )
        self.operators = tuple(operators)
        for n, A in enumerate(self.operators):
            if not isinstance(A, LinearOperator):
                raise TypeError(
                    f"operators[{n}] must be a LinearOperator, got {type(A).__name__}; "
                    "from_function(f, event_shape) makes one of a linear function"
                )
        if not self.operators:
            raise ValueError("Stack needs at least one operator, got none")
        shape = None if event_shape is None else check_shape("event_shape", event_shape)
        for A in self.operators:
            shape = same("image shapes", shape, A.event_shape)
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
            self.event_field = meet("images", self.event_field, A.event_field)
            self.measurement_field = meet(
                "measurements", self.measurement_field, A.measurement_field
            )

    def split(self, y: Tensor) -> tuple[Tensor, ...]:
        """The measurements of each operator, (B, *measurement_i), from y (B, M)."""
        if y.ndim != 2 or (y.shape[1],) != self.measurement_shape:
            raise ValueError(f"y has shape {tuple(y.shape)}, expected (B, {sum(self.sizes)})")
        parts = y.split(list(self.sizes), dim=1)
        return tuple(p.reshape(-1, *shape) for p, shape in zip(parts, self.pieces, strict=True))

    def _sized(self, shape: Shape) -> LinearOperator:
        sized = tuple(A.sized(shape) for A in self.operators)
        known = all(A is B for A, B in zip(sized, self.operators, strict=True))
        return self if known else Stack(sized)

    def _apply(self, x: Tensor) -> Tensor:
        return torch.cat([A.apply(x).flatten(1) for A in self.operators], dim=1)

    def _adjoint(self, y: Tensor) -> Tensor:
        pieces = zip(self.operators, self.split(y), strict=True)
        return _total([A.adjoint(piece) for A, piece in pieces])

    def _normal(self, x: Tensor) -> Tensor:
        return _total([A.normal.apply(x) for A in self.operators])

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
