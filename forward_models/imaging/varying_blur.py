"""Blur that changes over the image: a few kernels, each with a map of where it holds."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Shape, check_dtype, check_finite, check_shape, check_tensor
from ..linear import LinearOperator
from .blur import Blur
from .borders import Padding


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
        self.padding: Padding = padding
        self._kernels = Constant(kernels.to(torch.float64))
        self._weights = Constant(weights.to(torch.float64))
        self._blurs = [Blur(kernel, padding) for kernel in self.kernels]
        self._size = tuple(weights.shape[-2:])
        self._blurred_size = self._blurs[0].output_shape((1, *self._size))[1:]

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
    def _exchange(name: str, shape: Shape, found: Shape, other: Shape) -> Shape:
        if tuple(shape[-2:]) != found:
            raise ValueError(f"{name} is {shape}, expected height and width {found} of the weights")
        return (*shape[:-2], *other)

    def _apply(self, x: Tensor) -> Tensor:
        first, *others = zip(self._blurs, self._weights.like(x), strict=True)
        y = first[0]._apply(first[1] * x)
        for blur, weight in others:
            y = y + blur._apply(weight * x)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        first, *others = zip(self._blurs, self._weights.like(y), strict=True)
        x = first[1] * first[0]._adjoint(y)
        for blur, weight in others:
            x = x + weight * blur._adjoint(y)
        return x


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
