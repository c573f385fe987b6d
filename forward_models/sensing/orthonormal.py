"""Orthonormal transforms T of images: T^T T = I, with a fast algorithm each."""

from __future__ import annotations

from ..checks import Shape, check_image_shape
from ..linear import Isometry


class Orthonormal(Isometry):
    """An operator T on images (B, C, H, W), channel by channel, that keeps lengths: T^T T = I.

    See `Isometry` for what is exact and its cost. An author writes `_apply` and `_adjoint`.

    Args:
        image_shape: (C, H, W).

    Raises:
        ValueError: another image shape.
    """

    event_ndim = measurement_ndim = 3

    def __init__(self, image_shape: Shape) -> None:
        self.image_shape = check_image_shape(image_shape)
        self.event_shape = self.measurement_shape = self.image_shape
