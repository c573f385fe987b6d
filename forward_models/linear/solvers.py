"""Conjugate gradients for a batch of independent symmetric positive definite systems."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_same


class SolveInfo(NamedTuple):
    """How each sample of a batched solve ended.

    iterations: (B,) int64, the products with the matrix that the sample used.
    residual: (B,) norm of the recursively updated residual over the norm of the right-hand side.
    converged: (B,) bool, whether that is within the tolerance.
    """

    iterations: Tensor
    residual: Tensor
    converged: Tensor


def per_sample(value: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, ..., 1) so that it multiplies `like` sample by sample."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Re <a, b> of each sample over all axes but the first, shape (B,)."""
    product = a.conj() * b if a.is_complex() else a * b
    return product.reshape(len(product), -1).sum(1).real


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    start: Tensor | None = None,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, SolveInfo]:
    """Solve K v = b for a batch of systems, each sample on its own.

    Every sample stops at its own iteration and is left untouched from there on, so its solution
    does not depend on its batch mates. Inner products run over all axes but the batch axis. A
    direction with <p, K p> <= 0 (K is not positive definite, as a learned covariance may be) ends
    that sample at its last iterate, reported as not converged.

    Exact in exact arithmetic after as many iterations as M^-1 K has distinct eigenvalues. Cost: one
    product with K and one with M^-1 per iteration, plus one with K for `start`.

    Args:
        apply: v -> K v, (B, *shape) to (B, *shape), K symmetric (Hermitian) positive definite.
        b: right-hand sides, (B, *shape).
        tolerance: stop when |b - K v| <= tolerance * |b|; default 1e-5 in single precision and
            1e-10 in double precision.
        max_iterations: bound on the iterations; default twice the size of one sample (rounding
            delays convergence), at least 20 and at most 1000.
        start: first iterate, (B, *shape); default zero.
        preconditioner: r -> M^-1 r, (B, *shape) to (B, *shape), symmetric positive definite in each
            sample and cheap, with M near K: a function or a LinearOperator; default M = I. The
            stopping rule is the same with and without it.

    Raises:
        ValueError: a negative tolerance, a negative bound, a start of another shape, or a
            preconditioner that changes shape or dtype.

    Paper: Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems,
    https://doi.org/10.6028/jres.049.044
    """
    if tolerance is None:
        tolerance = 1e-10 if b.dtype in (torch.float64, torch.complex128) else 1e-5
    if max_iterations is None:
        max_iterations = min(max(2 * b[0].numel(), 20), 1000)
    if tolerance < 0 or max_iterations < 0:
        raise ValueError(
            "tolerance and max_iterations must not be negative, "
            f"got {tolerance} and {max_iterations}"
        )
    if start is not None and start.shape != b.shape:
        raise ValueError(f"start has shape {tuple(start.shape)}, expected {tuple(b.shape)}")

    def precondition(r: Tensor) -> Tensor:
        if preconditioner is None:
            return r
        z = preconditioner(r)
        check_same("the preconditioned residual", z, "b", b)
        return z

    v = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - apply(start)
    p = z = precondition(r)
    rr, rz = inner(r, r), inner(r, z)
    threshold = tolerance**2 * inner(b, b)
    active = rr > threshold
    iterations = torch.zeros(b.shape[0], dtype=torch.int64, device=b.device)
    one = torch.ones_like(rr)
    for _ in range(max_iterations):
        active = active & (rz > 0)
        if not bool(active.any()):
            break
        kp = apply(p)
        curvature = inner(p, kp)
        active = active & (curvature > 0)
        alpha = torch.where(active, rz / torch.where(active, curvature, one), 0 * one)
        keep = per_sample(active, b)
        # torch.where, not a product with alpha = 0: a frozen sample must survive a NaN in K p.
        v = torch.where(keep, v + per_sample(alpha, b) * p, v)
        r = torch.where(keep, r - per_sample(alpha, b) * kp, r)
        z = precondition(r)
        rr = torch.where(active, inner(r, r), rr)
        rz_next = torch.where(active, inner(r, z), rz)
        iterations = iterations + active
        beta = rz_next / torch.where(active, rz, one)
        p = torch.where(keep, z + per_sample(beta, b) * p, p)
        rz = rz_next
        active = active & (rr > threshold)
    scale = inner(b, b)
    residual = torch.where(scale > 0, rr / torch.where(scale > 0, scale, one), rr).sqrt()
    return v, SolveInfo(iterations, residual, rr <= threshold)
