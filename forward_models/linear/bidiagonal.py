"""Golub-Kahan bidiagonalisation: the largest singular value from products with A and A^T."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def largest_singular_value(
    apply: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    x: Tensor,
    iterations: int,
    tolerance: float,
) -> tuple[float, bool]:
    """The largest singular value of A on the Krylov space of A^T A and x, and whether it settled.

    A V_k = U_k B_k with orthonormal U_k, V_k and a bidiagonal B_k, whose largest singular value
    approaches that of A from below, in about the square root of the number of steps that power
    iteration takes. The vectors lose orthogonality to rounding, which repeats values already found
    but does not move the largest one, so that three vectors are kept and no more.

    Args:
        apply, adjoint: A and A^T.
        x: first vector, of any length, (1, *event).
        iterations: bound on the steps, each one product with A and one with A^T.
        tolerance: stop when a step raises the value by less than this share of it.

    Paper: Golub and Kahan, Calculating the singular values and pseudo-inverse of a matrix,
    https://doi.org/10.1137/0702016
    """
    diagonal: list[float] = []
    above: list[float] = []
    value, settled = 0.0, False
    v = x / x.norm()
    u = apply(v)
    for _ in range(iterations):
        alpha = float(u.norm())
        diagonal.append(alpha)
        previous, value = value, _largest(diagonal, above)
        settled = value - previous <= tolerance * value
        if settled or alpha == 0.0:
            return value, True
        u = u / alpha
        w = adjoint(u) - alpha * v
        beta = float(w.norm())
        # The Krylov space is exhausted: the value is exact.
        if beta <= torch.finfo(x.dtype).eps * value:
            return value, True
        above.append(beta)
        v = w / beta
        u = apply(v) - beta * u
    return value, settled


def _largest(diagonal: list[float], above: list[float]) -> float:
    """The largest singular value of the bidiagonal B, from the tridiagonal B^T B."""
    from scipy.linalg import eigvalsh_tridiagonal

    d, e = np.array(diagonal), np.array(above)
    squares = d**2
    squares[1:] += e**2
    last = len(d) - 1
    (top,) = eigvalsh_tridiagonal(squares, d[:-1] * e, select="i", select_range=(last, last))
    return math.sqrt(max(top, 0.0))
