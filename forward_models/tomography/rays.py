"""From a geometry to its system matrix: the exact length of every ray in every pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .grid import Grid
from .sparse import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A shadow may be off by rounding; a ray that only seems to hit gets length zero.
_SLACK = 1e-6


class Rays(NamedTuple):
    """The lines of one view; the view at angle a turns all of them by a.

    Ray j consists of the points with x cos(a + turn_j) + y sin(a + turn_j) = offset_j.

    turn: (J,) in radians.
    offset: (J,) in mm, the distance from the axis of rotation, with sign.
    """

    turn: NDArray
    offset: NDArray


# (lateral, depth) in mm -> (fractional) index of the ray through that point, growing with lateral.
# lateral = x cos a + y sin a is measured along the detector, depth = y cos a - x sin a along the
# central ray.
Shadow = Callable[["NDArray", "NDArray"], "NDArray"]


def system_matrix(grid: Grid, angles: Tensor, rays: Rays, shadow: Shadow) -> SparseMatrix:
    """Lengths in mm, (views * J, H * W), one view at a time.

    The length of a line at distance t from the centre of a pixel is a trapezoid in t: full for
    |t| <= |p - q| / 2, zero from (p + q) / 2 on, linear between, where p = dx |cos| and
    q = dy |sin| for a line with the normal (cos, sin), and its area is dx * dy. A pixel is met by
    the rays between the shadows of its corners.

    Raises ValueError if there are 2^31 entries or more.
    """
    import numpy as np
    from scipy.sparse import coo_array

    size = (len(rays.turn), grid.shape[0] * grid.shape[1])
    pointers, columns, values = [np.zeros(1, np.int64)], [], []
    entries = 0
    for angle in np.deg2rad(angles.numpy()):
        ray, pixel, length = _view(grid, angle, rays, shadow)
        if entries + len(ray) > np.iinfo(np.int32).max:
            raise ValueError(
                f"{len(angles)} views of {size[1]} pixels by {size[0]} rays give more than "
                "2^31 - 1 entries of the system matrix; use larger pixels or fewer angles, or "
                "stack operators with a part of the angles each"
            )
        view = coo_array((length, (ray, pixel)), shape=size).tocsr()
        pointers.append(view.indptr[1:].astype(np.int64) + entries)
        columns.append(view.indices)
        values.append(view.data)
        entries += len(ray)
    return SparseMatrix(
        torch.from_numpy(np.concatenate(pointers).astype(np.int32)),
        torch.from_numpy(np.concatenate(columns)),
        torch.from_numpy(np.concatenate(values)),
        (len(angles) * size[0], size[1]),
    )


def _view(grid: Grid, angle: float, rays: Rays, shadow: Shadow) -> tuple[NDArray, NDArray, NDArray]:
    """(ray, pixel, length in mm) of every entry of one view, pixel by pixel."""
    import numpy as np

    cos, sin = np.cos(angle), np.sin(angle)

    def turned(shift: float) -> tuple[NDArray, NDArray]:
        y, x = grid.lines(shift)
        return np.add.outer(sin * y, cos * x), np.add.outer(cos * y, -sin * x)

    corners = shadow(*turned(-0.5))
    left, right = np.minimum(corners[:-1], corners[1:]), np.maximum(corners[:-1], corners[1:])
    low, high = np.minimum(left[:, :-1], left[:, 1:]), np.maximum(right[:, :-1], right[:, 1:])
    first = np.maximum(np.ceil(low - _SLACK), 0).astype(np.int32).ravel()
    last = np.minimum(np.floor(high + _SLACK), len(rays.turn) - 1).astype(np.int32).ravel()
    count = np.maximum(last - first + 1, 0)
    pixel = np.repeat(np.arange(count.size, dtype=np.int32), count)
    ray = np.arange(pixel.size) + np.repeat(first - (np.cumsum(count) - count), count)

    dy, dx = grid.spacing
    p, q = dx * np.abs(np.cos(angle + rays.turn)), dy * np.abs(np.sin(angle + rays.turn))
    wide, narrow = np.maximum(p, q), np.minimum(p, q)
    # A ray along a pixel border belongs half to either side: a steep edge, not a step.
    edge = np.maximum(narrow, 1e-9 * wide)
    lateral, depth = (np.repeat(part.ravel(), count) for part in turned(0.0))
    distance = lateral * np.cos(rays.turn)[ray] + depth * np.sin(rays.turn)[ray] - rays.offset[ray]
    length = ((wide + edge) / (2 * edge))[ray] - np.abs(distance) / edge[ray]
    length = np.minimum(length, 1) * (dx * dy / wide)[ray]
    hit = length > 0
    return ray[hit], pixel[hit], length[hit]
