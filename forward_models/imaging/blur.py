"""Blur: convolution with a fixed kernel under five boundary conditions."""

from __future__ import annotations

import math
from typing import Literal, final, get_args

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad

from ..checks import (
    Constant,
    Shape,
    check_dtype,
    check_finite,
    check_positive,
    check_shape,
    check_tensor,
)
from ..linear import SVD, LinearOperator
from ..linear.linear_operator import divide, is_uniform

Padding = Literal["circular", "reflect", "replicate", "constant", "valid"]

# Above this many taps a transform of the padded image is faster than the direct sum.
_DIRECT_TAPS = 121


def _padded_index(padding: Padding, size: int, before: int, after: int) -> Tensor:
    """Which pixel each position of a padded axis of `size` pixels repeats, at any pad width."""
    position = torch.arange(-before, size + after)
    if padding == "circular":
        return position % size
    if padding == "replicate":
        return position.clamp(0, size - 1)
    period = max(2 * (size - 1), 1)
    position = position % period
    return torch.minimum(position, period - position) if size > 1 else 0 * position


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


@final
class _HartleySVD(SVD):
    """Circular convolution A = U diag(|k^|) V^T with V = H, U = P H, per channel.

    H is the orthonormal, symmetric two-dimensional Hartley transform, Re F - Im F, and P the
    convolution with the phase k^ / |k^|: real and orthogonal because k is real.
    """

    def __init__(self, spectrum: Tensor, shape: Shape) -> None:
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


