"""The single-pixel camera: one detector, many patterns."""

from __future__ import annotations

import math
from typing import Literal, final, get_args

import torch
from torch import Tensor

from ..checks import Constant, Shape, check_image_shape, check_shape
from ..linear import SVD, LinearOperator
from .hadamard import check_power_of_two, sequency_order, walsh_hadamard

Values = Literal["binary", "signed"]
Ordering = Literal["natural", "sequency", "cake-cutting"]


def pattern_order(height: int, width: int, ordering: Ordering) -> Tensor:
    """The natural index of the Hadamard patterns in the order they are shown, (H W,) int64."""
    if ordering == "natural":
        return torch.arange(height * width)
    if ordering == "sequency":
        return sequency_order(height * width)
    # A pattern with u sign changes down and v across falls into (u + 1) (v + 1) blocks.
    down, across = (torch.arange(1, n + 1) for n in (height, width))
    blocks = (down[:, None] * across[None, :]).flatten()
    natural = sequency_order(height)[:, None] * width + sequency_order(width)[None, :]
    return natural.flatten()[blocks.argsort(stable=True)]


@final
class _SinglePixelSVD(SVD):
    """A = U diag(s) V^T from A = a L T_rows, with orthonormal rows T = H / sqrt(N).

    Signed patterns: a = sqrt(N), L = I. Binary ones, (1 + h) / 2: a = sqrt(N) / 2, and L = I but
    for the all-bright pattern e, the first, which every measurement contains once more. With the
    unit vector w along the sum of the other patterns, m = sqrt(M - 1), L e = 2 e + m w and L w = w:
    a matrix of two by two. A reflection takes w to a coordinate axis.
    """

    def __init__(self, operator: SinglePixel) -> None:
        self.operator = operator
        channels, count = operator.count_shape
        s = torch.full((count,), operator.amplitude, dtype=torch.float64)
        mixing = torch.eye(min(2, count), dtype=torch.float64)
        if operator.values == "binary":
            mixing = torch.tensor([[2.0, 0.0], [math.sqrt(count - 1), 1.0]], dtype=torch.float64)
            mixing = mixing[: min(2, count), : min(2, count)]
        u, values, vh = torch.linalg.svd(mixing)
        # The determinant gives the small value to full precision, however large M is.
        values[-1] = mixing.diagonal().prod() / values[:-1].prod()
        s[: len(values)] *= values
        self._u, self._vh = Constant(u), Constant(vh)
        self.singular_values = s.repeat(channels)
        w = torch.full((count - 1,), 1 / math.sqrt(max(count - 1, 1)), dtype=torch.float64)
        w[:1] -= 1
        length = w.norm()
        self._mirror = Constant(w / length if length > 0 else w)

    def _reflect(self, y: Tensor) -> Tensor:
        """All but the first entry, reflected: w to the second coordinate axis and back."""
        v, rest = self._mirror.like(y), y[..., 1:]
        return torch.cat([y[..., :1], rest - 2 * (rest @ v)[..., None] * v], -1)

    @staticmethod
    def _mix(y: Tensor, matrix: Tensor) -> Tensor:
        """The matrix on the first two entries."""
        return torch.cat([y[..., : len(matrix)] @ matrix.mT, y[..., len(matrix) :]], -1)

    def _per_channel(self, z: Tensor) -> Tensor:
        return z.reshape(-1, *self.operator.count_shape)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        z = self.operator._signed(x) / math.sqrt(self.operator.pixels)
        return self._mix(self._reflect(z), self._vh.like(x)).flatten(1)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        z = self._reflect(self._mix(self._per_channel(z), self._vh.like(z).mT))
        return self.operator._signed_adjoint(z) / math.sqrt(self.operator.pixels)

    def to_spectral_y(self, y: Tensor) -> Tensor:
        return self._mix(self._reflect(y), self._u.like(y).mT).flatten(1)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self._reflect(self._mix(self._per_channel(z), self._u.like(z)))


