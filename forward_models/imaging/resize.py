"""Resize: an image on another grid of pixels, as picture libraries do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, final, get_args

import torch
from torch import Tensor

from ..checks import Constant, Shape, check_image_shape, check_shape
from ..linear import SVD, LinearOperator
from ..linear.svd import without_rounding

Method = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]


def _box(t: Tensor) -> Tensor:
    return ((t > -0.5) & (t <= 0.5)).to(t.dtype)


def _bilinear(t: Tensor) -> Tensor:
    return (1 - t.abs()).clamp(min=0)


def _hamming(t: Tensor) -> Tensor:
    window = 0.54 + 0.46 * torch.cos(math.pi * t)
    return torch.where(t.abs() < 1, torch.sinc(t) * window, 0.0)


def _bicubic(t: Tensor) -> Tensor:
    """Keys' cubic convolution with a = -1/2."""
    a, t = -0.5, t.abs()
    inner = ((a + 2) * t - (a + 3)) * t**2 + 1
    outer = a * (((t - 5) * t + 8) * t - 4)
    return torch.where(t < 1, inner, torch.where(t < 2, outer, 0.0))


def _lanczos(t: Tensor) -> Tensor:
    return torch.where(t.abs() < 3, torch.sinc(t) * torch.sinc(t / 3), 0.0)


# Old pixels that a block of new ones should span: fewer make more and smaller products, more of
# them multiply more zeros.
_BAND = 16

# The interpolating function of each method, and how far it reaches.
_FILTERS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


def resampling_matrix(size: int, new_size: int, method: Method) -> Tensor:
    """The weights of `size` old pixels in `new_size` new ones, (new_size, size) in float64.

    Row i is filter((j + 1/2 - c_i) / r), normalised to sum to 1, with c_i = (i + 1/2) s the centre
    of the new pixel on the old grid, s = size / new_size, and the filter widened by r = max(s, 1)
    against aliasing; pixels beyond the border, or outside the reach of the filter, have no weight.
    """
    function, reach = _FILTERS[method]
    scale = size / new_size
    widening = max(scale, 1.0)
    centre = (torch.arange(new_size, dtype=torch.float64)[:, None] + 0.5) * scale
    pixel = torch.arange(size, dtype=torch.float64)
    # The window that Pillow sums over: it decides on which side an exact edge falls.
    first = (centre - reach * widening + 0.5).floor()
    last = (centre + reach * widening + 0.5).floor()
    weights = function((pixel + 0.5 - centre) / widening)
    weights = torch.where((pixel >= first) & (pixel < last), weights, 0.0)
    return weights / weights.sum(1, keepdim=True)


@final
class Resize(LinearOperator):
    """y = R_h x R_w^T per channel: the image on a grid of another size, up or down.

    The same numbers as Pillow's `Image.resize` in mode "F", before Pillow rounds them to float32:
    the filter is widened against aliasing when the grid gets coarser, and its rows are normalised
    where the border cuts them. Each R is a matrix (new pixels, old pixels), see
    `resampling_matrix`. "bicubic" takes a = -1/2.

    A = R_h (x) R_w, so its singular values are the products of theirs: `svd` and, with C = c I and
    one noise level, `solve` are closed forms; the decompositions cost O(H^3 + W^3) once. A product
    with A costs a few sums for each new pixel, done as matrix products over the bands of R.

    Args:
        image_shape: (C, H, W).
        size: (H', W').
        method: "box", "bilinear", "hamming", "bicubic" or "lanczos".

    Raises:
        ValueError: an impossible shape or size, or an unknown method.

    Paper: Keys, "Cubic convolution interpolation for digital image processing",
    https://doi.org/10.1109/TASSP.1981.1163711
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self, image_shape: Shape, size: tuple[int, int], method: Method = "bicubic"
    ) -> None:
        shape = check_image_shape(image_shape)
        if not isinstance(size, Sequence) or len(size) != 2:
            raise ValueError(f"size must be two integers (H', W'), got {size}")
        new = check_shape("size", size)
        if method not in get_args(Method):
            raise ValueError(f"unknown method {method!r}; known: {', '.join(get_args(Method))}")
        self.method: Method = method
        self.event_shape = shape
        self.measurement_shape = (shape[0], *new)
        rows = resampling_matrix(shape[1], new[0], method)
        columns = resampling_matrix(shape[2], new[1], method)
        self._rows, self._columns = _Banded(rows), _Banded(columns)
        self._rows_back, self._columns_back = _Banded(rows.mT), _Banded(columns.mT)
        self._svd: SVD | None = None

    def _apply(self, x: Tensor) -> Tensor:
        return _resample(x, self._rows, self._columns)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _resample(y, self._rows_back, self._columns_back)

    @property
    def svd(self) -> SVD:
        if self._svd is None:
            assert self.event_shape is not None
            channels = self.event_shape[0]
            self._svd = _KroneckerSVD(self._rows.matrix, self._columns.matrix, channels)
        return self._svd


@final
class _Banded:
    """A matrix R whose entries lie near its diagonal, as blocks of rows without their zeros."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        new, old = matrix.shape
        self.growth = new / old
        self._blocks: list[tuple[int, int, Constant]] = []
        for rows in matrix.split(max(_BAND, math.ceil(_BAND * self.growth))):
            used = rows.ne(0).any(0).nonzero()
            first, last = int(used[0]), int(used[-1])
            self._blocks.append((first, last - first + 1, Constant(rows[:, first : last + 1])))

    def times_rows(self, x: Tensor) -> Tensor:
        """R x for x (..., H, W)."""
        parts = [block.like(x) @ x.narrow(-2, *band) for *band, block in self._blocks]
        return torch.cat(parts, dim=-2)

    def times_columns(self, x: Tensor) -> Tensor:
        """x R^T for x (..., H, W)."""
        parts = [x.narrow(-1, *band) @ block.like(x).mT for *band, block in self._blocks]
        return torch.cat(parts, dim=-1)


def _resample(x: Tensor, rows: _Banded, columns: _Banded) -> Tensor:
    """R_h x R_w^T, the axis that shrinks more first."""
    if rows.growth <= columns.growth:
        return columns.times_columns(rows.times_rows(x))
    return rows.times_rows(columns.times_columns(x))


@final
class _KroneckerSVD(SVD):
    """x -> R_h x R_w^T per channel, from the decompositions of both: R = U diag(s) V^T."""

    def __init__(self, rows: Tensor, columns: Tensor, channels: int) -> None:
        (u_h, s_h, vt_h), (u_w, s_w, vt_w) = (
            torch.linalg.svd(matrix, full_matrices=False) for matrix in (rows, columns)
        )
        self._shape = (channels, len(s_h), len(s_w))
        size = max(rows.shape[0] * columns.shape[0], rows.shape[1] * columns.shape[1])
        values = without_rounding(s_h[:, None] * s_w, size)
        self.singular_values = values.expand(self._shape).flatten()
        self._u = Constant(u_h), Constant(u_w)
        self._vt = Constant(vt_h), Constant(vt_w)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        vt_h, vt_w = (vt.like(x) for vt in self._vt)
        return (vt_h @ x @ vt_w.mT).flatten(1)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        vt_h, vt_w = (vt.like(z) for vt in self._vt)
        return vt_h.mT @ z.reshape(-1, *self._shape) @ vt_w

    def to_spectral_y(self, y: Tensor) -> Tensor:
        u_h, u_w = (u.like(y) for u in self._u)
        return (u_h.mT @ y @ u_w).flatten(1)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        u_h, u_w = (u.like(z) for u in self._u)
        return u_h @ z.reshape(-1, *self._shape) @ u_w.mT
