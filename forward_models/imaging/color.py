"""Colour: channels mixed by a matrix, or seen through a colour filter array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Literal, final, get_args

import torch
from torch import Tensor

from ..checks import (
    Constant,
    Shape,
    check_dtype,
    check_finite,
    check_image_shape,
    check_positive,
    check_shape,
    check_tensor,
)
from ..linear import SVD, LinearOperator
from ..linear.linear_operator import is_uniform
from ..linear.svd import OrthogonalRowsSVD, divide, without_rounding

REC_601 = (0.299, 0.587, 0.114)
Pattern = Literal["RGGB", "BGGR", "GRBG", "GBRG"]


@final
class ChannelMixing(LinearOperator):
    """y = M x at every pixel: each of C' measured channels is a weighted sum of C channels.

    With the decomposition of M everything is closed: `solve` with C = c I and one noise level
    (any noise if the rows of M are orthogonal), and `svd` once `image_shape` is set.
    Makers: `greyscale`, `select_channels`, `gaussian_responses` for spectral cameras.
    Cost: C' C products per pixel.

    Args:
        matrix: M, (C', C), real; kept as a copy in double precision.
        image_shape: (C, H, W); default any height and width.

    Raises:
        TypeError: M is no floating-point tensor.
        ValueError: M is no finite matrix, or does not fit `image_shape`.
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(self, matrix: Tensor, image_shape: Shape | None = None) -> None:
        check_tensor("matrix", matrix)
        check_dtype("matrix", matrix, "real")
        if matrix.ndim != 2 or matrix.numel() == 0:
            raise ValueError(f"matrix has shape {tuple(matrix.shape)}, expected (C', C)")
        check_finite("matrix", matrix)
        self._matrix = Constant(matrix.to(torch.float64))
        u, s, vt = torch.linalg.svd(self.matrix)
        s = without_rounding(s, max(matrix.shape))
        self._u, self._s, self._vt = Constant(u), s, Constant(vt)
        values = s.new_zeros(len(u))
        values[: len(s)] = s
        self._gram_values = Constant(values.square())
        gram = self.matrix @ self.matrix.mT
        orthogonal = torch.equal(gram, gram.diag().diag())
        lengths = without_rounding(gram.diag().sqrt(), max(matrix.shape))
        self._gram = Constant(lengths.square()[:, None, None]) if orthogonal else None
        if image_shape is not None:
            shape = check_image_shape(image_shape)
            self.measurement_shape = self.output_shape(shape)
            self.event_shape = shape

    @property
    def matrix(self) -> Tensor:
        """M in float64, (C', C)."""
        return self._matrix.value

    def output_shape(self, event_shape: Shape) -> Shape:
        return self._exchange("the image", event_shape, *self.matrix.shape[::-1])

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self._exchange("y", measurement_shape, *self.matrix.shape)

    @staticmethod
    def _exchange(name: str, shape: Shape, found: int, other: int) -> Shape:
        if shape[0] != found:
            raise ValueError(f"{name} is {shape}, expected {found} channels for this matrix")
        return (other, *shape[1:])

    def _apply(self, x: Tensor) -> Tensor:
        return _mix(self._matrix.like(x), x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _mix(self._matrix.like(y).mT, y)

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        return None if self._gram is None else self._gram.like(y)

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor | None:
        if self._gram is not None or not is_uniform(s, r):
            return super()._solve_isotropic(r, c, s)
        u = self._u.like(r)
        gram = self._gram_values.like(r)[:, None, None]
        return _mix(u, divide(_mix(u.mT, r), c * gram + s))

    @property
    def svd(self) -> SVD | None:
        """Known once `image_shape` is set."""
        if self.event_shape is None:
            return None
        rank = len(self._s)
        u, vt = self._u.value[:, :rank], self._vt.value[:rank]
        return _MixingSVD(u, self._s, vt, self.event_shape[1:])


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.flatten(2)).reshape(x.shape[0], len(matrix), *x.shape[2:])


@final
class _MixingSVD(SVD):
    """The thin decomposition of M at every pixel."""

    def __init__(self, u: Tensor, s: Tensor, vt: Tensor, pixels: Shape) -> None:
        self._u, self._vt = Constant(u), Constant(vt)
        self._shape = (len(s), *pixels)
        self.singular_values = s[:, None].expand(-1, math.prod(pixels)).flatten()

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return _mix(self._vt.like(x), x).flatten(1)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        return _mix(self._vt.like(z).mT, z.reshape(-1, *self._shape))

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return _mix(self._u.like(y).mT, y).flatten(1)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return _mix(self._u.like(z), z.reshape(-1, *self._shape))


def greyscale(
    weights: Sequence[float] = REC_601, image_shape: Shape | None = None
) -> ChannelMixing:
    """y = sum_c w_c x_c, (C, H, W) to (1, H, W); the default is the luma of Rec. 601."""
    matrix = torch.tensor([list(weights)], dtype=torch.float64)
    return ChannelMixing(matrix, image_shape)


def select_channels(
    indices: Sequence[int], channels: int, image_shape: Shape | None = None
) -> ChannelMixing:
    """y = x[indices], some of the channels in the given order.

    Args:
        indices: of the channels to keep, integers in [0, channels); one may come twice.
        channels: C, of the image.
        image_shape: (C, H, W); default any height and width.

    Raises:
        TypeError: an index that is no integer.
        ValueError: no index, or one outside [0, channels); a number of channels below 1.
    """
    (channels,) = check_shape("channels", (channels,))
    chosen = list(indices)
    if any(isinstance(i, bool) or not isinstance(i, Integral) for i in chosen):
        raise TypeError(f"indices must be integers, got {chosen}")
    if not chosen or not all(0 <= i < channels for i in chosen):
        raise ValueError(f"indices must be one or more in [0, {channels}), got {chosen}")
    rows = torch.tensor([int(i) for i in chosen])
    return ChannelMixing(torch.eye(channels, dtype=torch.float64)[rows], image_shape)


def gaussian_responses(
    wavelengths: Sequence[float], centres: Sequence[float], width: float
) -> Tensor:
    """Spectral responses of a camera's bands, (C', C) in float64; every row sums to 1.

    M_bc ~ exp(-(wavelength_c - centre_b)^2 / (2 width^2)), for a spectral image with C channels.

    Args:
        wavelengths: of the C channels of the image, in nm.
        centres: of the C' bands, in nm.
        width: standard deviation of each band, in nm, > 0.

    Raises:
        TypeError: width is no number.
        ValueError: a width that is not positive, or a band that sees none of the wavelengths.
    """
    check_positive("width", width)
    channel = torch.tensor(list(wavelengths), dtype=torch.float64)
    band = torch.tensor(list(centres), dtype=torch.float64)[:, None]
    response = torch.exp(-0.5 * ((channel - band) / width).square())
    total = response.sum(1, keepdim=True)
    if not bool((total > 0).all()):
        raise ValueError("a band sees none of the wavelengths: move its centre, or widen the bands")
    return response / total


@final
class BayerMosaic(LinearOperator):
    """y[i, j] = the colour that the filter of pixel (i, j) lets through, (3, H, W) to (1, H, W).

    The pattern names the filters of the first 2 x 2 pixels, row by row, and repeats. A A^T = I, so
    that `solve` with C = c I is one division; `svd` is known once `image_shape` is set. Cost: three
    products per pixel.

    Args:
        pattern: "RGGB", "BGGR", "GRBG" or "GBRG"; channels 0, 1, 2 of the image are R, G, B.
        image_shape: (3, H, W); default any height and width, odd ones included.

    Raises:
        ValueError: an unknown pattern, or an image without three channels.

    Paper: Bayer, "Color imaging array", https://patents.google.com/patent/US3971065A
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(self, pattern: Pattern = "RGGB", image_shape: Shape | None = None) -> None:
        if pattern not in get_args(Pattern):
            raise ValueError(f"unknown pattern {pattern!r}; known: {', '.join(get_args(Pattern))}")
        self.pattern: Pattern = pattern
        self._filters: dict[Shape, Constant] = {}
        if image_shape is not None:
            shape = check_image_shape(image_shape)
            self.measurement_shape = self.output_shape(shape)
            self.event_shape = shape

    def output_shape(self, event_shape: Shape) -> Shape:
        if event_shape[0] != 3:
            raise ValueError(f"the image is {event_shape}, expected 3 channels: R, G, B")
        return (1, *event_shape[1:])

    def input_shape(self, measurement_shape: Shape) -> Shape:
        if measurement_shape[0] != 1:
            raise ValueError(f"y is {measurement_shape}, expected 1 channel: the mosaic")
        return (3, *measurement_shape[1:])

    def _filters_like(self, image: Tensor) -> Tensor:
        """What each colour's filters let through, 0 or 1, (3, H, W)."""
        size = tuple(image.shape[-2:])
        if size not in self._filters:
            filters = torch.zeros(3, *size, dtype=torch.float64)
            for n, colour in enumerate(self.pattern):
                filters["RGB".index(colour), n // 2 :: 2, n % 2 :: 2] = 1.0
            self._filters[size] = Constant(filters)
        return self._filters[size].like(image)

    def _apply(self, x: Tensor) -> Tensor:
        red, green, blue = self._filters_like(x).unbind()
        r, g, b = x.unbind(1)
        # In place, as memory for each sum would take longer than the sum.
        return (red * r).addcmul_(green, g).addcmul_(blue, b)[:, None]

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._filters_like(y) * y

    def _gram_diagonal(self, y: Tensor) -> Tensor:
        return torch.ones((), dtype=y.dtype, device=y.device)

    @property
    def svd(self) -> SVD | None:
        shape = self.measurement_shape
        return None if shape is None else OrthogonalRowsSVD(self, shape)
