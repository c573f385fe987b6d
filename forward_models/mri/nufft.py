"""The nonuniform Fourier transform: samples of k-space anywhere, by the finufft library."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from ..checks import Constant, Field, Shape, check_dtype, check_finite, check_shape, check_tensor
from ..linear import LinearOperator

# Accuracy asked of finufft. Single precision is computed in double, to an accuracy below its own
# rounding: phases of single precision would cost accuracy in proportion to the image's width.
_ACCURACY = {torch.complex64: 1e-7, torch.complex128: 1e-14}


def _finufft() -> Any:
    try:
        import finufft
    except ImportError as error:
        raise ImportError(
            "non-Cartesian Fourier transforms need finufft: pip install inverse[mri]"
        ) from error
    return finufft


@final
class Nufft(LinearOperator):
    """y = Fourier transform of each channel at arbitrary points, (C, H, W) to (C, M), complex.

        y[m] = 1 / sqrt(H W) sum_n x[n] exp(-2 pi i k[m] . (n - c)),  c = (H, W) // 2

    with k in cycles per pixel, so that the points (j - c) / (H, W) of the Cartesian grid give
    `CenteredFourier`. Several coils: `Nufft(...) @ CoilSensitivities(maps)`. Radio interferometry
    is the same operator, its points the baselines (v, u) in wavelengths times the pixel in radians:
    see `interferometer_trajectory`.

    Relative accuracy 1e-7 in single and about 1e-14 in double precision; the adjoint is exact to
    rounding in both. No closed forms. A^H A is a convolution: it is computed as a product on the
    Fourier grid of an image padded to (2 H, 2 W), whose kernel is made on first use, agrees with
    the two transforms to their accuracy, and is several times faster.

    Cost: O(H W log(H W) + M) per channel; on the CPU, with torch's number of threads, wherever the
    tensors are (A^H A stays on their device). Needs the extra `mri`.

    Args:
        image_shape: (H, W).
        trajectory: k, (M, 2) in cycles per pixel along rows and columns, in [-0.5, 0.5].

    Raises:
        ImportError: finufft is not installed.
        TypeError: the trajectory is not a real tensor.
        ValueError: other shapes, NaN, or points outside [-0.5, 0.5].

    Paper: Barnett, Magland and af Klinteberg, A parallel nonuniform fast Fourier transform library
    based on an "exponential of semicircle" kernel, https://doi.org/10.1137/18M120885X; the
    convolution: Fessler et al., Toeplitz-based iterative image reconstruction for MRI with
    correction for magnetic field inhomogeneity, https://doi.org/10.1109/TSP.2005.853152
    """

    event_ndim = 3
    measurement_ndim = 2
    event_field: Field = "complex"
    measurement_field: Field = "complex"

    def __init__(self, image_shape: Shape, trajectory: Tensor) -> None:
        _finufft()
        shape = check_shape("image_shape", image_shape)
        if len(shape) != 2:
            raise ValueError(f"image_shape must be (H, W), got {shape}")
        check_tensor("trajectory", trajectory)
        check_dtype("trajectory", trajectory, "real")
        if trajectory.ndim != 2 or trajectory.shape[1] != 2 or not len(trajectory):
            raise ValueError(f"trajectory has shape {tuple(trajectory.shape)}, expected (M, 2)")
        check_finite("trajectory", trajectory)
        largest = float(trajectory.abs().max())
        if largest > 0.5:
            raise ValueError(
                f"trajectory reaches {largest:g}, expected cycles per pixel in [-0.5, 0.5]; divide "
                "radians per pixel by 2 pi, or indices of k-space by the image's size"
            )
        self.image_shape = shape
        self.trajectory = trajectory.detach().to("cpu", torch.float64, copy=True).contiguous()
        self._spectrum: Constant | None = None

    def output_shape(self, event_shape: Shape) -> Shape:
        if event_shape[1:] != self.image_shape:
            raise ValueError(f"the image is {event_shape}, expected (C, *{self.image_shape})")
        return (event_shape[0], len(self.trajectory))

    def input_shape(self, measurement_shape: Shape) -> Shape:
        if measurement_shape[1] != len(self.trajectory):
            raise ValueError(
                f"the measurement is {measurement_shape}, expected (C, {len(self.trajectory)})"
            )
        return (measurement_shape[0], *self.image_shape)

    def _apply(self, x: Tensor) -> Tensor:
        flat: Tensor = _Transform.apply(self, x.flatten(0, 1), False)
        return flat.reshape(*x.shape[:2], -1)

    def _adjoint(self, y: Tensor) -> Tensor:
        flat: Tensor = _Transform.apply(self, y.flatten(0, 1), True)
        return flat.reshape(*y.shape[:2], *self.image_shape)

    def _transform(self, values: Tensor, adjoint: bool, size: Shape | None = None) -> Tensor:
        """N images (N, H, W) to samples (N, M), or back; without a graph, unscaled.

        `size` replaces the image's shape in the adjoint.
        """
        import numpy as np

        library = _finufft()
        k = 2 * math.pi * self.trajectory.numpy()
        rows, columns = np.ascontiguousarray(k[:, 0]), np.ascontiguousarray(k[:, 1])
        values = values.detach().resolve_conj().resolve_neg()
        double = values.to("cpu", torch.complex128).contiguous().numpy()
        settings = {"eps": _ACCURACY[values.dtype], "nthreads": torch.get_num_threads()}
        if adjoint:
            shape = self.image_shape if size is None else size
            found = library.nufft2d1(rows, columns, double, shape, isign=1, **settings)
        else:
            found = library.nufft2d2(rows, columns, double, isign=-1, **settings)
        found = found.reshape(len(values), *found.shape[found.ndim - (2 if adjoint else 1) :])
        return torch.from_numpy(found).to(values.device, values.dtype)

    def _normal(self, x: Tensor) -> Tensor:
        """A^H A x: convolution with t[d] = 1 / (H W) sum_m exp(2 pi i k[m] . d), |d| < (H, W)."""
        height, width = self.image_shape
        padded = torch.fft.fft2(x, s=(2 * height, 2 * width)) * self._kernel_spectrum().like(x.real)
        return torch.fft.ifft2(padded)[..., :height, :width]

    def _kernel_spectrum(self) -> Constant:
        if self._spectrum is None:
            height, width = self.image_shape
            ones = torch.ones(1, len(self.trajectory), dtype=torch.complex128)
            t = self._transform(ones, True, (2 * height, 2 * width))[0] / (height * width)
            # Distances d = -H and d = -W meet no pair of pixels; without them t[-d] = conj t[d],
            # which makes the spectrum real.
            t[0], t[:, 0] = 0, 0
            self._spectrum = Constant(torch.fft.fft2(torch.fft.ifftshift(t)).real)
        return self._spectrum


class _Transform(torch.autograd.Function):
    """(A, values) -> A values or A^H values; each is the other's derivative."""

    @staticmethod
    def forward(operator: Nufft, values: Tensor, adjoint: bool) -> Tensor:
        return operator._transform(values, adjoint) / math.sqrt(math.prod(operator.image_shape))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Nufft, Tensor, bool], output: Tensor) -> None:
        ctx.operator, _, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        return None, _Transform.apply(ctx.operator, gradients[0], not ctx.adjoint), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        result: Tensor = _Transform.apply(ctx.operator, tangents[1], ctx.adjoint)
        return result

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[None, int | None, None], operator: Nufft, values: Tensor,
        adjoint: bool,
    ) -> tuple[Tensor, int | None]:  # fmt: skip
        if in_dims[1] is None:
            return _Transform.apply(operator, values, adjoint), None
        values = values.movedim(in_dims[1], 0)
        flat = _Transform.apply(operator, values.flatten(0, 1), adjoint)
        return flat.unflatten(0, values.shape[:2]), 0
