"""Real images as complex ones: how a prior on real images enters a complex measurement.

Both maps are linear over the reals with <a, b> = Re sum conj(a) b, and preserve norms: A^T A = I.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import (
    Constant,
    Field,
    Shape,
    check_dtype,
    check_finite,
    check_image_shape,
    check_shape,
    check_tensor,
)
from ..linear import Isometry
from ..linear.linear_operator import divide


@final
class RealToComplex(Isometry):
    """z = exp(i phi) x: a real image with a known phase, or with none; z has the shape of x.

    Its adjoint is Re(exp(-i phi) z), so that `MRI(mask) @ RealToComplex(phi)` measures an image
    known to be real up to the phase phi. A^T A = I over the reals: `solve` with C = c I is in
    closed form, and `svd` (real coefficients, singular values 1) once `image_shape` is set. What is
    measured after it gets no closed form from it, as A A^T is no multiple of the identity: it keeps
    the part in phase with phi alone. Cost: one product per pixel.

    Args:
        phase: phi in radians, (H, W), for images (C, H, W); default zero, for images of any shape.
        image_shape: of the real image, which `svd` needs: (C, H, W), or any without a phase.

    Raises:
        TypeError: the phase is not a real tensor.
        ValueError: NaN, a shape other than (H, W), or an image shape that does not fit.

    Paper: Noll, Nishimura and Macovski, Homodyne detection in magnetic resonance imaging, 1991,
    https://doi.org/10.1109/42.79473
    """

    measurement_field: Field = "complex"
    onto = False

    def __init__(self, phase: Tensor | None = None, image_shape: Shape | None = None) -> None:
        self._factor: Constant | None = None
        if phase is not None:
            self._factor = self._rotation(phase)
            self.event_ndim = self.measurement_ndim = 3
        if image_shape is not None:
            shape = check_shape("image_shape", image_shape)
            if self._factor is not None:
                shape = check_image_shape(shape)
            self.event_shape = self.measurement_shape = self.output_shape(shape)
            self.event_ndim = self.measurement_ndim = len(shape)

    @staticmethod
    def _rotation(phase: Tensor) -> Constant:
        """exp(i phi)."""
        check_tensor("phase", phase)
        check_dtype("phase", phase, "real")
        if phase.ndim != 2 or 0 in phase.shape:
            raise ValueError(f"phase has shape {tuple(phase.shape)}, expected (H, W)")
        check_finite("phase", phase)
        double = phase.to(torch.float64)
        return Constant(torch.polar(torch.ones_like(double), double))

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

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor:
        # A A^T keeps the part of r in phase with phi and drops the part in quadrature.
        r = self._rotate(r, back=True)
        return self._rotate(torch.complex(divide(r.real, c + s), divide(r.imag, s)), back=False)


@final
class ChannelsToComplex(Isometry):
    """z = x_1 + i x_2: two real channels, (2, H, W), as one complex image, (1, H, W).

    Orthogonal over the reals, its inverse is its adjoint (Re z, Im z); `solve` with C = c I is one
    division, and `svd` (real coefficients, singular values 1) is known once `image_shape` is set.
    An operator after it keeps its own closed forms: `MRI(mask) @ ChannelsToComplex()` has those of
    `MRI`. It lets a prior trained on real and imaginary part as channels see complex data. Cost:
    one copy of the image.

    Args:
        image_shape: (2, H, W), which `svd` needs; default any height and width.

    Raises:
        ValueError: an image shape that is not (2, H, W).

    Paper: Zbontar et al., fastMRI: an open dataset and benchmarks for accelerated MRI, 2018,
    https://arxiv.org/abs/1811.08839
    """

    event_ndim = 3
    measurement_ndim = 3
    measurement_field: Field = "complex"

    def __init__(self, image_shape: Shape | None = None) -> None:
        if image_shape is not None:
            shape = check_image_shape(image_shape)
            self.measurement_shape = self.output_shape(shape)
            self.event_shape = shape

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
