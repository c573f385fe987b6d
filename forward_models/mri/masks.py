"""Sampling patterns of Cartesian k-space: bool masks, true where a sample is taken.

Masks of lines are (W,); those of points are (H, W). The centre is index n // 2 of an axis, and
`center` samples around it are always taken. Except for the regular patterns the number of samples
is exact: round(all / acceleration), the centre included.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checks import Shape, check_positive, check_shape


def acceleration(mask: Tensor) -> float:
    """All positions over sampled ones, e.g. 4 for a quarter of k-space."""
    taken = int(mask.count_nonzero())
    if not taken:
        raise ValueError("mask is zero everywhere: its acceleration is infinite")
    return mask.numel() / taken


def _central(size: int, center: int) -> slice:
    """The `center` positions around index size // 2."""
    if isinstance(center, bool) or not isinstance(center, int) or not 0 <= center <= size:
        raise ValueError(f"center must be an integer from 0 to {size}, got {center}")
    start = size // 2 - center // 2
    return slice(start, start + center)


def _count(total: int, factor: float, center: int) -> int:
    """How many of `total` samples an acceleration leaves; the centre must fit into them."""
    if not check_positive("acceleration", factor) >= 1:
        raise ValueError(f"acceleration must be at least 1, got {factor}")
    count = max(round(total / factor), 1)
    if count < center:
        raise ValueError(
            f"acceleration {factor:g} leaves {count} of {total} samples, fewer than the {center} "
            "of the centre; lower one of them"
        )
    return count


def _weighted_lines(
    width: int, factor: float, center: int, weight: Tensor, generator: torch.Generator | None
) -> Tensor:
    mask = torch.zeros(width, dtype=torch.bool)
    mask[_central(width, center)] = True
    more = _count(width, factor, center) - center
    if more:
        device = "cpu" if generator is None else generator.device
        outside = weight.masked_fill(mask, 0).to(device)
        mask[torch.multinomial(outside, more, generator=generator).cpu()] = True
    return mask


