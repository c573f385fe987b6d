"""(S + A C A^T) v = r with a C known by its products: assembled, or by Krylov iterations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .linear_system import LinearSystem
from .spectrum import quadrature, random_signs

Product = Callable[[Tensor], Tensor]
"""v -> C v, (B, *event)."""
Products = Callable[[Tensor], Tensor]
"""The same for P batches at once, (P, B, *event)."""


@final
@dataclass(frozen=True)
class Solution:
    """What a solve of (S + A C A^T) v = r found.

    Attributes:
        v: (B, M).
        quadratic: r^T (S + A C A^T)^-1 r, (B,).
        pulled: C A^T v, (B, *event), where it came with the solve; else None.
        log_det: log det(S + A C A^T), (B,); None where it was not asked for.
        left: the relative residual of each sample, (B,); None for closed forms.
    """

    v: Tensor
    quadratic: Tensor
    pulled: Tensor | None = None
    log_det: Tensor | None = None
    left: Tensor | None = None

    def log_density(self) -> Tensor:
        """log N(r; 0, S + A C A^T), (B,)."""
        assert self.log_det is not None
        return -(self.quadratic + self.log_det + self.v.shape[1] * math.log(2 * math.pi)) / 2


def assembled(system: LinearSystem, products: Products, r: Tensor) -> Solution:
    """By the dense matrix: M products, a Cholesky decomposition, and no second solve.

    A network's Jacobian is neither quite symmetric nor quite positive: G is symmetrised and its
    eigenvalues are not let below 0, so that no measurement counts as finer than its noise.
    """
    B, M = r.shape
    root = system.noise.sqrt()
    eye = torch.eye(M, dtype=r.dtype, device=r.device)
    # Row m of the identity for each sample: (M, B, ...) all the way.
    units = (eye / root)[:, None].expand(M, B, M)
    spread = products(system.adjoint(units.flatten(0, 1)).unflatten(0, (M, B)))
    G = system.apply(spread.flatten(0, 1)).unflatten(0, (M, B)).movedim(0, 2) / root[:, None]
    G = (G + G.mT) / 2
    L = torch.linalg.cholesky(eye + G + _floor(G.detach(), eye))
    w = torch.cholesky_solve((r / root)[..., None], L)[..., 0]
    pulled = torch.einsum("mb...,bm->b...", spread, w)
    log_det = system.log_det_noise() + 2 * L.diagonal(dim1=1, dim2=2).log().sum(1)
    return Solution(w / root, (r / root * w).sum(1), pulled, log_det)


def _floor(G: Tensor, eye: Tensor) -> Tensor:
    """What lifts the eigenvalues of G (B, M, M) that are negative to 0.

    They are sought only where there are some below -1e-6, in units of the noise: a Cholesky
    decomposition tells, at a tenth of the cost or less.
    """
    floor = torch.zeros_like(G)
    rows = torch.linalg.cholesky_ex(G + 1e-6 * eye).info.nonzero()[:, 0]
    if len(rows):
        values, vectors = torch.linalg.eigh(G[rows])
        floor[rows] = (vectors * (-values).clamp(min=0)[:, None]) @ vectors.mT
    return floor


def log_det(
    system: LinearSystem, product: Product, like: Tensor, probes: int, steps: int
) -> Tensor:
    """log det(S + A C A^T), (B,), by stochastic Lanczos quadrature: probes * steps products.

    `like` is any (B, M).
    """
    B, M = like.shape
    root = system.noise.sqrt()

    def G(u: Tensor) -> Tensor:
        return system.apply(product(system.adjoint(u / root))) / root

    total = torch.zeros_like(like[:, 0])
    for z in random_signs(probes, like, M):
        nodes, weights = quadrature(G, z.expand(B, M), min(steps, M))
        total = total + (weights * torch.log1p(nodes)).sum(1)
    return system.log_det_noise() + total / probes


def krylov(
    system: LinearSystem,
    product: Product,
    r: Tensor,
    iterations: int,
    tolerance: float,
    symmetric: bool,
) -> Solution:
    """By generalised conjugate residuals: one product with C an iteration, and none besides.

    A network's Jacobian is neither quite symmetric nor quite positive, so each iteration takes the
    step of least residual over all directions so far, which never makes the residual larger; for
    a `symmetric` C the last direction is enough. As v is a combination of directions p, and
    C A^T p is computed anyway, C A^T v is gathered on the way. With e = r - K v what is left,

        r^T K^-1 r ~ r^T v + v^T e,

    which is second order in the error of v, and never above the truth for a symmetric C.

    Paper: Eisenstat, Elman and Schultz, "Variational Iterative Methods for Nonsymmetric Systems of
    Linear Equations", 1983, https://doi.org/10.1137/0720023
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1, keepdim=True)

    def on_image(a: Tensor) -> Tensor:
        return a.reshape(-1, *[1] * (pulled.ndim - 1))

    tiny = torch.finfo(r.dtype).tiny
    e, v = r, torch.zeros_like(r)
    pulled = torch.zeros_like(system.adjoint(r))
    target = tolerance**2 * dot(r, r)
    past: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        going = dot(e, e) > target
        if not bool(going.any()):
            break
        p, spread = e, product(system.adjoint(e))
        q = system.noise * p + system.apply(spread)
        for p_past, spread_past, q_past, qq_past in past:
            overlap = dot(q, q_past) / qq_past
            p, q = p - overlap * p_past, q - overlap * q_past
            spread = spread - on_image(overlap) * spread_past
        qq = dot(q, q).clamp(min=tiny)
        step = torch.where(going, dot(e, q) / qq, 0)
        v, e, pulled = v + step * p, e - step * q, pulled + on_image(step) * spread
        past = [*past, (p, spread, q, qq)][-(1 if symmetric else iterations) :]
    left = (dot(e, e) / dot(r, r).clamp(min=tiny)).sqrt()[:, 0]
    return Solution(v, (dot(r, v) + dot(v, e))[:, 0], pulled, left=left)