@final
class Blur(LinearOperator):
    """y = k * x, a true convolution of every channel with one kernel.

    y[i] = sum_m k[m] x[i - m + c] with c = n // 2 along each axis of length n, where x continues
    beyond its border as `padding` says. The same numbers as scipy.ndimage.convolve, even kernel
    sizes included, in its modes wrap ("circular"), mirror ("reflect", the border pixel is not
    repeated), nearest ("replicate") and constant ("constant", zeros); "valid" is
    scipy.signal.convolve2d in that mode, without padding: y is smaller by the kernel minus one.

    The adjoint is exact, that of the padding included. Direct sum for small kernels, O(taps) per
    pixel, Fourier transforms for large ones and for circular, O(log pixels). Circular blur with
    C = c I and one noise level is solved in closed form, and has an `svd` if `image_shape` is set.

    Args:
        kernel: k, (h, w), real; it is not normalised.
        padding: the continuation beyond the border.
        image_shape: (C, H, W); default any size.

    Raises:
        TypeError: the kernel is no floating-point tensor.
        ValueError: the kernel is no finite non-empty matrix, or the padding unknown.
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self, kernel: Tensor, padding: Padding = "circular", image_shape: Shape | None = None
    ) -> None:
        check_tensor("kernel", kernel)
        check_dtype("kernel", kernel, "real")
        if kernel.ndim != 2 or kernel.numel() == 0:
            raise ValueError(f"kernel has shape {tuple(kernel.shape)}, expected (h, w)")
        check_finite("kernel", kernel)
        if padding not in get_args(Padding):
            raise ValueError(f"unknown padding {padding!r}; known: {', '.join(get_args(Padding))}")
        self.padding: Padding = padding
        self._kernel = Constant(kernel.to(torch.float64))
        self._flipped = Constant(self.kernel.flip(0, 1)[None, None])
        self._spectra: dict[tuple[int, int, bool], Constant] = {}
        self._svd: SVD | None = None
        if image_shape is not None:
            shape = check_shape("image_shape", image_shape)
            if len(shape) != 3:
                raise ValueError(f"image_shape must be (C, H, W), got {shape}")
            self.measurement_shape = self.output_shape(shape)
            self.event_shape = shape

    @property
    def kernel(self) -> Tensor:
        """k in float64, (h, w)."""
        return self._kernel.value

    def output_shape(self, event_shape: Shape) -> Shape:
        if self.padding != "valid":
            return event_shape
        c, height, width = event_shape
        h, w = self.kernel.shape
        if height < h or width < w:
            raise ValueError(
                f"the image is {event_shape}, smaller than the kernel {(h, w)}: padding 'valid' "
                "leaves nothing; choose another padding"
            )
        return (c, height - h + 1, width - w + 1)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        if self.padding != "valid":
            return measurement_shape
        c, height, width = measurement_shape
        return (c, height + self.kernel.shape[0] - 1, width + self.kernel.shape[1] - 1)

    def _spectrum(self, height: int, width: int, centred: bool) -> Constant:
        """k^ on a periodic grid, full transform; tap m at m - c if centred, else at m."""
        key = (height, width, centred)
        if key not in self._spectra:
            k = self.kernel
            rows, columns = (
                (torch.arange(n) - (n // 2 if centred else 0)) % size
                for n, size in zip(k.shape, (height, width), strict=True)
            )
            grid = torch.zeros(height, width, dtype=torch.float64)
            index = (rows[:, None].expand(k.shape), columns[None, :].expand(k.shape))
            grid.index_put_(index, k.cpu(), accumulate=True)
            self._spectra[key] = Constant(torch.fft.fft2(grid))
        return self._spectra[key]

    def circular_spectrum(self, image: Tensor) -> Tensor:
        """k^ on the grid of `image` (..., H, W) for its real transform, (H, W // 2 + 1)."""
        width = image.shape[-1]
        return self._spectrum(image.shape[-2], width, True).like(image)[:, : width // 2 + 1]

    def _pads(self) -> tuple[int, int, int, int]:
        """Rows before and after, columns before and after."""
        h, w = self.kernel.shape
        return (h - 1 - h // 2, h // 2, w - 1 - w // 2, w // 2)

    def _pad(self, x: Tensor) -> Tensor:
        if self.padding == "valid":
            return x
        top, bottom, left, right = self._pads()
        if self.padding == "constant":
            return pad(x, (left, right, top, bottom))
        rows = _padded_index(self.padding, x.shape[-2], top, bottom).to(x.device)
        columns = _padded_index(self.padding, x.shape[-1], left, right).to(x.device)
        return x.index_select(-2, rows).index_select(-1, columns)

    def _unpad(self, x: Tensor, height: int, width: int) -> Tensor:
        """The adjoint of `_pad`: every copy of a pixel is added back to it."""
        if self.padding == "valid":
            return x
        top, bottom, left, right = self._pads()
        if self.padding == "constant":
            return x[..., top : top + height, left : left + width]
        rows = _padded_index(self.padding, height, top, bottom).to(x.device)
        columns = _padded_index(self.padding, width, left, right).to(x.device)
        narrow = x.new_zeros(*x.shape[:-1], width).index_add(-1, columns, x)
        return narrow.new_zeros(*x.shape[:-2], height, width).index_add(-2, rows, narrow)

    def _filter(self, x: Tensor, conjugate: bool) -> Tensor:
        spectrum = self.circular_spectrum(x)
        product = torch.fft.rfft2(x) * (spectrum.conj() if conjugate else spectrum)
        return torch.fft.irfft2(product, s=x.shape[-2:])

    def _apply(self, x: Tensor) -> Tensor:
        if self.padding == "circular":
            return self._filter(x, conjugate=False)
        x = self._pad(x)
        h, w = self.kernel.shape
        if h * w <= _DIRECT_TAPS:
            flat = conv2d(x.flatten(0, 1)[:, None], self._flipped.like(x))
            return flat.reshape(*x.shape[:2], *flat.shape[-2:])
        height, width = x.shape[-2:]
        size = (_fast_size(height), _fast_size(width))
        product = torch.fft.rfft2(x, s=size) * self._open_spectrum(x, size)
        # The first h - 1 rows and w - 1 columns hold what wrapped around.
        return torch.fft.irfft2(product, s=size)[..., h - 1 : height, w - 1 : width]

    def _open_spectrum(self, like: Tensor, size: tuple[int, int]) -> Tensor:
        return self._spectrum(*size, False).like(like)[:, : size[1] // 2 + 1]

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.padding == "circular":
            return self._filter(y, conjugate=True)
        _, out_height, out_width = self.input_shape(tuple(y.shape[1:]))
        h, w = self.kernel.shape
        height, width = y.shape[-2] + h - 1, y.shape[-1] + w - 1
        if h * w <= _DIRECT_TAPS:
            flat = conv_transpose2d(y.flatten(0, 1)[:, None], self._flipped.like(y))
            return self._unpad(flat.reshape(*y.shape[:2], height, width), out_height, out_width)
        size = (_fast_size(height), _fast_size(width))
        shifted = pad(y, (w - 1, 0, h - 1, 0))
        product = torch.fft.rfft2(shifted, s=size) * self._open_spectrum(y, size).conj()
        full = torch.fft.irfft2(product, s=size)[..., :height, :width]
        return self._unpad(full, out_height, out_width)

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor | None:
        if self.padding != "circular" or not is_uniform(s, r):
            return None
        gram = self.circular_spectrum(r).abs().square()
        v = divide(torch.fft.rfft2(r), c * gram + s)
        return torch.fft.irfft2(v, s=r.shape[-2:])

    @property
    def svd(self) -> SVD | None:
        """Known for circular padding once `image_shape` is set."""
        if self._svd is None and self.padding == "circular" and self.event_shape is not None:
            _, height, width = self.event_shape
            spectrum = self._spectrum(height, width, True).value
            self._svd = _HartleySVD(spectrum, self.event_shape)
        return self._svd


def gaussian_kernel(sigma: float, size: int | None = None) -> Tensor:
    """A Gaussian of standard deviation sigma in pixels, (size, size) in float64, summing to 1.

    Sampled at pixel centres, centred between taps for an even size; the default size,
    2 ceil(3 sigma) + 1, holds 99.7 % of each axis.
    """
    check_positive("sigma", sigma)
    if size is None:
        size = 2 * math.ceil(3 * sigma) + 1
    (size,) = check_shape("size", (size,))
    t = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    profile = torch.exp(-0.5 * (t / sigma).square())
    profile = profile / profile.sum()
    return profile[:, None] * profile[None, :]


def motion_kernel(length: float, angle: float) -> Tensor:
    """Straight motion over `length` pixels, (n, n) in float64 with odd n, summing to 1.

    The path through the centre is sampled densely and each sample shared bilinearly by the four
    taps around it.

    Args:
        length: length of the path in pixels, > 0.
        angle: direction in degrees, counter-clockwise from the row axis (to the right).
    """
    check_positive("length", length)
    if not math.isfinite(angle):
        raise ValueError(f"angle must be finite, got {angle}")
    radius = math.ceil(length / 2)
    n = 2 * radius + 1
    steps = 32 * n
    t = ((torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5) * length
    row = radius - t * math.sin(math.radians(angle))
    column = radius + t * math.cos(math.radians(angle))
    taps = torch.arange(n, dtype=torch.float64)
    share_row = (1 - (row[:, None] - taps).abs()).clamp(min=0)
    share_column = (1 - (column[:, None] - taps).abs()).clamp(min=0)
    return share_row.T @ share_column / steps
