"""The pixel grid of an image, placed in millimetres around the axis of rotation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checks import Shape, check_number, check_positive, check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """H x W rectangular pixels; x points to the right, y up, both 0 on the axis of rotation.

    Attributes:
        shape: (H, W).
        spacing: (dy, dx) in mm.
        axis: (row0, column0) of the axis of rotation, in pixels; (0, 0) is the first centre.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    axis: tuple[float, float]

    @classmethod
    def checked(
        cls,
        image_shape: Shape,
        pixel_spacing: float | tuple[float, float],
        axis: tuple[float, float] | None,
        centre: Callable[[int], float],
    ) -> Grid:
        """The grid, with the axis at (centre(H), centre(W)) if it is not given.

        Raises TypeError or ValueError for sizes and spacings that are not positive.
        """
        shape = check_shape("image_shape", image_shape)
        if len(shape) != 2:
            raise ValueError(f"image_shape must be (H, W), got {shape}")
        if isinstance(pixel_spacing, (tuple, list)):
            spacing = tuple(pixel_spacing)
        else:
            spacing = (pixel_spacing, pixel_spacing)
        if len(spacing) != 2:
            raise ValueError(f"pixel_spacing must be one number or (dy, dx), got {spacing}")
        dy, dx = (check_positive("pixel_spacing", value) for value in spacing)
        if axis is None:
            axis = (centre(shape[0]), centre(shape[1]))
        if not isinstance(axis, (tuple, list)) or len(axis) != 2:
            raise ValueError(f"axis must be (row0, column0) in pixels, got {axis!r}")
        row0, column0 = (check_number("axis", value) for value in axis)
        return cls((shape[0], shape[1]), (dy, dx), (row0, column0))

    def lines(self, shift: float = 0.0) -> tuple[NDArray, NDArray]:
        """y of the rows and x of the columns in mm; shift -0.5 gives their H + 1 and W + 1 borders.

        Rows are counted down, so y falls.
        """
        import numpy as np

        more = 1 if shift else 0
        y = -(np.arange(self.shape[0] + more) + shift - self.axis[0]) * self.spacing[0]
        x = (np.arange(self.shape[1] + more) + shift - self.axis[1]) * self.spacing[1]
        return y, x

    @property
    def reach(self) -> float:
        """Distance in mm from the axis of rotation to the farthest corner of the image."""
        sides = zip(self.shape, self.spacing, self.axis, strict=True)
        return math.hypot(*(d * max(abs(c + 0.5), abs(n - 0.5 - c)) for n, d, c in sides))
