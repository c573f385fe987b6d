"""Circular convolution: diagonal in the Fourier basis, and its real singular vectors."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Shape
from ..linear import SVD
from ..linear.svd import without_rounding


def periodic(kernels: Tensor, height: int, width: int) -> Tensor:
    """Kernels (C, h, w) laid on a periodic grid, (C, H, W), tap m at m - n // 2 along each axis.

    Kernels larger than the grid wrap around it and add up.
    """
    rows, columns = (
        (torch.arange(n, device=kernels.device) - n // 2) % size
        for n, size in zip(kernels.shape[-2:], (height, width), strict=True)
    )
    tall = kernels.new_zeros(len(kernels), height, kernels.shape[-1])
    tall = tall.index_add(1, rows, kernels)
    return tall.new_zeros(len(kernels), height, width).index_add(2, columns, tall)


@final
class HartleySVD(SVD):
    """Circular convolution A = U diag(|k^|) V^T with V = H, U = P H, per channel.

    H is the orthonormal, symmetric two-dimensional Hartley transform, Re F - Im F, and P the
    convolution with the phase k^ / |k^|: real and orthogonal because k is real.

    Args:
        kernels: (C, H, W) or (1, H, W), on the periodic grid of the image.
        shape: (C, H, W) of the image.
    """

    def __init__(self, kernels: Tensor, shape: Shape) -> None:
        spectrum = without_rounding(torch.fft.fft2(kernels), math.prod(kernels.shape[-2:]))
        modulus = spectrum.abs()
        self._phase = Constant(torch.where(modulus > 0, spectrum / modulus, 1.0))
        self._shape = shape
        self.singular_values = modulus.expand(shape).flatten()

    @staticmethod
    def _hartley(x: Tensor) -> Tensor:
        f = torch.fft.fft2(x, norm="ortho")
        return f.real - f.imag

    def _filter(self, x: Tensor, phase: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(x) * phase).real

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return self._hartley(x).flatten(1)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return self._hartley(z.reshape(-1, *self._shape))

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return self.to_spectral_x(self._filter(y, self._phase.like(y).conj()))

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self._filter(self.from_spectral_x(z), self._phase.like(z))
