"""Parallel-beam computed tomography."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from torch import Tensor

from ..checks import Shape
from .grid import Grid
from .projector import Projector, bins_across
from .rays import Rays

if TYPE_CHECKING:
    from numpy.typing import NDArray


@final
class Tomography(Projector):
    """y = line integrals of the image along parallel rays, (B, 1, H, W) to (B, 1, A, detectors).

    The ray (a, j) is the set of points with s = s_j, where a pixel at (row, column) has

        s = cos(angle_a) (column - column0) dx - sin(angle_a) (row - row0) dy,
        s_j = (j - j0) * detector_spacing.

    With the defaults, row0 = H // 2, column0 = W // 2, j0 = detectors // 2, these are the angles,
    the direction and the size of skimage.transform.radon(circle=False) for a square image. Lengths,
    units, memory and cost: see `Projector`. No closed-form SVD; `fbp` is the approximate inverse.

    Args:
        image_shape: (H, W), any.
        angles: in degrees, any numbers in any order.
        detectors: number of detector bins; default covers the diagonal of the image.
        detector_spacing: distance of neighbouring bins in mm; default the pixel spacing (the
            smaller one).
        pixel_spacing: pixel size in mm, one number, or (dy, dx).
        axis: (row0, column0), where the axis of rotation meets the image, in pixels.
        detector_axis: j0, where it meets the detector, in bins: a shifted detector.
        cache: True keeps large system matrices in the user's cache folder, a path keeps any in
            that folder, False keeps none. A cache that cannot be read or written is not used.

    Raises:
        TypeError, ValueError: sizes, spacings or angles that are not positive or not finite.

    Paper: Siddon, Fast calculation of the exact radiological path for a three-dimensional CT
    array, https://doi.org/10.1118/1.595715
    """

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
        grid = Grid.checked(image_shape, pixel_spacing, axis, lambda n: n // 2)
        if detector_spacing is None:
            detector_spacing = min(grid.spacing)
        if detectors is None:
            diagonal = math.hypot(*(n * d for n, d in zip(grid.shape, grid.spacing, strict=True)))
            detectors = bins_across(diagonal, detector_spacing)
        if detector_axis is None:
            detector_axis = detectors // 2
        super().__init__(grid, angles, detectors, detector_spacing, detector_axis, cache)

    def _rays(self) -> Rays:
        import numpy as np

        offset = (np.arange(self.detectors) - self.detector_axis) * self.detector_spacing
        return Rays(np.zeros_like(offset), offset)

    def _shadow(self, lateral: NDArray, depth: NDArray) -> NDArray:
        return lateral / self.detector_spacing + self.detector_axis
