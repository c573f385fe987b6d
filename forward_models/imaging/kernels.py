"""Blur kernels: what a lens, a shutter and a moving camera make of a point."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checks import check_positive, check_shape


def gaussian_kernel(sigma: float, size: int | None = None) -> Tensor:
    """A Gaussian of standard deviation sigma in pixels, (size, size) in float64, summing to 1.

    Sampled at pixel centres, centred between taps for an even size; the default size,
    2 ceil(3 sigma) + 1, holds 99.7 % of each axis.
    """
    size = _gaussian_size(check_positive("sigma", sigma), size)
    profile = torch.exp(-0.5 * (_centred(size) / sigma).square())
    profile = profile / profile.sum()
    return profile[:, None] * profile[None, :]


def anisotropic_gaussian_kernel(
    sigma_x: float, sigma_y: float, angle: float, size: int | None = None
) -> Tensor:
    """A Gaussian with two widths, turned; (size, size) in float64, summing to 1.

    k(p) ~ exp(-u^2 / (2 sigma_x^2) - v^2 / (2 sigma_y^2)) with (u, v) the coordinates of p along
    axes turned by `angle`; sampled at pixel centres.

    Args:
        sigma_x, sigma_y: standard deviations in pixels along the first and second turned axis.
        angle: of the first axis, in degrees counter-clockwise from the row axis (to the right).
        size: taps a side; default 2 ceil(3 max(sigma)) + 1.
    """
    check_positive("sigma_x", sigma_x)
    check_positive("sigma_y", sigma_y)
    turn = _radians(angle)
    t = _centred(_gaussian_size(max(sigma_x, sigma_y), size))
    right, up = t[None, :], -t[:, None]
    u = right * math.cos(turn) + up * math.sin(turn)
    v = up * math.cos(turn) - right * math.sin(turn)
    k = torch.exp(-0.5 * ((u / sigma_x).square() + (v / sigma_y).square()))
    return k / k.sum()


def disk_kernel(radius: float) -> Tensor:
    """Defocus of a round aperture: a uniform disk, (n, n) in float64 with odd n, summing to 1.

    Each tap is the exact area that its pixel shares with the disk, over the area of the disk.

    Args:
        radius: in pixels, > 0.
    """
    check_positive("radius", radius)
    n = 2 * math.ceil(max(radius - 0.5, 0)) + 1
    edges = torch.arange(n + 1, dtype=torch.float64) - n / 2
    reach = edges.abs().clamp(max=radius)
    a, b = reach[:, None], reach[None, :]

    # The area of the disk over [0, a] x [0, b] is b long up to where the circle comes below b, and
    # a piece of the circle from there on; it is odd in a and in b, so differences give pixels.
    def under_circle(x: Tensor) -> Tensor:
        height = (radius**2 - x.square()).clamp(min=0).sqrt()
        return 0.5 * (x * height + radius**2 * torch.asin((x / radius).clamp(max=1)))

    flat = torch.minimum((radius**2 - b.square()).clamp(min=0).sqrt(), a)
    area = b * flat + under_circle(a) - under_circle(flat)
    area = area * edges.sign()[:, None] * edges.sign()[None, :]
    return area.diff(dim=0).diff(dim=1).clamp(min=0) / (math.pi * radius**2)


def motion_kernel(length: float, angle: float) -> Tensor:
    """Straight motion over `length` pixels, (n, n) in float64 with odd n, summing to 1.

    The path through the centre is sampled densely and each sample shared bilinearly by the four
    taps around it.

    Args:
        length: length of the path in pixels, > 0.
        angle: direction in degrees, counter-clockwise from the row axis (to the right).
    """
    check_positive("length", length)
    turn = _radians(angle)
    t = (_path_times(length) - 0.5) * length
    return _exposed(-t * math.sin(turn), t * math.cos(turn), length)


def shake_kernel(
    length: float, turning: float = 180.0, generator: torch.Generator | None = None
) -> Tensor:
    """A random curved camera shake, (n, n) in float64 with odd n, summing to 1.

    A path of `length` pixels run at constant speed, whose heading starts anywhere and does a
    Brownian motion; its centre of mass is the centre of the kernel. n = 2 ceil(length / 2) + 1
    always holds it, because no point of a path is further than length / 2 from its centre of mass.

    Args:
        length: length of the path in pixels, > 0.
        turning: standard deviation, in degrees, of the heading at the end against the start;
            towards 0 the path is straight, as in `motion_kernel`.
        generator: draws the path.
    """
    check_positive("length", length)
    check_positive("turning", turning)
    steps = len(_path_times(length))
    device = "cpu" if generator is None else generator.device
    eps = torch.randn(steps, generator=generator, dtype=torch.float64, device=device).cpu()
    start = torch.rand((), generator=generator, dtype=torch.float64, device=device).cpu()
    turns = math.radians(turning) / math.sqrt(steps) * eps
    heading = 2 * math.pi * start + turns.cumsum(0)
    row, column = -heading.sin().cumsum(0), heading.cos().cumsum(0)
    scale = length / steps
    return _exposed(scale * (row - row.mean()), scale * (column - column.mean()), length)


def _gaussian_size(sigma: float, size: int | None) -> int:
    return check_shape("size", (2 * math.ceil(3 * sigma) + 1 if size is None else size,))[0]


def _centred(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64) - (size - 1) / 2


def _radians(angle: float) -> float:
    if not math.isfinite(angle):
        raise ValueError(f"angle must be finite, got {angle}")
    return math.radians(angle)


def _path_times(length: float) -> Tensor:
    """Equal times in (0, 1), 32 or more to a pixel."""
    steps = 32 * (2 * math.ceil(length / 2) + 1)
    return (torch.arange(steps, dtype=torch.float64) + 0.5) / steps


def _exposed(row: Tensor, column: Tensor, length: float) -> Tensor:
    """The exposure of the pixels by a path around the centre, in equal times."""
    radius = math.ceil(length / 2)
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    share_row = (1 - (row[:, None] - taps).abs()).clamp(min=0)
    share_column = (1 - (column[:, None] - taps).abs()).clamp(min=0)
    return share_row.T @ share_column / len(row)
