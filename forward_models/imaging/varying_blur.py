"""Blur that changes over the image: a few kernels, each with a map of where it holds."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Shape, check_dtype, check_finite, check_shape, check_tensor
from ..linear import LinearOperator
from .blur import margins
from .borders import Padding, check_padding, extend, fold
from .convolution import Convolution


@final
class VaryingBlur(LinearOperator):
    """y = sum_r k_r * (w_r x): every pixel is spread by the mixture sum_r w_r k_r at its place.

    With smooth weights that sum to 1 this interpolates between measured kernels and conserves
    light; see `grid_weights` for kernels known on a regular grid. Every channel is treated alike.
    Convolution, centre and padding are those of `Blur`; the padding continues w_r x.

    The adjoint is exact: A^T y = sum_r w_r (k_r ** y), with ** the adjoint of the convolution.
    Cost: that of R blurs. No closed-form solve.

    Args:
        kernels: k_r, (R, h, w), real, not normalised here.
        weights: w_r, (R, H, W), real; H and W fix the size of the images.
        padding: the continuation beyond the border.

    Raises:
        TypeError: kernels or weights are no floating-point tensors.
        ValueError: shapes that do not fit, entries that are not finite, an unknown padding.

    Paper: Denis, Thiébaut, Soulez, Becker, Mourya, "Fast approximations of shift-variant blur",
    https://doi.org/10.1007/s11263-015-0817-x
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(self, kernels: Tensor, weights: Tensor, padding: Padding = "constant") -> None:
        for name, value, axes in (
            ("kernels", kernels, "(R, h, w)"),
            ("weights", weights, "(R, H, W)"),
        ):
            check_tensor(name, value)
            check_dtype(name, value, "real")
            if value.ndim != 3 or value.numel() == 0:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {axes}")
            check_finite(name, value)
        if len(kernels) != len(weights):
            raise ValueError(f"there are {len(kernels)} kernels and {len(weights)} weights")
        check_padding(padding)
        self.padding: Padding = padding
        self._kernels = Constant(kernels.to(torch.float64))
        self._weights = Constant(weights.to(torch.float64))
        self._convolution = Convolution(self.kernels)
        h, w = self.kernels.shape[-2:]
        self._margins = margins((h, w))
        self._size = (weights.shape[-2], weights.shape[-1])
        self._blurred_size = self._size
        if padding == "valid":
            height, width = self._size
            self._blurred_size = (height - h + 1, width - w + 1)
            if min(self._blurred_size) < 1:
                raise ValueError(
                    f"the image is {self._size}, smaller than the kernels {(h, w)}: padding "
                    "'valid' leaves nothing; choose another padding"
                )

    @property
    def kernels(self) -> Tensor:
        """k_r in float64, (R, h, w)."""
        return self._kernels.value

    @property
    def weights(self) -> Tensor:
        """w_r in float64, (R, H, W)."""
        return self._weights.value

    def output_shape(self, event_shape: Shape) -> Shape:
        return self._exchange("the image", event_shape, self._size, self._blurred_size)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self._exchange("y", measurement_shape, self._blurred_size, self._size)

    @staticmethod
    def _exchange(name: str, shape: Shape, found: tuple[int, int], other: tuple[int, int]) -> Shape:
        if tuple(shape[-2:]) != found:
            raise ValueError(f"{name} is {shape}, expected height and width {found} of the weights")
        return (*shape[:-2], *other)

    def _apply(self, x: Tensor) -> Tensor:
        # One stack (B C, R, H, W) of weighted images, R kernels as its channels.
        weighted = x.flatten(0, 1)[:, None] * self._weights.like(x)
        blurred = self._convolution.apply(extend(weighted, self.padding, self._margins))
        return blurred.sum(1).reshape(*x.shape[:2], *blurred.shape[-2:])

    def _adjoint(self, y: Tensor) -> Tensor:
        spread = y.flatten(0, 1)[:, None].expand(-1, len(self.kernels), -1, -1)
        back = fold(self._convolution.adjoint(spread), self.padding, self._margins)
        return (self._weights.like(y) * back).sum(1).reshape(*y.shape[:2], *self._size)


def grid_weights(height: int, width: int, rows: int, columns: int) -> Tensor:
    """Bilinear weights of a rows x columns grid of kernels, (rows * columns, H, W) in float64.

    Kernel (i, j), number i * columns + j, holds alone at its node: nodes are equidistant from the
    centre of the first to that of the last pixel along each axis, and a single node holds
    everywhere. At every pixel the weights sum to 1.
    """
    check_shape("height, width, rows, columns", (height, width, rows, columns))
    vertical, horizontal = _hats(height, rows), _hats(width, columns)
    weights = vertical[:, None, :, None] * horizontal[None, :, None, :]
    return weights.reshape(rows * columns, height, width)


def _hats(pixels: int, nodes: int) -> Tensor:
    """Linear interpolation from nodes to pixels, (nodes, pixels)."""
    position = torch.linspace(0, nodes - 1, pixels, dtype=torch.float64)
    distance = position - torch.arange(nodes, dtype=torch.float64)[:, None]
    return (1 - distance.abs()).clamp(min=0)
