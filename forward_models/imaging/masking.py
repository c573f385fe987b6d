"""Inpainting: some pixels are seen, the others are not."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, Shape, check_finite, check_shape, check_tensor
from ..linear import SVD, LinearOperator


@final
class _MaskSVD(SVD):
    """Rows of the identity: one singular value per seen entry."""

    def __init__(self, mask: Tensor) -> None:
        self._shape = tuple(mask.shape)
        self._index = Constant(mask.flatten().nonzero().flatten())
        self.singular_values = mask.flatten()[self._index.value]

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, self._index.like(x))

    def from_spectral_x(self, z: Tensor) -> Tensor:
        zero = z.new_zeros(z.shape[0], math.prod(self._shape))
        return zero.index_copy(1, self._index.like(z), z).reshape(-1, *self._shape)

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return self.to_spectral_x(y)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self.from_spectral_x(z)


@final
class Inpainting(LinearOperator):
    """y = m * x, the image with unseen entries set to 0; y has the shape of the image.

    Only entries with m > 0 are data (`measured`). Self-adjoint, real or complex; A A^T = diag(m^2),
    so that `solve` with C = c I is one division; `svd` is known once the shape of the image is.
    Cost: one product per entry.

    Args:
        mask: m, bool or in [0, 1]: (D,) or (C, H, W) or any shape of a whole image; or (H, W), the
            same for every channel of images with any number of them.
        channels: number of channels of the images that an (H, W) mask is for; it fixes
            `event_shape`, which `svd` needs.

    Raises:
        TypeError: the mask is no bool or floating-point tensor.
        ValueError: NaN, a value outside [0, 1], nothing seen, or `channels` without an (H, W) mask.

    Paper: Bertalmio et al., Image inpainting, 2000, https://doi.org/10.1145/344779.344972
    """

    event_field: Field = "any"
    measurement_field: Field = "any"
    entrywise = True

    def __init__(self, mask: Tensor, channels: int | None = None) -> None:
        check_tensor("mask", mask)
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise TypeError(
                f"mask has dtype {mask.dtype}, expected bool or a float in [0, 1]; "
                "convert it with mask.bool()"
            )
        if mask.ndim == 0 or mask.numel() == 0:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, expected (H, W) or an image's")
        value = mask.to(torch.float64)
        check_finite("mask", value)
        if bool((value < 0).any()) or bool((value > 1).any()):
            raise ValueError(
                f"mask has values in [{float(value.min()):g}, {float(value.max()):g}], expected "
                "[0, 1]; scale it, or threshold it to bool"
            )
        if not bool(value.any()):
            raise ValueError("mask is zero everywhere: nothing is measured")
        if channels is not None:
            if mask.ndim != 2:
                raise ValueError(
                    f"channels={channels} goes with a mask (H, W), got {tuple(mask.shape)}"
                )
            value = value.expand(*check_shape("channels", (channels,)), *mask.shape)
        self._mask = Constant(value)
        if value.ndim == 2:
            self.event_ndim = self.measurement_ndim = 3
        else:
            self.event_shape = self.measurement_shape = tuple(value.shape)
            self.event_ndim = self.measurement_ndim = value.ndim
        self._svd: SVD | None = None

    @property
    def mask(self) -> Tensor:
        """m in float64, (H, W) or the shape of an image."""
        return self._mask.value

    def output_shape(self, event_shape: Shape) -> Shape:
        if event_shape[-2:] != tuple(self.mask.shape[-2:]):
            raise ValueError(
                f"the image is {event_shape}, the mask {tuple(self.mask.shape)}: they must agree "
                "in height and width"
            )
        return event_shape

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.output_shape(measurement_shape)

    def _apply(self, x: Tensor) -> Tensor:
        return x * self._mask.like(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y)

    def _normal(self, x: Tensor) -> Tensor:
        return x * self._mask.like(x).square()

    def _gram_diagonal(self, y: Tensor) -> Tensor:
        return self._mask.like(y).square()

    @property
    def measured(self) -> Tensor:
        return self.mask > 0

    @property
    def svd(self) -> SVD | None:
        """One singular value per seen entry; None while the number of channels is open."""
        if self._svd is None and self.event_shape is not None:
            self._svd = _MaskSVD(self.mask.expand(self.event_shape))
        return self._svd
