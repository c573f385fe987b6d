"""The Hadamard transform: sums and differences of all pixels."""

from __future__ import annotations

import math
from functools import cache
from typing import final

import torch
from torch import Tensor

from ..checks import Shape
from .orthonormal import Orthonormal

# H_N is a Kronecker product of H_64 and one smaller: matrices that fit in the fastest cache, few
# enough passes over the image.
_RADIX = 64


@cache
def _hadamard_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The natural (Sylvester) H_n: entry (i, j) is -1 to the number of bits that i and j share."""
    # A tensor born in inference mode could never be saved for a later backward pass.
    with torch.inference_mode(False), torch.no_grad():
        h = torch.ones(1, 1, dtype=dtype, device=device)
        while len(h) < n:
            h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h


def walsh_hadamard(x: Tensor) -> Tensor:
    """H x along the last axis of x (..., N), N a power of 2; entries +-1, natural order.

    H is symmetric and H H = N I. O(N log N).
    """
    shape, rest = x.shape, x.shape[-1]
    while rest > 1:
        size = min(_RADIX, rest)
        rest //= size
        h = _hadamard_matrix(size, x.dtype, x.device)
        x = h @ x.reshape(-1, size, rest) if rest > 1 else x.reshape(-1, size) @ h
    return x.reshape(shape)


def sequency_order(n: int) -> Tensor:
    """The natural index of the row of H_n with 0, 1, 2, ... sign changes, (n,) int64.

    The row with s changes is the bit-reversed Gray code of s.
    """
    s = torch.arange(n)
    gray = s ^ (s >> 1)
    order = torch.zeros_like(s)
    for _ in range(n.bit_length() - 1):
        order = (order << 1) | (gray & 1)
        gray = gray >> 1
    return order


def check_power_of_two(shape: Shape) -> None:
    """Raise ValueError unless height and width are powers of 2."""
    if any(n & (n - 1) for n in shape[-2:]):
        fits = tuple(1 << (n - 1).bit_length() for n in shape[-2:])
        raise ValueError(
            f"the image is {shape}: the Hadamard transform needs a height and a width that are "
            f"powers of 2; pad the image to {fits} or crop it"
        )


@final
class HadamardTransform(Orthonormal):
    """y = H x / sqrt(N) with the +-1 Hadamard matrix H of the N = H W pixels of each channel.

    Rows and columns in natural (Sylvester) order, that of scipy.linalg.hadamard, applied to the
    pixels in row-major order, which is the same as along rows and then along columns. Symmetric,
    its own inverse. O(N log N), additions only in effect.

    Args:
        image_shape: (C, H, W), H and W powers of 2.

    Raises:
        ValueError: H or W is no power of 2.
    """

    def __init__(self, image_shape: Shape) -> None:
        super().__init__(image_shape)
        check_power_of_two(self.image_shape)

    def _apply(self, x: Tensor) -> Tensor:
        scale = 1 / math.sqrt(x.shape[-2] * x.shape[-1])
        return (walsh_hadamard(x.flatten(-2)) * scale).reshape(x.shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y)
