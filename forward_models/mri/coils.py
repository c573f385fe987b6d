"""What each receive coil sees of an image, and the noise that the coils share."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, check_dtype, check_finite, check_tensor
from ..linear import SVD, LinearOperator
from ..linear.linear_operator import divide


def check_maps(maps: Tensor) -> Tensor:
    """The maps (C, H, W) in complex128 if they are complex, finite and not all zero, else raise."""
    check_tensor("maps", maps)
    check_dtype("maps", maps, "complex")
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"maps have shape {tuple(maps.shape)}, expected (C, H, W), one per coil")
    check_finite("maps", maps)
    if not bool(maps.any()):
        raise ValueError("maps are zero everywhere: no coil sees the image")
    return maps.to(torch.complex128)


def root_sum_of_squares(images: Tensor) -> Tensor:
    """sqrt(sum_c |x_c|^2) of coil images (B, C, H, W), real, (B, 1, H, W).

    Of fully sampled coil images it is the image times sqrt(sum_c |S_c|^2), without its phase; noise
    is never averaged out of it: its expectation grows with C where there is no signal.
    """
    check_tensor("images", images)
    check_dtype("images", images, "any")
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected (B, C, H, W)")
    return torch.linalg.vector_norm(images, dim=1, keepdim=True)


@final
class _CoilSVD(SVD):
    """Per pixel, the unit vector of its sensitivities and their norm."""

    def __init__(self, maps: Tensor) -> None:
        norm = torch.linalg.vector_norm(maps, dim=0)
        # A pixel that no coil sees has the singular value 0 and may have any unit vector.
        first = torch.zeros_like(maps)
        first[0] = 1
        self._unit = Constant(torch.where(norm > 0, divide(maps, norm), first))
        self.singular_values = norm.flatten()
        self._shape = (1, *maps.shape[1:])

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return z.reshape(-1, *self._shape)

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return (self._unit.like(y).conj() * y).sum(1).flatten(1)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self._unit.like(z) * self.from_spectral_x(z)


@final
class CoilSensitivities(LinearOperator):
    """y_c = S_c x: the image as each of C coils sees it, (1, H, W) to (C, H, W), complex.

    The inner half of every multi-coil scan: `Nufft(...) @ CoilSensitivities(maps)` is non-Cartesian
    parallel imaging. Its singular values (`svd`) are sqrt(sum_c |S_c|^2), one per pixel, so that
    `solve` with C = c I is in closed form. Cost: C products per pixel.

    Args:
        maps: S, (C, H, W), complex, of any scale.

    Raises:
        TypeError: the maps are not complex.
        ValueError: NaN, all zero, or a shape that does not fit.

    Paper: Pruessmann et al., SENSE: sensitivity encoding for fast MRI,
    https://doi.org/10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S
    """

    event_ndim = 3
    measurement_ndim = 3
    event_field: Field = "complex"
    measurement_field: Field = "complex"

    def __init__(self, maps: Tensor) -> None:
        self._maps = Constant(check_maps(maps))
        self.event_shape = (1, *maps.shape[1:])
        self.measurement_shape = tuple(maps.shape)
        self._svd: SVD | None = None

    @property
    def maps(self) -> Tensor:
        """S, complex128, (C, H, W)."""
        return self._maps.value

    def _apply(self, x: Tensor) -> Tensor:
        return self._maps.like(x) * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self._maps.like(y).conj() * y).sum(1, keepdim=True)

    def _normal(self, x: Tensor) -> Tensor:
        return self._maps.like(x).abs().square().sum(0) * x

    @property
    def svd(self) -> SVD:
        if self._svd is None:
            self._svd = _CoilSVD(self._maps.value)
        return self._svd


def noise_covariance(samples: Tensor) -> Tensor:
    """1/2 E[n n^H], (C, C), from samples (C, N) of the coils without signal, e.g. k-space edges.

    The half makes sqrt(diagonal) the standard deviation of real and of imaginary part, the `sigma`
    of the noise models. The mean is taken as 0.

    Raises:
        TypeError: the samples are not complex.
        ValueError: fewer samples than coils, or NaN.
    """
    check_tensor("samples", samples)
    check_dtype("samples", samples, "complex")
    check_finite("samples", samples)
    if samples.ndim != 2 or samples.shape[1] < samples.shape[0]:
        raise ValueError(
            f"samples have shape {tuple(samples.shape)}, expected (C, N) with at least as many "
            "samples N as coils C"
        )
    return samples @ samples.mH / (2 * samples.shape[1])


def prewhiten(y: Tensor, covariance: Tensor) -> Tensor:
    """L^-1 y over the coils of y (B, C, ...), where L L^H is their noise covariance, (C, C).

    The virtual coils that come out have independent noise of sigma = 1; maps found from them, or
    whitened alike, belong to them.

    Raises:
        TypeError: dtypes that are not complex or not the same.
        ValueError: shapes that do not fit, or a covariance that is not positive definite.
    """
    for name, value in (("y", y), ("covariance", covariance)):
        check_tensor(name, value)
        check_dtype(name, value, "complex")
    if y.dtype != covariance.dtype:
        raise TypeError(f"y has dtype {y.dtype}, covariance {covariance.dtype}; convert one")
    if y.ndim < 3 or covariance.shape != (y.shape[1], y.shape[1]):
        raise ValueError(
            f"y has shape {tuple(y.shape)}, covariance {tuple(covariance.shape)}; expected "
            "(B, C, ...) and (C, C)"
        )
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed):
        raise ValueError("covariance is not positive definite: take more noise samples")
    flat = torch.linalg.solve_triangular(factor, y.flatten(2), upper=False)
    return flat.reshape(y.shape)
