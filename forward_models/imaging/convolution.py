"""Convolution without a border: the sum over the taps, three ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..checks import Constant

Taps = list[list[float]]

# Above these numbers of taps two transforms of the image are faster than the sum. A separable
# kernel h x w counts h + w taps.
_SEPARABLE_TAPS = 30
_DIRECT_TAPS, _DIRECT_TAPS_OF_A_BLOCK = 36, 121
# On a CPU torch's convolution is fast in single precision alone, and works on blocks of 16 channels
# of the batch, be they full or not.
_BLOCK = 16
# It leaves its fast way for wider margins of zeros than this.
_NATIVE_ZEROS = 6
# Entries of a few images whose passes over memory stay in the cache.
_CACHED = 2**20


@final
class Convolution:
    """y[i] = sum_m k[m] x[i + n - 1 - m] for i = 0 .. N - n, and its adjoint, per channel.

    (B, C, H, W) to (B, C, H - h + 1, W - w + 1). A kernel that is an outer product is applied along
    rows, then columns; another small one in a single sum; large ones by Fourier transforms.

    Args:
        kernels: k, (C, h, w), or (1, h, w) for every channel, in float64.
    """

    def __init__(self, kernels: Tensor) -> None:
        self._kernels = Constant(kernels)
        self._flipped = Constant(kernels.flip(-2, -1))
        self._taps = kernels[0].tolist() if len(kernels) == 1 else None
        self._profiles = _separate(kernels[0]) if len(kernels) == 1 else None
        self._spectra: dict[tuple[int, int], Constant] = {}

    def is_fourier(self, x: Tensor, stride: int = 1) -> bool:
        """Whether transforms are the fastest way for a batch like x (B, C, H, W)."""
        h, w = self._kernels.value.shape[-2:]
        if self._profiles is not None:
            return h + w > _SEPARABLE_TAPS * stride
        # Sums at every stride-th pixel along both axes are cheaper by its square.
        taps = _DIRECT_TAPS_OF_A_BLOCK if _fills_a_block(x) else _DIRECT_TAPS
        return h * w > taps * stride**2

    def apply(self, x: Tensor) -> Tensor:
        if self.is_fourier(x):
            return by_a_few_images(self._apply_fourier, x)
        if self._profiles is not None:
            rows, columns = (_reversed(taps) for taps in self._profiles)
            return by_a_few_images(lambda part: _slide(_slide(part, rows), columns), x)
        if self._taps is not None and not _fills_a_block(x):
            taps = _reversed(self._taps)
            return by_a_few_images(lambda part: _slide(part, taps), x)
        return _correlate(x, self._flipped.like(x))

    def adjoint(self, y: Tensor) -> Tensor:
        if self.is_fourier(y):
            return by_a_few_images(self._adjoint_fourier, y)
        if self._profiles is not None:
            return by_a_few_images(self._adjoint_separable, y)
        h, w = self._kernels.value.shape[-2:]
        zeros = (h - 1, w - 1)
        if self._taps is not None and not _fills_a_block(y):
            taps = self._taps
            return by_a_few_images(lambda part: _slide(_surround(part, zeros), taps), y)
        if max(zeros) <= _NATIVE_ZEROS:
            return _correlate(y, self._kernels.like(y), zeros)
        return _correlate(_surround(y, zeros), self._kernels.like(y))

    def apply_coarse(self, x: Tensor, stride: int) -> Tensor:
        """Every stride-th row and column of `apply(x)`, (B, C, rows, columns)."""
        if self._taps is None or self.is_fourier(x, stride):
            return self.apply(x)[..., ::stride, ::stride]
        if self._profiles is None:
            taps = _reversed(self._taps)
            return by_a_few_images(lambda part: _slide(part, taps, (stride, stride)), x)
        rows, columns = (_reversed(taps) for taps in self._profiles)
        return by_a_few_images(
            lambda part: _slide(_slide(part, rows, (stride, 1)), columns, (1, stride)), x
        )

    def adjoint_coarse(self, y: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        """The adjoint of `apply_coarse` for x (B, C, *size)."""
        h, w = self._kernels.value.shape[-2:]
        height, width = size
        if self._taps is None or self.is_fourier(y, stride):
            fine = _spread(y, [[1.0]], (stride, stride), (height - h + 1, width - w + 1))
            return self.adjoint(fine)
        if self._profiles is None:
            taps = _reversed(self._taps)
            return by_a_few_images(lambda part: _spread(part, taps, (stride, stride), size), y)
        rows, columns = (_reversed(taps) for taps in self._profiles)
        narrow = (height, y.shape[-1])
        return by_a_few_images(
            lambda part: _spread(
                _spread(part, rows, (stride, 1), narrow), columns, (1, stride), size
            ),
            y,
        )

    def _adjoint_separable(self, y: Tensor) -> Tensor:
        assert self._profiles is not None
        rows, columns = self._profiles
        h, w = len(rows), len(columns[0])
        y = _slide(_surround(y, (h - 1, 0)), rows)
        return _slide(_surround(y, (0, w - 1)), columns)

    def _apply_fourier(self, x: Tensor) -> Tensor:
        (height, width), (h, w) = x.shape[-2:], self._kernels.value.shape[-2:]
        size = (_fast_size(height), _fast_size(width))
        product = torch.fft.rfft2(x, s=size).mul_(self._spectrum(x, size))
        # The first h - 1 rows and w - 1 columns hold what wrapped around.
        return torch.fft.irfft2(product, s=size)[..., h - 1 : height, w - 1 : width]

    def _adjoint_fourier(self, y: Tensor) -> Tensor:
        h, w = self._kernels.value.shape[-2:]
        height, width = y.shape[-2] + h - 1, y.shape[-1] + w - 1
        size = (_fast_size(height), _fast_size(width))
        shifted = pad(y, (w - 1, 0, h - 1, 0))
        product = torch.fft.rfft2(shifted, s=size).mul_(self._spectrum(y, size).conj())
        return torch.fft.irfft2(product, s=size)[..., :height, :width]

    def _spectrum(self, like: Tensor, size: tuple[int, int]) -> Tensor:
        if size not in self._spectra:
            self._spectra[size] = Constant(torch.fft.rfft2(self._kernels.value, s=size))
        return self._spectra[size].like(like)


def by_a_few_images(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), taken over parts of the batch whose temporaries stay in the cache."""
    parts = x.split(max(1, _CACHED // x[0].numel()))
    return function(x) if len(parts) == 1 else torch.cat([function(part) for part in parts])


def _fills_a_block(x: Tensor) -> bool:
    if x.device.type != "cpu":
        return True
    return x.dtype == torch.float32 and x.shape[0] * x.shape[1] >= _BLOCK


def _separate(kernel: Tensor) -> tuple[Taps, Taps] | None:
    """Kernels (h, 1) and (1, w) whose product is the kernel to the rounding of float64, or None."""
    i, j = divmod(int(kernel.abs().argmax()), kernel.shape[1])
    peak = kernel[i, j]
    if peak == 0:
        return None
    rows, columns = kernel[:, j, None], kernel[None, i] / peak
    defect = (rows * columns - kernel).abs().max()
    if defect > 4 * torch.finfo(torch.float64).eps * peak.abs():
        return None
    return rows.tolist(), columns.tolist()


def _reversed(taps: Taps) -> Taps:
    return [row[::-1] for row in taps[::-1]]


def _places(offset: int, count: int, stride: int) -> slice:
    """`count` positions from `offset` on, `stride` apart."""
    return slice(offset, offset + (count - 1) * stride + 1, stride)


def _slide(x: Tensor, taps: Taps, stride: tuple[int, int] = (1, 1)) -> Tensor:
    """y[i, j] = sum_mn taps[m][n] x[s i + m, t j + n], s, t = stride, one tap after the other."""
    height = (x.shape[-2] - len(taps)) // stride[0] + 1
    width = (x.shape[-1] - len(taps[0])) // stride[1] + 1
    y = None
    for m, row in enumerate(taps):
        rows = _places(m, height, stride[0])
        for n, tap in enumerate(row):
            seen = x[..., rows, _places(n, width, stride[1])]
            y = tap * seen if y is None else y.add_(seen, alpha=tap)
    assert y is not None
    return y


def _spread(y: Tensor, taps: Taps, stride: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The adjoint of `_slide` for x (B, C, *size)."""
    height, width = y.shape[-2:]
    x = y.new_zeros(*y.shape[:-2], *size)
    for m, row in enumerate(taps):
        rows = _places(m, height, stride[0])
        for n, tap in enumerate(row):
            x[..., rows, _places(n, width, stride[1])].add_(y, alpha=tap)
    return x


def _surround(y: Tensor, zeros: tuple[int, int]) -> Tensor:
    rows, columns = zeros
    return pad(y, (columns, columns, rows, rows))


def _correlate(x: Tensor, taps: Tensor, zeros: tuple[int, int] = (0, 0)) -> Tensor:
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
