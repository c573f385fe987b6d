"""Parallel-beam computed tomography: line integrals through an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..checks import Shape, check_finite, check_positive, check_shape
from ..linear import LinearOperator
from .sparse import SparseMatrix
from .sparse_cache import cache_folder, content_key, load_matrix, save_matrix

# Smaller systems are built faster than a file is read and checked.
_WORTH_CACHING = 2_000_000


@final
class Tomography(LinearOperator):
    """y = line integrals of the image along parallel rays, one row of y per angle.

    y[a, j] = sum over pixels of (length in mm of ray (a, j) inside the pixel) * x[pixel]

    The lengths are those of the exact intersection of a line with a rectangular pixel, so that the
    only approximation is that the image is constant in each pixel. Values of y are in (unit of x)
    times mm. The ray (a, j) is the set of points with s = s_j, where a pixel at (row, column) has

        s = cos(angle_a) (column - column0) dx - sin(angle_a) (row - row0) dy,
        s_j = (j - j0) * detector_spacing.

    With the defaults, row0 = H // 2, column0 = W // 2, j0 = detectors // 2, these are the angles,
    the direction and the size of skimage.transform.radon(circle=False) for a square image.

    The system matrix is built once, O(pixels * angles), and kept with its transpose; the adjoint is
    exact. Memory and cost of a product are proportional to its entries, about 1.3 * pixels *
    angles for detectors as wide as pixels; see `SparseMatrix`. Only real single and double
    precision: leave autocast before calling.

    Args:
        image_shape: (H, W), any.
        angles: in degrees, any numbers in any order.
        detectors: number of detector bins; default covers the diagonal of the image.
        detector_spacing: distance of neighbouring bins in mm; default the pixel spacing (the
            smaller one).
        pixel_spacing: pixel size in mm, one number, or (dy, dx).
        axis: (row0, column0), where the axis of rotation meets the image, in pixels.
        detector_axis: j0, where it meets the detector, in bins.
        cache: True keeps large system matrices in the user's cache folder, a path keeps any in
            that folder, False keeps none. A cache that cannot be read or written is not used.

    Raises:
        TypeError, ValueError: sizes, spacings or angles that are not positive or not finite.

    Paper: Siddon, Fast calculation of the exact radiological path for a three-dimensional CT
    array, https://doi.org/10.1118/1.595715
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self,
        image_shape: Shape,
        angles: Sequence[float] | Tensor,
        *,
        detectors: int | None = None,
        detector_spacing: float | None = None,
        pixel_spacing: float | tuple[float, float] = 1.0,
        axis: tuple[float, float] | None = None,
        detector_axis: float | None = None,
        cache: bool | str | Path = True,
    ) -> None:
        shape = check_shape("image_shape", image_shape)
        if len(shape) != 2:
            raise ValueError(f"image_shape must be (H, W), got {shape}")
        height, width = shape
        spacing = pixel_spacing if isinstance(pixel_spacing, tuple) else (pixel_spacing,) * 2
        if len(spacing) != 2:
            raise ValueError(f"pixel_spacing must be one number or (dy, dx), got {spacing}")
        dy, dx = (check_positive("pixel_spacing", value) for value in spacing)
        self.pixel_spacing = (dy, dx)
        if detector_spacing is None:
            detector_spacing = min(dy, dx)
        self.detector_spacing = check_positive("detector_spacing", detector_spacing)
        if detectors is None:
            # The guard keeps a diagonal that is a whole number from being rounded up once more.
            bins = math.hypot(height * dy, width * dx) / self.detector_spacing
            detectors = max(math.ceil(bins * (1 - 1e-12)), 1)
        (self.detectors,) = check_shape("detectors", (detectors,))
        self.angles = torch.as_tensor(angles, dtype=torch.float64).detach().clone().cpu()
        if self.angles.ndim != 1 or self.angles.numel() == 0:
            raise ValueError(
                f"angles must be a list of degrees, got the shape {tuple(self.angles.shape)}"
            )
        check_finite("angles", self.angles)
        self.axis = (height // 2, width // 2) if axis is None else axis
        self.detector_axis = self.detectors // 2 if detector_axis is None else detector_axis
        for name, value in (("axis", sum(self.axis)), ("detector_axis", self.detector_axis)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}")
        self.event_shape = (1, height, width)
        self.measurement_shape = (1, self.angles.numel(), self.detectors)
        self.matrix = self._cached_matrix(cache)

    def _cached_matrix(self, cache: bool | str | Path) -> SparseMatrix:
        assert self.event_shape is not None
        assert self.measurement_shape is not None
        pixels = math.prod(self.event_shape)
        shape = (math.prod(self.measurement_shape), pixels)
        if cache is False or (cache is True and pixels * self.angles.numel() < _WORTH_CACHING):
            return self._build(shape)
        folder = cache_folder() if cache is True else Path(cache)
        numbers = (*self.pixel_spacing, self.detector_spacing, *self.axis, self.detector_axis)
        geometry = torch.cat([torch.tensor(numbers, dtype=torch.float64), self.angles])
        key = content_key("parallel-line", (*self.event_shape, self.detectors), geometry)
        matrix = load_matrix(folder, key, shape)
        if matrix is None:
            matrix = self._build(shape)
            save_matrix(folder, key, matrix)
        return matrix

    def _build(self, shape: tuple[int, int]) -> SparseMatrix:
        """The system matrix, one angle at a time.

        The length of a line at distance t from the centre of a pixel is a trapezoid in t: full
        for |t| <= |a - b| / 2, zero from (a + b) / 2 on, linear between, with a = dx |cos| and
        b = dy |sin|, and its area is dx * dy. So each pixel meets the few rays inside (a + b) / 2.
        """
        import numpy as np
        from scipy.sparse import coo_array

        assert self.event_shape is not None
        _, height, width = self.event_shape
        (dy, dx), bins, spacing = self.pixel_spacing, self.detectors, self.detector_spacing
        y = (np.arange(height) - self.axis[0]) * dy
        x = (np.arange(width) - self.axis[1]) * dx
        rows, columns, values = [], [], []
        for a, angle in enumerate(np.deg2rad(self.angles.numpy())):
            cos, sin = math.cos(angle), math.sin(angle)
            wide, narrow = sorted((dx * abs(cos), dy * abs(sin)), reverse=True)
            # A ray along a pixel border belongs half to either side: a steep edge, not a step.
            edge = max(narrow, 1e-9 * wide)
            reach = (wide + edge) / 2
            position = np.add.outer(-sin * y, cos * x).ravel() / spacing + self.detector_axis
            first = np.ceil(position - reach / spacing)
            # One row per pixel: the entries then come in ascending order of the pixels.
            ray = first[:, None] + np.arange(math.floor(2 * reach / spacing) + 1)
            length = (reach - np.abs(ray - position[:, None]) * spacing) / edge
            hit = (length > 0) & (ray >= 0) & (ray < bins)
            rows.append((ray[hit] + a * bins).astype(np.int32))
            columns.append(np.nonzero(hit)[0].astype(np.int32))
            values.append(np.minimum(length[hit], 1) * (dx * dy / wide))
        entries = sum(map(len, values))
        if entries > np.iinfo(np.int32).max:
            raise ValueError(
                f"the system matrix has {entries} entries, more than 2^31 - 1; use fewer angles "
                "or pixels, or stack operators with a part of the angles each"
            )
        index = (np.concatenate(rows), np.concatenate(columns))
        matrix = coo_array((np.concatenate(values), index), shape=shape).tocsr()
        return SparseMatrix(
            torch.from_numpy(matrix.indptr),
            torch.from_numpy(matrix.indices),
            torch.from_numpy(matrix.data),
            shape,
        )

    def _apply(self, x: Tensor) -> Tensor:
        assert self.measurement_shape is not None
        columns = x.flatten(1).mT.contiguous()
        return self.matrix.product(columns).mT.reshape(-1, *self.measurement_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        assert self.event_shape is not None
        columns = y.flatten(1).mT.contiguous()
        product = self.matrix.product(columns, transpose=True)
        return product.mT.reshape(-1, *self.event_shape)
