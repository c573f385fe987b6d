"""Orthonormal transforms T of images: T^T T = I, with a fast algorithm each."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from ..checks import Shape, check_image_shape
from ..linear import SVD, LinearOperator


@final
class _OrthonormalSVD(SVD):
    """T = T I I^T: all singular values are 1."""

    def __init__(self, transform: Orthonormal) -> None:
        self.transform = transform
        count = math.prod(transform.image_shape)
        self.singular_values = torch.ones(count, dtype=torch.float64)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return z.reshape(-1, *self.transform.image_shape)

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return self.transform._adjoint(y).flatten(1)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self.transform._apply(z.reshape(-1, *self.transform.image_shape))


class Orthonormal(LinearOperator):
    """An operator T on images (B, C, H, W), channel by channel, that keeps lengths: T^T T = I.

    All singular values are 1 (`svd`), T^T T costs nothing (`normal`), and `solve` with C = c I and
    one noise level is closed. An author writes `_apply` and `_adjoint`.
    """

    event_ndim = measurement_ndim = 3

    def __init__(self, image_shape: Shape) -> None:
        self.image_shape = check_image_shape(image_shape)
        self.event_shape = self.measurement_shape = self.image_shape

    def _normal(self, x: Tensor) -> Tensor:
        return x

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        """T T^T = I holds too, because y is as large as x."""
        return torch.ones((), dtype=y.dtype.to_real(), device=y.device)

    @cached_property
    def svd(self) -> SVD:
        return _OrthonormalSVD(self)
