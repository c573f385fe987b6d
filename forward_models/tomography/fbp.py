"""Filtered back-projection: the classical reconstruction of a parallel-beam sinogram."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ..checks import check_batched, check_dtype, check_finite, check_tensor
from .parallel import Tomography

Filter = Literal["ramp", "shepp-logan", "hann"]


def angle_weights(angles: Tensor) -> Tensor:
    """The share of the half circle that each angle (degrees) stands for, in radians, sum pi.

    Half of the gap to either neighbour, modulo 180 degrees; equal angles share their part.
    """
    reduced = torch.remainder(angles.to(torch.float64), 180.0)
    distinct, index, count = torch.unique(reduced, return_inverse=True, return_counts=True)
    following = torch.cat([distinct[1:], distinct[:1] + 180.0])
    gap = following - distinct
    share = (gap + gap.roll(1)) / 2
    return torch.deg2rad(share / count)[index]


def ramp_response(size: int, spacing: float, filter: Filter) -> Tensor:
    """The real frequency response of the ramp filter on `size` periodic samples, (size // 2 + 1,).

    From the band-limited impulse response h[0] = 1 / (4 d^2), h[n] = -1 / (pi n d)^2 for odd n and
    0 for even n: sampling |f| instead would take away the mean.
    """
    n = torch.arange(size, dtype=torch.float64)
    n = torch.minimum(n, size - n)
    h = torch.where(n % 2 == 1, -1 / (math.pi * n.clamp(min=1) * spacing).square(), 0.0)
    h[0] = 1 / (4 * spacing**2)
    response = torch.fft.rfft(h).real * spacing
    relative = torch.linspace(0, 1, size // 2 + 1, dtype=torch.float64)
    if filter == "shepp-logan":
        response = response * torch.sinc(relative / 2)
    elif filter == "hann":
        response = response * (0.5 + 0.5 * torch.cos(math.pi * relative))
    return response


def fbp(operator: Tomography, sinogram: Tensor, filter: Filter = "ramp") -> Tensor:
    """Filtered back-projection of a parallel-beam sinogram, in the unit of the image.

    x = (detector spacing / pixel area) A^T (w * (h * y)), with the ramp filter h and the angular
    weights w of `angle_weights`. Linear in y. Approximate: it inverts the continuous Radon
    transform for angles that sample a half circle densely; a wide gap leaves streaks. It is not the
    adjoint of A: never put it in its place in an iteration. Cost: one A^T.

    Args:
        operator: A.
        sinogram: y, (B, 1, angles, detectors), in (unit of the image) * mm.
        filter: "ramp" (Ram-Lak), or damped against noise: "shepp-logan", "hann".

    Raises:
        ValueError: an unknown filter, or a sinogram of another shape or with NaN.

    Paper: Ramachandran and Lakshminarayanan, Three-dimensional reconstruction from radiographs and
    electron micrographs, https://doi.org/10.1073/pnas.68.9.2236
    """
    if filter not in get_args(Filter):
        raise ValueError(f"unknown filter {filter!r}; known: {', '.join(get_args(Filter))}")
    check_tensor("sinogram", sinogram)
    check_dtype("sinogram", sinogram, "real")
    check_batched("sinogram", sinogram, operator.measurement_shape, operator.measurement_ndim)
    check_finite("sinogram", sinogram)
    # Twice the length keeps the periodic convolution from wrapping into the data.
    size = 2 ** math.ceil(math.log2(max(2 * operator.detectors, 2)))
    response = ramp_response(size, operator.detector_spacing, filter).to(sinogram)
    spectrum = torch.fft.rfft(sinogram, n=size) * response
    filtered = torch.fft.irfft(spectrum, n=size)[..., : operator.detectors]
    weights = angle_weights(operator.angles).to(sinogram)
    dy, dx = operator.pixel_spacing
    scale = operator.detector_spacing / (dy * dx)
    return operator.adjoint(scale * weights[:, None] * filtered)
