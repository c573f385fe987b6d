"""Convolution without a border: the sum over the taps, three ways."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..checks import Constant

# Above these numbers of taps two transforms of the image are faster than the sum. A separable
# kernel h x w counts h + w taps, and each of them costs a fraction of a tap of a general kernel.
_DIRECT_TAPS = 49
_SEPARABLE_TAPS = 30


@final
class Convolution:
    """y[i] = sum_m k[m] x[i + n - 1 - m] for i = 0 .. N - n, and its adjoint, per channel.

    (B, C, H, W) to (B, C, H - h + 1, W - w + 1). The sum is taken directly for small kernels; along
    rows, then columns, for a kernel that is an outer product; else by Fourier transforms.

    Args:
        kernels: k, (C, h, w), or (1, h, w) for every channel, in float64.
    """

    def __init__(self, kernels: Tensor) -> None:
        self._kernels = Constant(kernels)
        self._flipped = Constant(kernels.flip(-2, -1))
        self._profiles = _separate(kernels[0]) if len(kernels) == 1 else None
        self._spectra: dict[tuple[int, int], Constant] = {}
        h, w = kernels.shape[-2:]
        self.fourier = h * w > _DIRECT_TAPS
        if self._profiles is not None:
            self.fourier = h + w > _SEPARABLE_TAPS

    def apply(self, x: Tensor) -> Tensor:
        h, w = self._kernels.value.shape[-2:]
        if self.fourier:
            height, width = x.shape[-2:]
            size = (_fast_size(height), _fast_size(width))
            product = torch.fft.rfft2(x, s=size) * self._spectrum(x, size)
            # The first h - 1 rows and w - 1 columns hold what wrapped around.
            return torch.fft.irfft2(product, s=size)[..., h - 1 : height, w - 1 : width]
        if self._profiles is not None:
            rows, columns = self._profiles
            return _slide(_slide(x, rows[::-1], -2), columns[::-1], -1)
        return _correlate(x, self._flipped.like(x), (0, 0))

    def adjoint(self, y: Tensor) -> Tensor:
        h, w = self._kernels.value.shape[-2:]
        if self.fourier:
            height, width = y.shape[-2] + h - 1, y.shape[-1] + w - 1
            size = (_fast_size(height), _fast_size(width))
            shifted = pad(y, (w - 1, 0, h - 1, 0))
            product = torch.fft.rfft2(shifted, s=size) * self._spectrum(y, size).conj()
            return torch.fft.irfft2(product, s=size)[..., :height, :width]
        if self._profiles is not None:
            rows, columns = self._profiles
            y = _slide(pad(y, (0, 0, h - 1, h - 1)), rows, -2)
            return _slide(pad(y, (w - 1, w - 1)), columns, -1)
        return _correlate(y, self._kernels.like(y), (h - 1, w - 1))

    def _spectrum(self, like: Tensor, size: tuple[int, int]) -> Tensor:
        if size not in self._spectra:
            self._spectra[size] = Constant(torch.fft.rfft2(self._kernels.value, s=size))
        return self._spectra[size].like(like)


def _separate(kernel: Tensor) -> tuple[list[float], list[float]] | None:
    """Profiles r, c with kernel = r c^T to the rounding of float64, or None."""
    pivot = int(kernel.abs().argmax())
    i, j = divmod(pivot, kernel.shape[1])
    peak = kernel[i, j]
    if peak == 0:
        return None
    rows, columns = kernel[:, j], kernel[i] / peak
    defect = (rows[:, None] * columns - kernel).abs().max()
    if defect > 4 * torch.finfo(torch.float64).eps * peak.abs():
        return None
    return rows.tolist(), columns.tolist()


def _slide(x: Tensor, taps: list[float], axis: int) -> Tensor:
    """y[i] = sum_m taps[m] x[i + m] along one axis."""
    size = x.shape[axis] - len(taps) + 1
    y = taps[0] * x.narrow(axis, 0, size)
    for m in range(1, len(taps)):
        y = y.add_(x.narrow(axis, m, size), alpha=taps[m])
    return y


def _correlate(x: Tensor, taps: Tensor, zeros: tuple[int, int]) -> Tensor:
    """Cross-correlation of every channel; (B, C) as groups is torch's fast layout on a CPU."""
    batch, channels = x.shape[:2]
    groups = batch * channels
    weight = taps.expand(channels, *taps.shape[1:]).repeat(batch, 1, 1)[:, None]
    y = conv2d(x.reshape(1, groups, *x.shape[-2:]), weight, padding=zeros, groups=groups)
    return y.reshape(batch, channels, *y.shape[-2:])


def _fast_size(n: int) -> int:
    """The smallest number >= n without prime factors above 5: a length with a fast transform."""
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1
