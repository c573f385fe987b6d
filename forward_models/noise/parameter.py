"""Parameters of noise models: one number, or one for each entry of a measurement."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Shape, check_dtype, check_finite, check_number


@final
class PerEntry:
    """A fixed positive parameter, () or of the shape of one measurement.

    Attributes:
        value: a number, or a copy of the tensor that was given.
        least, largest: of the values.

    Args:
        name: how errors call it.
        value: a number, or a real tensor with one value per entry.
        zero: whether it may be zero.
        advice: what to do where it is zero and may not be.

    Raises:
        TypeError: it is no real number or tensor.
        ValueError: it is negative, zero where that is not allowed, not finite, or empty.
    """

    def __init__(
        self, name: str, value: float | Tensor, *, zero: bool = False, advice: str = ""
    ) -> None:
        if isinstance(value, Tensor):
            check_dtype(name, value, "real")
            check_finite(name, value)
            if value.numel() == 0:
                raise ValueError(f"{name} is empty; pass a number, or one for each entry")
            self.value = value.detach().clone() if value.ndim > 0 else float(value)
        else:
            self.value = check_number(name, value)
        double = torch.as_tensor(self.value, dtype=torch.float64)
        self.least, self.largest = float(double.min()), float(double.max())
        if self.least < 0 or (self.least == 0 and not zero):
            kind = "zero or positive" if zero else "positive"
            hint = f"; {advice}" if advice and self.least == 0 else ""
            raise ValueError(f"{name} must be {kind} and finite, got {self.least:g}{hint}")
        self.name, self._constant = name, Constant(double)

    @property
    def double(self) -> Tensor:
        """The parameter in double precision, () or (*measurement)."""
        return self._constant.value

    def check_shape(self, shape: Shape) -> None:
        """Raise ValueError if it has one value per entry of another shape than a measurement's."""
        own = tuple(self.double.shape)
        if own not in ((), tuple(shape)):
            raise ValueError(
                f"{self.name} has shape {own}, expected one number or the shape of a measurement, "
                f"{tuple(shape)}"
            )

    def like(self, z: Tensor) -> Tensor:
        """The parameter in the precision and on the device of z (B, *measurement).

        Raises ValueError if it does not fit the shape of z.
        """
        self.check_shape(z.shape[1:])
        return self._constant.like(z)


def standard_deviation(sigma: float | Tensor) -> PerEntry:
    """sigma of Gaussian noise that has no other source of randomness."""
    advice = (
        "a noiseless measurement has no density: pass a small sigma instead, e.g. one thousandth "
        "of the range of y"
    )
    return PerEntry("sigma", sigma, advice=advice)
