"""Volumes measured slice by slice."""

from __future__ import annotations

from typing import final

from torch import Tensor

from ..checks import check_shape
from ..linear import LinearOperator


@final
class SliceStack(LinearOperator):
    """The same operator on every slice of a volume: (B, C, D, H, W) to (B, C', D, ...).

    For `Tomography` or `FanBeam`, a stack of D slices, (B, 1, D, H, W), gives (B, 1, D, A, J): the
    scan of a volume by one row of detectors per slice. Exact; the one matrix of the slice serves
    all of them as D columns. Cost: that of a batch of B D images.

    Args:
        operator: of one slice, with known shapes (C, H, W) and (C', ...).
        slices: D.

    Raises:
        ValueError: slices not positive, or an operator without fixed shapes of three axes.
    """

    event_ndim = 4
    measurement_ndim = 4

    def __init__(self, operator: LinearOperator, slices: int) -> None:
        (self.slices,) = check_shape("slices", (slices,))
        event, measurement = operator.event_shape, operator.measurement_shape
        if event is None or measurement is None or len(event) != 3 or len(measurement) != 3:
            raise ValueError(
                "SliceStack needs an operator that fixes its shapes, (C, H, W) to three axes, got "
                f"{event} to {measurement}"
            )
        self.operator = operator
        self.event_shape = (event[0], self.slices, *event[1:])
        self.measurement_shape = (measurement[0], self.slices, *measurement[1:])
        self.event_field, self.measurement_field = operator.event_field, operator.measurement_field

    def fold(self, volume: Tensor) -> Tensor:
        """(B, C, D, ...) to (B D, C, ...): the slices become a batch."""
        return volume.movedim(2, 1).flatten(0, 1)

    def unfold(self, slices: Tensor) -> Tensor:
        """(B D, C, ...) to (B, C, D, ...)."""
        return slices.unflatten(0, (-1, self.slices)).movedim(1, 2)

    def _apply(self, x: Tensor) -> Tensor:
        return self.unfold(self.operator._apply(self.fold(x)))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.unfold(self.operator._adjoint(self.fold(y)))

    @property
    def measured(self) -> Tensor | None:
        measured = self.operator.measured
        return None if measured is None else measured.unsqueeze(1)
