"""Line integrals of an image along the rays of a rotating source and detector."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checks import check_number, check_positive, check_shape
from ..linear import LinearOperator
from .grid import Grid
from .rays import Rays, system_matrix
from .scan import check_angles
from .sparse import SparseMatrix
from .sparse_cache import cache_folder, content_key, load_matrix, save_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Smaller systems (pixels times views) are built faster than a file is read and checked.
_WORTH_CACHING = 2_000_000


class Projector(LinearOperator):
    """y[a, j] = sum over pixels of (length in mm of ray (a, j) inside the pixel) * x[pixel].

    The lengths are those of the exact intersection of a line with a rectangular pixel, so that the
    only approximation is that the image is constant in each pixel. Values of y are in (unit of x)
    times mm: without unit for attenuation in 1/mm.

    A geometry is the rays of one view, which every view turns by its angle, and the shadow that a
    point throws on the detector. The matrix follows from them; it is built once, O(pixels * views),
    and kept with its transpose, so that the adjoint is exact. Memory: 24 bytes per entry, both
    directions, in one precision; an entry is a pixel that a ray meets, of which there are about
    4 / pi * pixels * views * (pixel spacing / spacing of the rays at the axis). Cost of a product:
    proportional to the entries. Only real single and double precision: leave autocast before
    calling.

    Attributes:
        grid: the pixels in mm.
        angles: (A,) float64, in degrees.
        detectors, detector_spacing, detector_axis: number of bins, their distance in mm, and the
            (fractional) bin that the ray through the axis of rotation meets.
        matrix: (A * detectors, H * W).
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self,
        grid: Grid,
        angles: Sequence[float] | Tensor,
        detectors: int,
        detector_spacing: float,
        detector_axis: float,
        cache: bool | str | Path,
    ) -> None:
        self.grid = grid
        self.angles = check_angles(angles)
        (self.detectors,) = check_shape("detectors", (detectors,))
        self.detector_spacing = check_positive("detector_spacing", detector_spacing)
        self.detector_axis = check_number("detector_axis", detector_axis)
        self._image = (1, *grid.shape)
        self._sinogram = (1, self.angles.numel(), self.detectors)
        self.event_shape, self.measurement_shape = self._image, self._sinogram
        self.matrix = self._cached_matrix(cache)

    @abstractmethod
    def _rays(self) -> Rays:
        """The rays of the view at angle 0."""

    @abstractmethod
    def _shadow(self, lateral: NDArray, depth: NDArray) -> NDArray:
        """Index of the ray through a point, see `Shadow`."""

    def _cached_matrix(self, cache: bool | str | Path) -> SparseMatrix:
        shape = (math.prod(self._sinogram), math.prod(self._image))
        small = shape[1] * self.angles.numel() < _WORTH_CACHING
        if cache is False or (cache is True and small):
            return self._build()
        folder = cache_folder() if cache is True else Path(cache)
        numbers = torch.tensor((*self.grid.spacing, *self.grid.axis), dtype=torch.float64)
        rays = [torch.from_numpy(part) for part in self._rays()]
        key = content_key(
            "lines", (*self._image, self.detectors), torch.cat([numbers, *rays, self.angles])
        )
        matrix = load_matrix(folder, key, shape)
        if matrix is None:
            matrix = self._build()
            save_matrix(folder, key, matrix)
        return matrix

    def _build(self) -> SparseMatrix:
        return system_matrix(self.grid, self.angles, self._rays(), self._shadow)

    def _apply(self, x: Tensor) -> Tensor:
        columns = x.flatten(1).mT.contiguous()
        return self.matrix.product(columns).mT.reshape(-1, *self._sinogram)

    def _adjoint(self, y: Tensor) -> Tensor:
        columns = y.flatten(1).mT.contiguous()
        return self.matrix.product(columns, transpose=True).mT.reshape(-1, *self._image)


def bins_across(width: float, spacing: float) -> int:
    """How many bins cover a width; one that is a whole number of bins is not rounded up."""
    return max(math.ceil(width / check_positive("detector_spacing", spacing) * (1 - 1e-12)), 1)
