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
# Positions are kept in 32 bits.
_MOST_ENTRIES = 2**31 - 1


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

    Raises ValueError, before anything large is allocated, if there are 2^31 entries or more.
    """
    import numpy as np
    from scipy.sparse import coo_array

    size = (len(rays.turn), grid.shape[0] * grid.shape[1])
    turns = np.deg2rad(angles.numpy())
    most = 0
    for angle in turns:
        most += int(_meetings(grid, angle, rays, shadow)[1].sum())
        if most > _MOST_ENTRIES:
            raise ValueError(
                f"{len(turns)} views of {size[1]} pixels by {size[0]} rays give a system matrix "
                f"of more than {_MOST_ENTRIES} entries; use larger pixels or fewer angles, or "
                "stack operators with a part of the angles each"
            )
    pointers = np.zeros(len(turns) * size[0] + 1, np.int32)
    columns, values = np.empty(most, np.int32), np.empty(most)
    end = 0
    for a, angle in enumerate(turns):
        ray, pixel, length = _view(grid, angle, rays, shadow)
        view = coo_array((length, (ray, pixel)), shape=size).tocsr()
        pointers[a * size[0] + 1 : (a + 1) * size[0] + 1] = end + view.indptr[1:]
        start, end = end, end + view.nnz
        columns[start:end], values[start:end] = view.indices, view.data
    return SparseMatrix(
        torch.from_numpy(pointers),
        torch.from_numpy(columns[:end]),
        torch.from_numpy(values[:end]),
        (len(turns) * size[0], size[1]),
    )


def _turned(grid: Grid, angle: float, shift: float) -> tuple[NDArray, NDArray]:
    """(lateral, depth) in mm of the pixel centres, or of their corners with shift -0.5."""
    import numpy as np

    y, x = grid.lines(shift)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.add.outer(sin * y, cos * x), np.add.outer(cos * y, -sin * x)


def _meetings(grid: Grid, angle: float, rays: Rays, shadow: Shadow) -> tuple[NDArray, NDArray]:
    """The first ray that may meet each pixel, and how many may, (H * W,) each."""
    import numpy as np

    corners = shadow(*_turned(grid, angle, -0.5))
    left, right = np.minimum(corners[:-1], corners[1:]), np.maximum(corners[:-1], corners[1:])
    low, high = np.minimum(left[:, :-1], left[:, 1:]), np.maximum(right[:, :-1], right[:, 1:])
    bins = len(rays.turn)
    first = np.clip(np.ceil(low - _SLACK), 0, bins).astype(np.int32).ravel()
    last = np.clip(np.floor(high + _SLACK), -1, bins - 1).astype(np.int32).ravel()
    return first, np.maximum(last - first + 1, 0)


def _view(grid: Grid, angle: float, rays: Rays, shadow: Shadow) -> tuple[NDArray, NDArray, NDArray]:
    """(ray, pixel, length in mm) of every entry of one view, pixel by pixel."""
    import numpy as np

    first, count = _meetings(grid, angle, rays, shadow)
    pixel = np.repeat(np.arange(count.size, dtype=np.int32), count)
    ray = np.arange(pixel.size) + np.repeat(first - (np.cumsum(count) - count), count)

    dy, dx = grid.spacing
    p, q = dx * np.abs(np.cos(angle + rays.turn)), dy * np.abs(np.sin(angle + rays.turn))
    wide, narrow = np.maximum(p, q), np.minimum(p, q)
    # A ray along a pixel border belongs half to either side: a steep edge, not a step.
    edge = np.maximum(narrow, 1e-9 * wide)
    lateral, depth = (np.repeat(part.ravel(), count) for part in _turned(grid, angle, 0.0))
    distance = lateral * np.cos(rays.turn)[ray] + depth * np.sin(rays.turn)[ray] - rays.offset[ray]
    length = ((wide + edge) / (2 * edge))[ray] - np.abs(distance) / edge[ray]
    length = np.minimum(length, 1) * (dx * dy / wide)[ray]
    hit = length > 0
    return ray[hit], pixel[hit], length[hit]