@final
class SinglePixel(LinearOperator):
    """y_m = sum over the pixels of p_m x: the light that pattern p_m sends to the one detector.

    The patterns are rows h of the Hadamard matrix of the N = H W pixels. "binary": p = (1 + h) / 2,
    mirrors on or off, as one exposure records them. "signed": p = h, entries +-1, the difference of
    two exposures with complementary patterns. Values of y are in (unit of x) times pixels. The
    first pattern is bright everywhere, so that y_0 is the sum of the image. Pattern m is A.adjoint
    of the m-th unit vector; `order[m]` is its natural index.

    `svd` and `solve` with C = c I and one noise level are closed forms; A A^T = N I for signed
    patterns. Cost: one fast Walsh-Hadamard transform, O(N log N), forward and adjoint.

    Args:
        image_shape: (C, H, W), H and W powers of 2; each channel is measured by itself.
        patterns: M, how many are shown, the first ones of the order; default all N.
        values: "binary" or "signed".
        ordering: "natural": that of the Sylvester matrix; "sequency": by the sign changes of the
            pattern read row by row; "cake-cutting": by the number of blocks that the pattern falls
            into, coarse ones first, which keeps most of a picture in the first tenth.

    Raises:
        ValueError: a size that is no power of 2, an impossible number, or an unknown name.

    Papers: Duarte et al., Single-pixel imaging via compressive sampling,
    https://doi.org/10.1109/MSP.2007.914730; Yu, Super sub-Nyquist single-pixel imaging by means of
    cake-cutting Hadamard basis sort, https://doi.org/10.3390/s19194122
    """

    event_ndim, measurement_ndim = 3, 2

    def __init__(
        self,
        image_shape: Shape,
        patterns: int | None = None,
        *,
        values: Values = "binary",
        ordering: Ordering = "cake-cutting",
    ) -> None:
        channels, height, width = shape = check_image_shape(image_shape)
        check_power_of_two(shape)
        for name, given, known in (("values", values, Values), ("ordering", ordering, Ordering)):
            if given not in get_args(known):
                raise ValueError(f"unknown {name} {given!r}; known: {', '.join(get_args(known))}")
        self.pixels = height * width
        (count,) = (self.pixels,) if patterns is None else check_shape("patterns", (patterns,))
        if count > self.pixels:
            raise ValueError(
                f"patterns must be at most the number of pixels, {self.pixels}, got {count}"
            )
        self.values, self.ordering = values, ordering
        self.event_shape = shape
        self.count_shape = self.measurement_shape = (channels, count)
        self.amplitude = math.sqrt(self.pixels) / (2 if values == "binary" else 1)
        self._svd: SVD | None = None
        self._order = Constant(pattern_order(height, width, ordering)[:count])

    @property
    def order(self) -> Tensor:
        """The natural index of each pattern shown, (M,) int64."""
        return self._order.value

    def _signed(self, x: Tensor) -> Tensor:
        return walsh_hadamard(x.flatten(-2)).index_select(-1, self._order.like(x))

    def _signed_adjoint(self, y: Tensor) -> Tensor:
        zero = y.new_zeros(*y.shape[:2], self.pixels)
        full = walsh_hadamard(zero.index_copy(-1, self._order.like(y), y))
        assert self.event_shape is not None
        return full.reshape(-1, *self.event_shape)

    def _apply(self, x: Tensor) -> Tensor:
        y = self._signed(x)
        # y_0 is the sum of the image.
        return y if self.values == "signed" else (y + y[..., :1]) / 2

    def _adjoint(self, y: Tensor) -> Tensor:
        if self.values == "signed":
            return self._signed_adjoint(y)
        return (self._signed_adjoint(y) + y.sum(-1)[..., None, None]) / 2

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        if self.values == "binary":
            return None
        return torch.full((), float(self.pixels), dtype=y.dtype, device=y.device)

    @property
    def svd(self) -> SVD:
        if self._svd is None:
            self._svd = _SinglePixelSVD(self)
        return self._svd
