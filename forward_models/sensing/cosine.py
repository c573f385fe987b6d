"""The discrete cosine transform of images."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Shape
from .orthonormal import Orthonormal


class _Axis:
    """The orthonormal DCT-II along the last axis, n long, and its inverse, by one real FFT.

    With v = (x0, x2, x4, ..., x5, x3, x1), V = FFT v and w_k = exp(-i pi k / 2n),
    sum_j x_j cos(pi k (2j + 1) / 2n) = Re w_k V_k, and -Im w_k V_k is that sum at n - k.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        k = torch.arange(n // 2 + 1, dtype=torch.float64)
        w = torch.polar(torch.full_like(k, math.sqrt(2 / n)), -math.pi * k / (2 * n))
        w[0] = math.sqrt(1 / n)
        self._forward, self._backward = Constant(w), Constant(1 / w)

    def apply(self, x: Tensor) -> Tensor:
        v = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
        spectrum = torch.view_as_real(torch.fft.rfft(v) * self._forward.like(x))
        mirrored = spectrum[..., 1 : (self.n + 1) // 2, 1].flip(-1)
        return torch.cat([spectrum[..., 0], -mirrored], -1)

    def inverse(self, y: Tensor) -> Tensor:
        n, half = self.n, self.n // 2 + 1
        mirrored = torch.cat([torch.zeros_like(y[..., :1]), y[..., n - half + 1 :].flip(-1)], -1)
        spectrum = torch.complex(y[..., :half], -mirrored) * self._backward.like(y)
        v = torch.fft.irfft(spectrum, n=n)
        even = (n + 1) // 2
        pairs = torch.stack([v[..., : n // 2], v[..., even:].flip(-1)], -1).flatten(-2)
        return pairs if n % 2 == 0 else torch.cat([pairs, v[..., even - 1 : even]], -1)


@final
class CosineTransform(Orthonormal):
    """y = the orthonormal two-dimensional DCT-II of each channel.

    y[k, l] = a_k b_l sum_ij x[i, j] cos(pi k (2i + 1) / 2H) cos(pi l (2j + 1) / 2W), with a_0 =
    sqrt(1/H), else sqrt(2/H), and b in the same way from W: scipy.fft.dctn(norm="ortho"). The
    adjoint is the inverse, the DCT-III. Any size; O(N log N).

    Args:
        image_shape: (C, H, W).

    Paper: Makhoul, A fast cosine transform in one and two dimensions,
    https://doi.org/10.1109/TASSP.1980.1163351
    """

    def __init__(self, image_shape: Shape) -> None:
        super().__init__(image_shape)
        _, height, width = self.image_shape
        self._rows, self._columns = _Axis(height), _Axis(width)

    def _apply(self, x: Tensor) -> Tensor:
        return self._columns.apply(self._rows.apply(x.mT).mT)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._columns.inverse(self._rows.inverse(y.mT).mT)
