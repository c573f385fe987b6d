"""Fan-beam computed tomography: rays from a point source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final, get_args

from torch import Tensor

from ..checks import Shape, check_positive
from .grid import Grid
from .projector import Projector, bins_across
from .rays import Rays

if TYPE_CHECKING:
    from numpy.typing import NDArray

Detector = Literal["flat", "curved"]


@final
class FanBeam(Projector):
    """y = line integrals along rays from a point source, (B, 1, H, W) to (B, 1, A, detectors).

    In coordinates with x to the right and y up, 0 on the axis of rotation, the view at angle a has

        source    R (sin a, -cos a),    R = source_origin
        detector  axis (cos a, sin a), at the distance D = source_detector from the source
        ray j     at the angle gamma_j to the central ray, from (j - j0) * detector_spacing, which
                  is D tan(gamma_j) on a flat detector and D gamma_j on one curved around the source

    so that ray (a, j) is the parallel ray at the angle a - gamma_j with s = R sin(gamma_j), and a
    far source measures what `Tomography` measures at the same angles. A positive turn of the
    source is counter-clockwise; a scanner that turns clockwise has negative angles. The rays run
    through the whole image whatever D is: a virtual detector through the axis, D = R, is allowed.

    Lengths, units, memory and cost: see `Projector`. No closed-form SVD; `fbp` is the approximate
    inverse.

    Args:
        image_shape: (H, W), any.
        angles: in degrees, any numbers in any order.
        source_origin: R, from the source to the axis of rotation in mm.
        source_detector: D, from the source to the detector in mm.
        detectors: number of detector bins; default covers the whole image at every angle.
        detector_spacing: distance of neighbouring bins in mm, along the arc if curved; default the
            smaller pixel spacing, magnified from the axis to the detector.
        detector: "flat" or "curved" (an arc around the source).
        pixel_spacing: pixel size in mm, one number, or (dy, dx).
        axis: (row0, column0), where the axis of rotation meets the image, in pixels; default the
            middle, (H - 1) / 2 and (W - 1) / 2.
        detector_axis: j0, the bin that the central ray meets, in bins; default the middle,
            (detectors - 1) / 2. A detector shifted by d mm along its axis has that less
            d / detector_spacing.
        cache: as for `Tomography`.

    Raises:
        TypeError, ValueError: sizes, spacings or angles that are not positive or not finite; a
            corner of the image on or outside the circle of the source.

    Paper: Kak and Slaney, Principles of Computerized Tomographic Imaging, chapter 3,
    https://doi.org/10.1137/1.9780898719277
    """

    def __init__(
        self,
        image_shape: Shape,
        angles: Sequence[float] | Tensor,
        *,
        source_origin: float,
        source_detector: float,
        detectors: int | None = None,
        detector_spacing: float | None = None,
        detector: Detector = "flat",
        pixel_spacing: float | tuple[float, float] = 1.0,
        axis: tuple[float, float] | None = None,
        detector_axis: float | None = None,
        cache: bool | str | Path = True,
    ) -> None:
        grid = Grid.checked(image_shape, pixel_spacing, axis, lambda n: (n - 1) / 2)
        self.source_origin = check_positive("source_origin", source_origin)
        self.source_detector = check_positive("source_detector", source_detector)
        if detector not in get_args(Detector):
            raise ValueError(f"unknown detector {detector!r}; known: flat, curved")
        self.detector = detector
        if grid.reach >= self.source_origin:
            raise ValueError(
                f"the image reaches {grid.reach:.6g} mm from the axis of rotation, but the source "
                f"circles at {self.source_origin:.6g} mm; the object must lie inside: check "
                "pixel_spacing, axis and source_origin"
            )
        if detector_spacing is None:
            detector_spacing = min(grid.spacing) * self.source_detector / self.source_origin
        if detectors is None:
            half = math.asin(grid.reach / self.source_origin)
            half = self.source_detector * (math.tan(half) if detector == "flat" else half)
            detectors = bins_across(2 * half, detector_spacing)
        if detector_axis is None:
            detector_axis = (detectors - 1) / 2
        super().__init__(grid, angles, detectors, detector_spacing, detector_axis, cache)

    @property
    def fan_angles(self) -> NDArray:
        """gamma_j in radians, (detectors,)."""
        import numpy as np

        u = (np.arange(self.detectors) - self.detector_axis) * self.detector_spacing
        u = u / self.source_detector
        return np.arctan(u) if self.detector == "flat" else u

    def _rays(self) -> Rays:
        import numpy as np

        gamma = self.fan_angles
        if np.abs(gamma).max() >= math.pi / 2:
            raise ValueError(
                f"the curved detector of {self.detectors} bins of {self.detector_spacing:.6g} mm "
                f"reaches beyond a half circle of radius {self.source_detector:.6g} mm; check "
                "detectors, detector_spacing and detector_axis"
            )
        return Rays(-gamma, self.source_origin * np.sin(gamma))

    def _shadow(self, lateral: NDArray, depth: NDArray) -> NDArray:
        import numpy as np

        depth = depth + self.source_origin
        u = lateral / depth if self.detector == "flat" else np.arctan2(lateral, depth)
        return u * (self.source_detector / self.detector_spacing) + self.detector_axis
