"""BiCGSTAB for a batch of independent complex systems without symmetry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..linear.solvers import SolveInfo, per_sample

# A shadow residual this far from parallel to the residual carries no information in rounding.
_WEAK = 1e-8


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).flatten(1).sum(1)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b = 0."""
    zero = b == 0
    return torch.where(zero, 0, a / torch.where(zero, 1, b))


def bicgstab(
    apply: Callable[[Tensor], Tensor], b: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, SolveInfo]:
    """Solve M v = b for a batch of complex systems (K, *shape), each on its own.

    A system stops at its own iteration and is left untouched from there on, so that its solution
    does not depend on the others; one that breaks down starts again from where it is. Cost: two
    products with M an iteration and one more at the end, for the true residual that is returned.

    Args:
        apply: v -> M v for (K, *shape).
        tolerance: stop when |b - M v| <= tolerance |b|.
        max_iterations: bound on the iterations.

    Paper: van der Vorst, Bi-CGSTAB, 1992, https://doi.org/10.1137/0913035
    """
    size = b.flatten(1).norm(dim=1)
    limit = tolerance * size
    v = torch.zeros_like(b)
    r = shadow = b
    p = q = torch.zeros_like(b)
    rho = alpha = omega = torch.ones(len(b), dtype=b.dtype, device=b.device)
    active = size > 0
    iterations = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    for _ in range(max_iterations):
        if not bool(active.any()):
            break
        rho_next = _dot(shadow, r)
        length = r.flatten(1).norm(dim=1)
        weak = rho_next.abs() <= _WEAK * length * shadow.flatten(1).norm(dim=1)
        shadow = torch.where(per_sample(weak, b), r, shadow)
        rho_next = torch.where(weak, (length * length).to(rho), rho_next)
        beta = torch.where(weak, 0, _ratio(rho_next * alpha, rho * omega))
        p = r + per_sample(beta, b) * (p - per_sample(omega, b) * q)
        q = apply(p)
        alpha = _ratio(rho_next, _dot(shadow, q))
        s = r - per_sample(alpha, b) * q
        t = apply(s)
        omega = _ratio(_dot(t, s), _dot(t, t))
        step = per_sample(alpha, b) * p + per_sample(omega, b) * s
        keep = per_sample(active, b)
        v = torch.where(keep, v + step, v)
        r = torch.where(keep, s - per_sample(omega, b) * t, r)
        rho = rho_next
        iterations = iterations + active
        active = active & (r.flatten(1).norm(dim=1) > limit)
    true = (b - apply(v)).flatten(1).norm(dim=1)
    residual = torch.where(size > 0, true / torch.where(size > 0, size, 1), true)
    # Rounding keeps the true residual a little above the one that is updated.
    return v, SolveInfo(iterations, residual, residual <= 10 * tolerance)
