"""Some rows of a transform: the measurement of compressed sensing."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, check_tensor
from ..linear import SVD, LinearOperator
from ..linear.svd import OrthogonalRowsSVD
from .fourier import FourierTransform, hartley


@final
class _RealFourierSVD(SVD):
    """Frequencies m(k) of a real image: A^T A is the filter (m(k) + m(-k)) / 2.

    The Hartley vectors are its eigenvectors. A frequency seen together with its mirror image has
    s = 1, one seen alone s = sqrt(1/2), and each of them shows two real numbers.
    """

    def __init__(self, operator: Subsampled, mask: Tensor) -> None:
        self.operator = operator
        mirrored = mask.flip(0, 1).roll((1, 1), (0, 1))
        power = ((mask.double() + mirrored.double()) / 2).flatten()
        seen = power.nonzero().flatten()
        self._seen, self._s = Constant(seen), Constant(power[seen].sqrt())
        channels = operator.measured_shape[0]
        self.singular_values = self._s.value.repeat(channels)

    def to_spectral_x(self, x: Tensor) -> Tensor:
        return hartley(x).flatten(-2).index_select(-1, self._seen.like(x)).flatten(1)

    def from_spectral_x(self, z: Tensor) -> Tensor:
        shape = self.operator.image_shape
        zero = z.new_zeros(len(z), shape[0], shape[1] * shape[2])
        z = z.reshape(len(z), shape[0], -1)
        return hartley(zero.index_copy(-1, self._seen.like(z), z).reshape(-1, *shape))

    def to_spectral_y(self, y: Tensor) -> Tensor:
        z = self.to_spectral_x(self.operator._adjoint(y))
        return z / self.singular_values.to(z)

    def from_spectral_y(self, z: Tensor) -> Tensor:
        return self.operator._apply(self.from_spectral_x(z / self.singular_values.to(z)))


@final
class Subsampled(LinearOperator):
    """y = some rows of T x, y (B, C, M): the coefficients of a transform that are measured.

    For an orthonormal T, A A^T = I: `solve` with C = c I is one division, the pseudo-inverse is the
    adjoint and `svd` is known. The same for a composition of orthonormal ones. For the Fourier
    transform of real images `svd` is known too: s = 1 for a frequency seen with its mirror image,
    sqrt(1/2) for one seen alone. Cost: one T, forward and adjoint.

    Args:
        transform: T, from images (C, H, W) to coefficients (C, H', W').
        rows: which coefficients, the same for every channel: a bool mask (H', W'), read row by row,
            or M different indices into the H' W' coefficients in row-major order, int64.

    Raises:
        TypeError: the transform is no LinearOperator, or the rows are no bool or int64 tensor.
        ValueError: a mask of another shape, no row, a row twice, or an index out of range.

    Paper: Candes and Romberg, Sparsity and incoherence in compressive sampling,
    https://doi.org/10.1088/0266-5611/23/3/008
    """

    measurement_ndim = 2

    def __init__(self, transform: LinearOperator, rows: Tensor) -> None:
        if not isinstance(transform, LinearOperator):
            raise TypeError(
                f"transform must be a LinearOperator, got {type(transform).__name__}; "
                "from_function(f, image_shape) makes one of a linear function"
            )
        shape, coefficients = transform.event_shape, transform.measurement_shape
        if shape is None or coefficients is None or len(shape) != 3 or len(coefficients) != 3:
            raise ValueError(
                f"the transform takes images {shape} to {coefficients}, expected fixed shapes "
                "(C, H, W) of both; pass image_shape= to it"
            )
        self.transform = transform
        self.image_shape = self.event_shape = shape
        self.event_ndim = 3
        self.event_field = transform.event_field
        self.measurement_field = transform.measurement_field
        self._coefficients = coefficients
        self._index = Constant(_row_index(rows, coefficients[1], coefficients[2]))
        self.measured_shape = (coefficients[0], len(self._index.value))
        self.measurement_shape = self.measured_shape
        self._svd: SVD | None = None

    @property
    def rows(self) -> Tensor:
        """The indices of the rows in the order of y, (M,) int64."""
        return self._index.value

    def _apply(self, x: Tensor) -> Tensor:
        return self.transform._apply(x).flatten(-2).index_select(-1, self._index.like(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        channels, height, width = self._coefficients
        zero = y.new_zeros(len(y), channels, height * width)
        full = zero.index_copy(-1, self._index.like(y), y)
        return self.transform._adjoint(full.reshape(-1, channels, height, width))

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        like = y.new_empty(()).expand(len(y), *self._coefficients)
        gram = self.transform._gram_diagonal(like)
        return None if gram is None or gram.numel() != 1 else gram.reshape(())

    @property
    def svd(self) -> SVD | None:
        if self._svd is None:
            gram = self._gram_diagonal(torch.empty(1, *self.measured_shape, dtype=torch.float64))
            if gram is not None and float(gram) > 0:
                self._svd = OrthogonalRowsSVD(self, self.measured_shape, math.sqrt(gram))
            elif isinstance(self.transform, FourierTransform):
                _, height, width = self.image_shape
                mask = torch.zeros(height * width, dtype=torch.bool)
                mask[self.rows.cpu()] = True
                self._svd = _RealFourierSVD(self, mask.reshape(height, width))
        return self._svd


def _row_index(rows: Tensor, height: int, width: int) -> Tensor:
    check_tensor("rows", rows)
    if rows.dtype == torch.bool:
        if rows.shape != (height, width):
            raise ValueError(
                f"the mask of rows has shape {tuple(rows.shape)}, expected that of the "
                f"coefficients of one channel, {(height, width)}"
            )
        index = rows.flatten().nonzero().flatten()
    elif rows.dtype == torch.int64:
        if rows.ndim != 1:
            raise ValueError(f"row indices have shape {tuple(rows.shape)}, expected (M,)")
        index = rows
    else:
        raise TypeError(f"rows has dtype {rows.dtype}, expected a bool mask or int64 indices")
    if index.numel() == 0:
        raise ValueError("no row is chosen: nothing is measured")
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= height * width:
        raise ValueError(f"row indices are in [{low}, {high}], expected [0, {height * width - 1}]")
    if len(index.unique()) < len(index):
        raise ValueError("a row is chosen twice; measure it once, with a smaller noise variance")
    return index
