"""Blur: convolution with a fixed kernel under five boundary conditions."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Shape, check_dtype, check_finite, check_image_shape, check_tensor
from ..linear import SVD, LinearOperator
from ..linear.linear_operator import is_uniform
from ..linear.svd import divide, without_rounding
from .borders import Margins, Padding, check_padding, extend, fold
from .circulant import HartleySVD, periodic
from .convolution import Convolution, by_a_few_images


@final
class Blur(LinearOperator):
    """y = k * x, a true convolution of every channel with one kernel, or with one of its own.

    y[i] = sum_m k[m] x[i - m + c] with c = n // 2 along each axis of length n, where x continues
    beyond its border as `padding` says. The same numbers as scipy.ndimage.convolve, even kernel
    sizes included, in its modes wrap ("circular"), mirror ("reflect", the border pixel is not
    repeated), nearest ("replicate") and constant ("constant", zeros); "valid" is
    scipy.signal.convolve2d in that mode, without padding: y is smaller by the kernel minus one.

    The adjoint is exact, that of the padding included. Cost per pixel: O(h w) for small kernels,
    O(h + w) for one kernel that is an outer product to the rounding of float64 (found on its own),
    O(log pixels) by Fourier transforms for the rest. Circular blur with C = c I and one noise level
    is solved in closed form, and has an `svd` if `image_shape` is set.

    Args:
        kernel: k, (h, w), or (C, h, w) with one kernel per channel; real, not normalised here.
        padding: the continuation beyond the border.
        image_shape: (C, H, W); default any size.

    Raises:
        TypeError: the kernel is no floating-point tensor.
        ValueError: the kernel is not finite, empty or of another shape, it does not fit
            `image_shape`, or the padding is unknown.

    Book: Hansen, Nagy and O'Leary, Deblurring Images: Matrices, Spectra, and Filtering, 2006,
    https://doi.org/10.1137/1.9780898718874
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self, kernel: Tensor, padding: Padding = "circular", image_shape: Shape | None = None
    ) -> None:
        check_tensor("kernel", kernel)
        check_dtype("kernel", kernel, "real")
        if kernel.ndim not in (2, 3) or kernel.numel() == 0:
            raise ValueError(
                f"kernel has shape {tuple(kernel.shape)}, expected (h, w), or (C, h, w) with one "
                "kernel per channel"
            )
        check_finite("kernel", kernel)
        check_padding(padding)
        self.padding: Padding = padding
        self._kernel = Constant(kernel.to(torch.float64))
        self._convolution = Convolution(self._kernels)
        h, w = self.kernel_size
        self._margins: Margins = ((h - 1 - h // 2, h // 2), (w - 1 - w // 2, w // 2))
        self._spectra: dict[tuple[int, int], Constant] = {}
        self._gram_spectra: dict[tuple[int, int, int], Constant] = {}
        self._svd: SVD | None = None
        if image_shape is not None:
            shape = check_image_shape(image_shape)
            self.measurement_shape = self.output_shape(shape)
            self.event_shape = shape

    @property
    def kernel(self) -> Tensor:
        """k in float64, (h, w) or (C, h, w)."""
        return self._kernel.value

    @property
    def kernel_size(self) -> tuple[int, int]:
        h, w = self.kernel.shape[-2:]
        return h, w

    @property
    def _kernels(self) -> Tensor:
        """(C, h, w), or (1, h, w) for all channels."""
        return self.kernel.reshape(-1, *self.kernel_size)

    def _check_channels(self, shape: Shape) -> None:
        if self.kernel.ndim == 3 and len(self.kernel) != shape[0]:
            raise ValueError(
                f"the image is {shape}: {shape[0]} channels, but there are {len(self.kernel)} "
                "kernels; pass one (h, w) kernel for all channels, or one per channel"
            )

    def output_shape(self, event_shape: Shape) -> Shape:
        self._check_channels(event_shape)
        if self.padding != "valid":
            return event_shape
        (c, height, width), (h, w) = event_shape, self.kernel_size
        if height < h or width < w:
            raise ValueError(
                f"the image is {event_shape}, smaller than the kernel {(h, w)}: padding 'valid' "
                "leaves nothing; choose another padding"
            )
        return (c, height - h + 1, width - w + 1)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        self._check_channels(measurement_shape)
        if self.padding != "valid":
            return measurement_shape
        (c, height, width), (h, w) = measurement_shape, self.kernel_size
        return (c, height + h - 1, width + w - 1)

    def circular_spectrum(self, image: Tensor) -> Tensor:
        """k^ on the grid of `image` (..., H, W) for its real transform, (C or 1, H, W // 2 + 1)."""
        height, width = image.shape[-2:]
        if (height, width) not in self._spectra:
            grid = periodic(self._kernels, height, width)
            self._spectra[height, width] = Constant(torch.fft.rfft2(grid))
        return self._spectra[height, width].like(image)

    def circular_gram(self, y: Tensor, stride: int = 1) -> Tensor:
        """A A^T, a circular convolution too, on the grid of y for its real transform.

        Of every stride-th pixel: the frequencies that become one are summed, |k^|^2 / stride^2.
        """
        height, width = y.shape[-2:]
        key = (height, width, stride)
        if key not in self._gram_spectra:
            fine = (height * stride, width * stride)
            power = torch.fft.fft2(periodic(self._kernels, *fine)).abs().square()
            aliases = power.reshape(-1, stride, height, stride, width).sum((1, 3))
            values = without_rounding(aliases.sqrt() / stride, fine[0] * fine[1])
            self._gram_spectra[key] = Constant(values[..., : width // 2 + 1].square())
        return self._gram_spectra[key].like(y)

    def _apply(self, x: Tensor) -> Tensor:
        if self.padding == "circular" and self._convolution.is_fourier(x):
            spectrum = self.circular_spectrum(x)
            return by_a_few_images(lambda part: _filter(part, spectrum), x)
        return self._convolution.apply(extend(x, self.padding, self._margins))

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.padding == "circular" and self._convolution.is_fourier(y):
            spectrum = self.circular_spectrum(y).conj()
            return by_a_few_images(lambda part: _filter(part, spectrum), y)
        return fold(self._convolution.adjoint(y), self.padding, self._margins)

    def apply_coarse(self, x: Tensor, stride: int) -> Tensor:
        """Every stride-th row and column of A x, (B, C, rows, columns), for a checked x."""
        if self.padding == "circular" and self._convolution.is_fourier(x, stride):
            return self._apply(x)[..., ::stride, ::stride]
        return self._convolution.apply_coarse(extend(x, self.padding, self._margins), stride)

    def adjoint_coarse(self, y: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        """The adjoint of `apply_coarse` for images (B, C, *size)."""
        (height, width), (h, w) = size, self.kernel_size
        if self.padding != "valid":
            height, width = height + h - 1, width + w - 1
        if self.padding == "circular" and self._convolution.is_fourier(y, stride):
            fine = y.new_zeros(*y.shape[:2], *size)
            fine[..., ::stride, ::stride] = y
            return self._adjoint(fine)
        extended = self._convolution.adjoint_coarse(y, stride, (height, width))
        return fold(extended, self.padding, self._margins)

    def _normal(self, x: Tensor) -> Tensor:
        if self.padding == "circular" and self._convolution.is_fourier(x):
            power = self.circular_spectrum(x).abs().square()
            return by_a_few_images(lambda part: _filter(part, power), x)
        return super()._normal(x)

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor | None:
        if self.padding != "circular" or not is_uniform(s, r):
            return None
        v = divide(torch.fft.rfft2(r), c * self.circular_gram(r) + s)
        return torch.fft.irfft2(v, s=r.shape[-2:])

    @property
    def svd(self) -> SVD | None:
        """Known for circular padding once `image_shape` is set."""
        if self._svd is None and self.padding == "circular" and self.event_shape is not None:
            _, height, width = self.event_shape
            self._svd = HartleySVD(periodic(self._kernels, height, width), self.event_shape)
        return self._svd


def _filter(x: Tensor, spectrum: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x).mul_(spectrum), s=x.shape[-2:])
