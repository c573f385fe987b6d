"""Nodes and weights of Gauss-Legendre quadrature."""

from __future__ import annotations

import torch
from torch import Tensor


def legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes in (-1, 1) and weights of sum 2, float64: exact for polynomials of 2 count - 1."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights)
