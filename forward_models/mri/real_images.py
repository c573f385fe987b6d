"""Real images as complex ones: how a prior on real images enters a complex measurement.

Both maps are linear over the reals with <a, b> = Re sum conj(a) b, and preserve norms: A^T A = I.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, Shape, check_dtype, check_finite, check_tensor
from ..linear import LinearOperator
from ..linear.linear_operator import divide


@final
class RealToComplex(LinearOperator):
    """z = exp(i phi) x: a real image with a known phase, or with none; z has the shape of x.

    Its adjoint is Re(exp(-i phi) z), so that `MRI(mask) @ RealToComplex(phi)` measures an image
    known to be real up to the phase phi. `solve` with C = c I is in closed form.

    Args:
        phase: phi in radians, (H, W), for images (C, H, W); default zero, for images of any shape.

    Raises:
        TypeError: the phase is not a real tensor.
        ValueError: NaN, or a shape other than (H, W).
    """

    measurement_field: Field = "complex"

    def __init__(self, phase: Tensor | None = None) -> None:
        self._factor: Constant | None = None
        if phase is None:
            return
        check_tensor("phase", phase)
        check_dtype("phase", phase, "real")
        if phase.ndim != 2 or 0 in phase.shape:
            raise ValueError(f"phase has shape {tuple(phase.shape)}, expected (H, W)")
        check_finite("phase", phase)
        double = phase.to(torch.float64)
        self._factor = Constant(torch.polar(torch.ones_like(double), double))
        self.event_ndim = self.measurement_ndim = 3

    def output_shape(self, event_shape: Shape) -> Shape:
        if self._factor is not None and event_shape[-2:] != self._factor.value.shape:
            raise ValueError(
                f"the image is {event_shape}, the phase {tuple(self._factor.value.shape)}: they "
                "must agree in height and width"
            )
        return event_shape

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.output_shape(measurement_shape)

    def _rotate(self, z: Tensor, back: bool) -> Tensor:
        if self._factor is None:
            return z
        factor = self._factor.like(z)
        return z * (factor.conj() if back else factor)

    def _apply(self, x: Tensor) -> Tensor:
        return self._rotate(torch.complex(x, torch.zeros_like(x)), back=False)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._rotate(y, back=True).real

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor:
        # A A^T keeps the part of r in phase with phi and drops the part in quadrature.
        r = self._rotate(r, back=True)
        return self._rotate(torch.complex(divide(r.real, c + s), divide(r.imag, s)), back=False)


@final
class ChannelsToComplex(LinearOperator):
    """z = x_1 + i x_2: two real channels, (2, H, W), as one complex image, (1, H, W).

    Orthogonal over the reals, its inverse is its adjoint (Re z, Im z); `solve` with C = c I is one
    division. It lets a prior trained on real and imaginary part as channels see complex data.
    """

    event_ndim = 3
    measurement_ndim = 3
    measurement_field: Field = "complex"

    def output_shape(self, event_shape: Shape) -> Shape:
        if event_shape[0] != 2:
            raise ValueError(
                f"the image is {event_shape}, expected two channels, real and imaginary part"
            )
        return (1, *event_shape[1:])

    def input_shape(self, measurement_shape: Shape) -> Shape:
        if measurement_shape[0] != 1:
            raise ValueError(f"the complex image is {measurement_shape}, expected one channel")
        return (2, *measurement_shape[1:])

    def _apply(self, x: Tensor) -> Tensor:
        return torch.complex(x[:, :1], x[:, 1:])

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([y.real, y.imag], dim=1)

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _gram_diagonal(self, y: Tensor) -> Tensor:
        return torch.ones((), dtype=y.dtype.to_real(), device=y.device)
