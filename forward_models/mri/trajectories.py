"""Paths through k-space: points (M, 2) in cycles per pixel along rows and columns, float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checks import check_dtype, check_finite, check_positive, check_shape, check_tensor

# The angle that divides half a turn by the golden ratio, 111.246 degrees.
GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2


def radial_trajectory(spokes: int, samples: int, golden: bool = True) -> Tensor:
    """Straight lines through the centre, spoke after spoke: (spokes * samples, 2).

    Spoke j lies at the angle j * 111.246 degrees from the column axis (golden), or at
    j * 180 / spokes degrees. Sample i is at the radius (i - samples // 2) / samples cycles per
    pixel, so that one of them is the centre. A full image of n pixels across needs about
    pi / 2 * n spokes.

    Paper: Winkelmann et al., An optimal radial profile order based on the golden ratio for
    time-resolved MRI, https://doi.org/10.1109/TMI.2006.885337
    """
    spokes, samples = check_shape("spokes and samples", (spokes, samples))
    step = GOLDEN_ANGLE if golden else math.pi / spokes
    angle = step * torch.arange(spokes, dtype=torch.float64)[:, None]
    radius = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    return torch.stack([radius * angle.sin(), radius * angle.cos()], dim=-1).reshape(-1, 2)


def spiral_trajectory(interleaves: int, samples: int, turns: float) -> Tensor:
    """Archimedean spirals from the centre outwards, (interleaves * samples, 2).

    Sample i of interleaf j is at the radius r = i / (2 samples) cycles per pixel and the angle
    2 pi (2 turns r + j / interleaves); neighbouring arms are 1 / (2 turns interleaves) apart, so
    that a full image of n pixels across needs turns * interleaves of about n / 2.

    Args:
        turns: of one interleaf, > 0.

    Paper: Meyer et al., Fast spiral coronary artery imaging,
    https://doi.org/10.1002/mrm.1910280204
    """
    interleaves, samples = check_shape("interleaves and samples", (interleaves, samples))
    check_positive("turns", turns)
    radius = torch.arange(samples, dtype=torch.float64) / (2 * samples)
    start = torch.arange(interleaves, dtype=torch.float64)[:, None] / interleaves
    angle = 2 * math.pi * (2 * turns * radius + start)
    return torch.stack([radius * angle.sin(), radius * angle.cos()], dim=-1).reshape(-1, 2)


def interferometer_trajectory(baselines: Tensor, pixel: float) -> Tensor:
    """Radio interferometry: baselines (u, v) in wavelengths as points of k-space, (M, 2).

    The visibility of a small field is its Fourier transform at u cycles per radian eastwards and v
    northwards; here columns run east and rows north, in pixels of the given size.

    Args:
        baselines: (u, v), (M, 2), real.
        pixel: side of a pixel in radians; |u| and |v| must not exceed 0.5 / pixel.

    Raises:
        TypeError: the baselines are not a real tensor.
        ValueError: another shape, NaN, or baselines too long for the pixel.
    """
    check_tensor("baselines", baselines)
    check_dtype("baselines", baselines, "real")
    check_positive("pixel", pixel)
    if baselines.ndim != 2 or baselines.shape[1] != 2 or not len(baselines):
        raise ValueError(f"baselines have shape {tuple(baselines.shape)}, expected (M, 2)")
    check_finite("baselines", baselines)
    k = baselines.detach().to(torch.float64).flip(1) * pixel
    longest = float(k.abs().max())
    if longest > 0.5:
        raise ValueError(
            f"the longest baseline is {longest:g} cycles per pixel, at most 0.5 are resolved; use "
            f"pixels of at most {0.5 * pixel / longest:g} radians"
        )
    return k
