"""The unitary Fourier transform of images, real or complex."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor

from ..checks import Shape
from .orthonormal import Orthonormal


def hartley(x: Tensor) -> Tensor:
    """Re F x - Im F x: orthonormal, symmetric, its own inverse, real for real x."""
    f = torch.fft.fft2(x, norm="ortho")
    return f.real - f.imag


@final
class FourierTransform(Orthonormal):
    """y = F x, y[k, l] = (H W)^-1/2 sum_ij x[i, j] exp(-2 pi i (k i / H + l j / W)), per channel.

    numpy.fft.fft2(norm="ortho"): zero frequency first, not centred. Any size; O(N log N).

    For complex images F is unitary. For real ones the spectrum says everything twice, y[-k, -l] =
    conj y[k, l]: F^T y = Re F^-1 y with <a, b> = Re sum conj(a) b, F^T F = I still holds, but F F^T
    is the projection on spectra with that symmetry and no longer the identity. `solve` knows this.

    Args:
        image_shape: (C, H, W).
        field: whether images are "real" or "complex"; y is complex.
    """

    measurement_field = "complex"

    def __init__(self, image_shape: Shape, field: Literal["real", "complex"] = "real") -> None:
        super().__init__(image_shape)
        if field not in ("real", "complex"):
            raise ValueError(f"unknown field {field!r}; known: 'real', 'complex'")
        self.event_field = field
        self.onto = field == "complex"

    def _apply(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def _adjoint(self, y: Tensor) -> Tensor:
        x = torch.fft.ifft2(y, norm="ortho")
        return x.real if self.event_field == "real" else x
