"""Parameters of noise models: one number, or one for each entry of a measurement."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, check_dtype, check_finite


@final
class PerEntry:
    """A fixed positive parameter, () or of the shape of one measurement.

    Args:
        name: how errors call it.
        value: a number, or a real tensor with one value per entry.
        zero: whether it may be zero.

    Raises:
        TypeError: it is no real number or tensor.
        ValueError: it is negative, zero where that is not allowed, or not finite.
    """

    def __init__(self, name: str, value: float | Tensor, *, zero: bool = False) -> None:
        if isinstance(value, Tensor):
            check_dtype(name, value, "real")
            check_finite(name, value)
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
        double = torch.as_tensor(value, dtype=torch.float64)
        if double.numel() == 0:
            raise ValueError(f"{name} is empty; pass a number, or one for each entry")
        least, self.largest = float(double.min()), float(double.max())
        self.least = least
        if not (least > 0 or (zero and least == 0)) or not self.largest < math.inf:
            kind = "zero or positive" if zero else "positive"
            worst = self.largest if least > 0 else least
            raise ValueError(f"{name} must be {kind} and finite, got {worst:g}")
        self.name, self._constant = name, Constant(double)

    def like(self, z: Tensor) -> Tensor:
        """The parameter in the precision and on the device of z (B, *measurement).

        Raises ValueError if it has one value per entry of another shape than z has.
        """
        value = self._constant.like(z)
        if value.is_complex():
            value = value.real
        if value.ndim > 0 and value.shape != z.shape[1:]:
            raise ValueError(
                f"{self.name} has shape {tuple(value.shape)}, the measurement {tuple(z.shape[1:])}"
            )
        return value
