"""Volumes measured slice by slice."""

from __future__ import annotations

from typing import final

from torch import Tensor

from ..checks import check_shape
from ..linear import LinearOperator


@final
class SliceStack(LinearOperator):
    """The same operator on every slice of a volume: (B, C, D, H, W) to (B, C', D, ...).

        y[:, :, k] = A x[:, :, k],    k = 0 ... D - 1,

    with the unit of A. For `Tomography` or `FanBeam`, a stack of D slices, (B, 1, D, H, W), gives
    (B, 1, D, angles, detectors): the scan of a volume by one row of detectors per slice. An entry
    is data (`measured`) in every slice where A says so.

    Exact; the one matrix of a projector serves all slices as D columns. No SVD, whatever A has, but
    `solve` is one division where A A^T is diagonal (`MRI`, `Inpainting`). Cost: that of A on a
    batch of B D images.

    Args:
        operator: A, of one slice, with known shapes (C, H, W) and (C', ...).
        slices: D.

    Raises:
        TypeError: the operator is no LinearOperator.
        ValueError: slices not positive, or an operator without fixed shapes of three axes.
    """

    event_ndim = 4
    measurement_ndim = 4

    def __init__(self, operator: LinearOperator, slices: int) -> None:
        if not isinstance(operator, LinearOperator):
            raise TypeError(
                f"operator must be a LinearOperator of one slice, got {type(operator).__name__}"
            )
        (self.slices,) = check_shape("slices", (slices,))
        event, measurement = operator.event_shape, operator.measurement_shape
        if event is None or measurement is None or len(event) != 3 or len(measurement) != 3:
            raise ValueError(
                "SliceStack needs an operator that fixes its shapes, (C, H, W) to three axes, got "
                f"{event} to {measurement}"
            )
        self.operator, self._slice = operator, measurement
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

    def _normal(self, x: Tensor) -> Tensor:
        return self.unfold(self.operator._normal(self.fold(x)))

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        slices = self.fold(y)
        gram = self.operator._gram_diagonal(slices)
        return None if gram is None else self.unfold(gram.expand(slices.shape))

    @property
    def measured(self) -> Tensor | None:
        measured = self.operator.measured
        # The axis of the slices goes in after C', which a mask of fewer axes leaves out.
        return None if measured is None else measured.expand(self._slice).unsqueeze(1)
