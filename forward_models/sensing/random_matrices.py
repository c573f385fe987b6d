"""Dense random matrices: the classical measurements of compressed sensing."""

from __future__ import annotations

import math

import torch

from ..checks import Shape, check_shape
from ..linear import MatrixOperator


def gaussian_sensing(
    measurements: int, event_shape: Shape, generator: torch.Generator | None = None
) -> MatrixOperator:
    """y = A x with independent entries N(0, 1/M) in A, (M, D), so that E |A x|^2 = |x|^2.

    Dense: memory and cost M D; for images above some 64 x 64 pixels rather take `Subsampled` of a
    `RandomConvolution`. Closed-form `svd` and `solve`, O(M D min(M, D)) on first use.

    Args:
        measurements: M.
        event_shape: shape of one image, D entries.
        generator: of the entries.

    Paper: Candes and Tao, Near-optimal signal recovery from random projections,
    https://doi.org/10.1109/TIT.2006.885507
    """
    rows, columns, shape = _sizes(measurements, event_shape)
    device = "cpu" if generator is None else generator.device
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64, device=device)
    return MatrixOperator(matrix / math.sqrt(rows), shape)


def bernoulli_sensing(
    measurements: int, event_shape: Shape, generator: torch.Generator | None = None
) -> MatrixOperator:
    """y = A x with independent entries +-1/sqrt(M), of equal odds, in A, (M, D).

    E |A x|^2 = |x|^2. Memory, cost and arguments as for `gaussian_sensing`.

    Paper: Baraniuk, Davenport, DeVore and Wakin, A simple proof of the restricted isometry property
    for random matrices, https://doi.org/10.1007/s00365-007-9003-x
    """
    rows, columns, shape = _sizes(measurements, event_shape)
    device = "cpu" if generator is None else generator.device
    bits = torch.randint(2, (rows, columns), generator=generator, device=device)
    return MatrixOperator((2.0 * bits.double() - 1) / math.sqrt(rows), shape)


def _sizes(measurements: int, event_shape: Shape) -> tuple[int, int, Shape]:
    (rows,) = check_shape("measurements", (measurements,))
    shape = check_shape("event_shape", event_shape)
    return rows, math.prod(shape), shape
