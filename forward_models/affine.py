"""Affine maps of images: a change of unit, such as Hounsfield units to attenuation."""

from __future__ import annotations

from typing import final

from torch import Tensor

from .checks import Field, check_number
from .linear import Identity, LinearOperator
from .operator import Chain, Operator, Pointwise


@final
class Affine(Pointwise):
    """f(x) = scale * x + shift, for images of any shape; real or complex.

    Between a prior's unit and that of an operator: `A @ Affine(scale, shift)`. With Gaussian noise
    an observation through it is still exactly linear-Gaussian.

    Args:
        scale: a number other than 0.
        shift: a number, in the unit of f(x).

    Raises:
        TypeError: they are no numbers. ValueError: not finite, or scale is 0.
    """

    event_field: Field = "any"
    measurement_field: Field = "any"

    def __init__(self, scale: float, shift: float) -> None:
        self.scale, self.shift = check_number("scale", scale), check_number("shift", shift)
        if self.scale == 0:
            raise ValueError("scale is 0: nothing of the image would be left")

    def _apply(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


def linear_part(operator: Operator) -> LinearOperator | None:
    """A of an affine operator x -> A x + f(0); None where f is not known to be affine."""
    if isinstance(operator, LinearOperator):
        return operator
    if isinstance(operator, Affine):
        return operator.scale * Identity()
    if not isinstance(operator, Chain):
        return None
    outer, inner = linear_part(operator.outer), linear_part(operator.inner)
    if outer is None or inner is None:
        return None
    # A number in front keeps the closed forms of the other factor.
    if isinstance(operator.inner, Affine):
        return operator.inner.scale * outer
    if isinstance(operator.outer, Affine):
        return operator.outer.scale * inner
    return outer @ inner
