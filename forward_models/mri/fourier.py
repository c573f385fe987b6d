"""The centred unitary Fourier transform: the convention of every operator of this room.

    k = fftshift(fft2(ifftshift(x), norm="ortho"))

Image and k-space both have their origin at index n // 2 of an axis of n samples, and k-space index
j stands for (j - n // 2) / n cycles per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, Shape, check_image_shape
from ..linear import SVD, Isometry

_PLANE = (-2, -1)


@lru_cache(maxsize=16)
def _signs(height: int, width: int) -> tuple[Constant, Constant]:
    """s = (-1)^(i + j) and (-1)^(H / 2 + W / 2) s, (H, W)."""
    s = 1.0 - 2.0 * ((torch.arange(height)[:, None] + torch.arange(width)) % 2).double()
    return Constant(s), Constant(s * (-1) ** (height // 2 + width // 2))


def _centered(transform: Callable[..., Tensor], x: Tensor) -> Tensor:
    """The transform between centred axes.

    For even sizes a shift by half of an axis is a change of sign of every other sample of the
    transform: exact, and faster than moving the data.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        shifted = transform(torch.fft.ifftshift(x, _PLANE), norm="ortho")
        return torch.fft.fftshift(shifted, _PLANE)
    before, after = _signs(height, width)
    return transform(x * before.like(x), norm="ortho") * after.like(x)


def to_kspace(x: Tensor) -> Tensor:
    """F x over the last two axes: k = fftshift(fft2(ifftshift(x), norm="ortho"))."""
    return _centered(torch.fft.fft2, x)


def to_image(k: Tensor) -> Tensor:
    """F^H k over the last two axes, the inverse of `to_kspace`."""
    return _centered(torch.fft.ifft2, k)


@final
class SampledFourierSVD(SVD):
    """M F = U diag(1) V^H: U holds the sampled unit vectors, V the waves they measure.

    Args:
        mask: bool, the shape of an image (C, H, W); true where k-space is sampled.
    """

    def __init__(self, mask: Tensor) -> None:
        self._shape = tuple(mask.shape)
        self._index = Constant(mask.flatten().nonzero().flatten())
        self.singular_values = torch.ones(len(self._index.value), dtype=torch.float64)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return self.to_spectral_y(to_kspace(x))

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return to_image(self.from_spectral_y(z))

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return y.flatten(1).index_select(1, self._index.like(y))

    def from_spectral_y(self, z: Tensor) -> Tensor:
        zero = z.new_zeros(z.shape[0], math.prod(self._shape))
        return zero.index_copy(1, self._index.like(z), z).reshape(-1, *self._shape)


@final
class CenteredFourier(Isometry):
    """y = F x, the centred unitary Fourier transform of each channel, (C, H, W) complex.

        y[k] = 1 / sqrt(H W) sum_n x[n] exp(-2 pi i (k - c) . (n - c) / (H, W)),  c = (H, W) // 2

    F^H = F^-1, so that `T` is the inverse and `solve` with C = c I is one division. Any size, even
    or odd. All singular values are 1. Cost: one fast Fourier transform.

    Args:
        image_shape: (C, H, W), which `svd` needs; default any.

    Raises:
        ValueError: an image shape that is not (C, H, W).

    Paper: Zbontar et al., fastMRI: an open dataset and benchmarks for accelerated MRI, 2018,
    https://arxiv.org/abs/1811.08839
    """

    event_ndim = 3
    measurement_ndim = 3
    event_field: Field = "complex"
    measurement_field: Field = "complex"

    def __init__(self, image_shape: Shape | None = None) -> None:
        if image_shape is not None:
            shape = check_image_shape(image_shape)
            self.event_shape = self.measurement_shape = shape

    def _apply(self, x: Tensor) -> Tensor:
        return to_kspace(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return to_image(y)
