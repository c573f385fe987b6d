"""The discrepancy principle: what of a noisy measurement is believed where A has no SVD.

    x_k = argmin |S^(-1/2) (y - A x)|  over span{b, K b, ... K^(k-1) b},
          b = A^T S^-1 y,  K = A^T S^-1 A,

from x = 0 by conjugate gradients, until the misfit |S^(-1/2) (y - A x_k)| / sqrt M is at most 1.
Large singular values come first, and their noise is multiplied by little; what is left of y then
is no larger than its noise, and the directions that could explain it multiply theirs by 1 / s.

A step along p multiplies the noise by |p| / |S^(-1/2) A p|. Where that never changes by more than
1 / MILD up to the very end, as of masks, k-space or colours, there is nothing to stop for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forward_models.linear.solvers import inner, per_sample

from ..likelihoods import Measured

MILD = 0.3


def believed(measured: Measured) -> Measured:
    """The measurement with A x_y in place of y; itself where A has an SVD in closed form.

    A x_y is a function of y, A and S alone, of each measurement of a batch on its own.
    """
    operator = measured.model.operator
    if operator.svd is not None:
        return measured
    return Measured(measured.model, operator.apply(stopped_fit(measured)))


@torch.no_grad()
def stopped_fit(measured: Measured) -> Tensor:
    """x_y, (1 or B, *event): the first of x_0 = 0, x_1, ... whose misfit is at most 1.

    It is A^+ y, to rounding, without noise and where no step multiplies the noise by more than
    1 / MILD times another. Where no image explains y to its noise it is the least-squares fit,
    noise and all, or as much of it as the iterations reach: at most twice as many as an image has
    values, and 1000; one product with A and one with A^T each.

    Papers: Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952,
    https://doi.org/10.6028/jres.049.044, section 10; that the stop regularises: Hanke, "Conjugate
    Gradient Type Methods for Ill-Posed Problems", 1995
    """
    y = measured.pack(measured.y)
    system = measured.system(y)
    unit = system.noise.mean().sqrt()  # squares of y / sigma overflow where there is no noise
    root = system.noise.sqrt() / unit
    r = y / root
    p = s = system.adjoint(r / root)
    x = stopped = torch.zeros_like(s)
    slope = inner(s, s)
    eps = torch.finfo(y.dtype).eps
    solved, rounding = eps**1.5 * slope, eps**2 * slope
    mild, strongest = torch.ones_like(slope, dtype=torch.bool), torch.zeros_like(slope)
    for _ in range(min(max(2 * x[0].numel(), 20), 1000)):
        loud = inner(r, r) > measured.size * unit**2
        active = (loud & (slope > rounding)) | (mild & (slope > solved))
        if not bool(active.any()):
            break
        q = system.apply(p) / root
        curvature = inner(q, q)
        strength = curvature / inner(p, p)
        strongest = torch.where(active, torch.maximum(strongest, strength), strongest)
        mild = mild & ~(active & (slope > solved) & (strength < MILD**2 * strongest))
        active = active & (loud | mild) & (curvature > 0)
        alpha = torch.where(active, slope / curvature, 0)
        keep = per_sample(active, x)
        x = torch.where(keep, x + per_sample(alpha, x) * p, x)
        stopped = torch.where(per_sample(loud, x), x, stopped)
        r = torch.where(active[:, None], r - alpha[:, None] * q, r)
        s = system.adjoint(r / root)
        ahead = inner(s, s)
        p = torch.where(keep, s + per_sample(ahead / slope, x) * p, p)
        slope = torch.where(active, ahead, slope)
    return torch.where(per_sample(mild, x), x, stopped)