def random_lines(
    width: int, acceleration: float, center: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Whole lines drawn uniformly without replacement, (width,) bool.

    Args:
        acceleration: R >= 1; exactly round(width / R) lines are taken, the centre included.
        center: number of central lines always taken.

    Raises ValueError if the centre alone exceeds that number.
    """
    (width,) = check_shape("width", (width,))
    return _weighted_lines(width, acceleration, center, torch.ones(width), generator)


def gaussian_lines(
    width: int,
    acceleration: float,
    center: int = 0,
    spread: float = 1 / 6,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Whole lines drawn with Gaussian density around the centre, without replacement, (width,).

    Args:
        acceleration, center: as for `random_lines`.
        spread: standard deviation of the density as a fraction of the width.
    """
    (width,) = check_shape("width", (width,))
    check_positive("spread", spread)
    k = (torch.arange(width, dtype=torch.float64) - width // 2) / (spread * width)
    # Far lines must stay possible: with a narrow density their weight underflows to zero.
    weight = torch.exp(-0.5 * k.square()).clamp(min=1e-30)
    return _weighted_lines(width, acceleration, center, weight, generator)


def equispaced_lines(width: int, spacing: int, center: int = 0, offset: int = 0) -> Tensor:
    """Every `spacing`-th line, offset, offset + spacing, ..., and the central ones, (width,).

    The centre adds lines: `acceleration(mask)` is below `spacing` then.

    Args:
        offset: first line, from 0 to spacing - 1.
    """
    width, spacing = check_shape("width and spacing", (width, spacing))
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < spacing:
        raise ValueError(f"offset must be an integer from 0 to {spacing - 1}, got {offset}")
    mask = torch.zeros(width, dtype=torch.bool)
    mask[offset::spacing] = True
    mask[_central(width, center)] = True
    return mask


def radial_mask(shape: Shape, spokes: int) -> Tensor:
    """Grid points nearest to straight lines through the centre, (H, W) bool.

    Spoke j lies at the angle pi j / spokes and ends on the ellipse inscribed in k-space.
    The number of samples follows: see `acceleration(mask)`.
    """
    height, width = _plane(shape)
    (spokes,) = check_shape("spokes", (spokes,))
    angle = torch.arange(spokes, dtype=torch.float64) * math.pi / spokes
    t = torch.linspace(-0.5, 0.5, 2 * max(height, width) + 1, dtype=torch.float64)
    rows = (angle.sin()[:, None] * t * height + height // 2).round().long()
    columns = (angle.cos()[:, None] * t * width + width // 2).round().long()
    mask = torch.zeros(height, width, dtype=torch.bool)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    mask[rows[inside], columns[inside]] = True
    return mask


def poisson_disc_mask(
    shape: Shape,
    acceleration: float,
    center: int | tuple[int, int] = 0,
    decay: float = 2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random points that keep their distance, denser towards the centre, (H, W) bool.

    Two points outside the central block are farther apart than the smaller of their radii
    r(k) = r0 (1 + decay |k|), |k| = 1 at the edges of k-space along its axes, in grid steps. The
    points are tried in random order; r0 is the largest one that leaves enough of them (found by
    bisection), and the surplus is dropped at random, so that exactly round(H W / acceleration)
    samples remain. Cost: about 8 passes over the grid in Python, a second at 256 x 256.

    Args:
        acceleration: R >= 1.
        center: size of the central block that is always taken, one number or (rows, columns).
        decay: 0 gives uniform density; the density falls as 1 / r^2.

    Raises ValueError if the centre alone exceeds that number.

    Paper: Cook, Stochastic sampling in computer graphics, https://doi.org/10.1145/7529.8927
    """
    height, width = _plane(shape)
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay must be finite and not negative, got {decay}")
    rows, columns = (center, center) if isinstance(center, int) else center
    block = torch.zeros(height, width, dtype=torch.bool)
    block[_central(height, rows), _central(width, columns)] = True
    wanted = _count(height * width, acceleration, int(block.sum())) - int(block.sum())

    row = (torch.arange(height, dtype=torch.float64) - height // 2) / (height / 2)
    column = (torch.arange(width, dtype=torch.float64) - width // 2) / (width / 2)
    profile = 1 + decay * torch.hypot(row[:, None], column[None, :])
    device = "cpu" if generator is None else generator.device
    order = torch.randperm(height * width, generator=generator, device=device).cpu()
    order = order[~block.flatten()[order]]

    # Darts thrown until none fits leave about 0.7 points per r^2.
    guess = math.sqrt(0.7 * float(profile.pow(-2).sum()) / max(wanted, 1))
    low, high, points = guess / 4, 2 * guess, order
    while high / low > 1.02 and len(points) > wanted:
        middle = math.sqrt(low * high)
        trial = _throw_darts(order, middle * profile)
        if len(trial) >= wanted:
            low, points = middle, trial
        else:
            high = middle
    keep = torch.randperm(len(points), generator=generator, device=device).cpu()[:wanted]
    mask = block.flatten()
    mask[points[keep]] = True
    return mask.reshape(height, width)


def _throw_darts(order: Tensor, radius: Tensor) -> Tensor:
    """The points of `order` (flat indices) that lie outside the discs of all points kept before."""
    import numpy as np

    height, width = radius.shape
    reach = min(int(radius.max()), max(height, width) - 1)
    step = np.arange(-reach, reach + 1)
    distance = np.hypot(step[:, None], step[None, :])
    free = np.ones((height + 2 * reach, width + 2 * reach), dtype=bool)
    radii = radius.numpy()
    kept = []
    for index in order.tolist():
        i, j = divmod(index, width)
        if free[i + reach, j + reach]:
            kept.append(index)
            n = min(int(radii[i, j]), reach)
            near = distance[reach - n : reach + n + 1, reach - n : reach + n + 1] <= radii[i, j]
            free[i + reach - n : i + reach + n + 1, j + reach - n : j + reach + n + 1] &= ~near
    return torch.tensor(kept, dtype=torch.int64)


def _plane(shape: Shape) -> tuple[int, int]:
    sizes = check_shape("shape", shape)
    if len(sizes) != 2:
        raise ValueError(f"shape must be (H, W), got {sizes}")
    return sizes[0], sizes[1]
