"""Eigenvalues and log-determinants of symmetric positive matrices known by their products.

With G = sum_i theta_i u_i u_i^T,

    log det(I + c G) = sum_i log(1 + c theta_i) = tr log(I + c G).

Where G is too large to be decomposed, random vectors z with E z z^T = I give the trace, and k steps
of the Lanczos process from z give nodes theta_j and weights w_j, a Gauss quadrature,

    tr f(G) = E[z^T f(G) z] ~ mean over z of |z|^2 sum_j w_j f(theta_j).

For f = log(1 + x) the quadrature is never below z^T f(G) z, and exact once k reaches the number of
distinct eigenvalues; the mean over P vectors of random signs has the variance
2 / P sum_{i != j} f(G)_ij^2, none for a diagonal G. The vectors are fixed by a seed: all samples
share them, so that differences between samples suffer less.

Paper: Ubaru, Chen and Saad, "Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature", 2017,
https://doi.org/10.1137/16M1104974
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]

DENSE = 256
"""Up to this size a matrix without a network in it is assembled."""
PROBES, STEPS = 8, 32
"""Random vectors, and Lanczos steps from each, for larger ones."""


@final
@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues theta >= 0 of a matrix G, each counted `weights` times; (K,), float64.

    G may have further eigenvalues that are 0.
    """

    nodes: Tensor
    weights: Tensor

    @property
    def largest(self) -> float:
        return float(self.nodes.max())

    def log_det(self, c: Tensor) -> Tensor:
        """log det(I + c G), (B,), for c (B,) > -1 / theta."""
        terms = self.weights * torch.log1p(c.to(self.nodes)[:, None] * self.nodes)
        return terms.sum(1)


def random_signs(count: int, like: Tensor, size: int) -> Tensor:
    """(count, size) fixed random signs, the same in every precision and on every device."""
    generator = torch.Generator().manual_seed(0)
    signs = 2.0 * torch.randint(0, 2, (count, size), generator=generator) - 1
    return signs.to(like)


def spectrum_of(G: Product, size: int, like: Tensor) -> Spectrum:
    """The eigenvalues of G, (N, M) -> (N, M) row by row, for M = size.

    Exact if G is diagonal (two products tell: then G z = z * (G 1) for any z) or M <= 256, which
    costs M products; else by quadrature with 8 fixed vectors and 32 steps.
    """
    z = torch.randn(1, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = z.to(like)
    diagonal = G(torch.ones_like(z))
    if bool(((G(z) - z * diagonal).abs() <= 1e-12 * (z * diagonal).abs().max()).all()):
        return Spectrum(diagonal[0].clamp(min=0), torch.ones_like(diagonal[0]))
    if size <= DENSE:
        dense = torch.cat([G(rows) for rows in torch.eye(size).to(like).split(64)])
        values = torch.linalg.eigvalsh((dense + dense.mT) / 2).clamp(min=0)
        return Spectrum(values, torch.ones_like(values))
    # One vector after the other: each keeps all its directions.
    parts = [quadrature(G, z[None], STEPS) for z in random_signs(PROBES, like, size)]
    nodes, weights = (torch.cat(part).flatten() for part in zip(*parts, strict=True))
    return Spectrum(nodes, weights / PROBES)


@torch.no_grad()
def quadrature(G: Product, z: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Nodes theta and weights |z|^2 w, (N, steps), from each row of z (N, M).

    `steps` products of N rows. A network's Jacobian is not quite symmetric nor positive: the
    projection V^T G V is symmetrised, and its eigenvalues are not let below 0.
    """
    norm = z.norm(dim=1)
    basis = [z / norm[:, None]]
    T = z.new_zeros(len(z), steps, steps)
    for j in range(steps):
        w = G(basis[j])
        T[:, : j + 1, j] = torch.stack([(v * w).sum(1) for v in basis], 1)
        size = w.norm(dim=1)
        for _ in range(2):  # once more for what rounding left
            for v in basis:
                w = w - (v * w).sum(1, keepdim=True) * v
        length = w.norm(dim=1)
        # A row whose directions are exhausted goes on with zeros, which have no weight.
        alive = length > 1e3 * torch.finfo(w.dtype).eps * size
        scale = torch.where(alive, 1 / length.clamp(min=torch.finfo(w.dtype).tiny), 0)
        basis.append(w * scale[:, None])
        if j + 1 < steps:
            T[:, j + 1, j] = torch.where(alive, length, 0)
    nodes, vectors = torch.linalg.eigh((T + T.mT) / 2)
    return nodes.clamp(min=0), norm[:, None] ** 2 * vectors[:, 0].square()
