"""The exact posterior of a Gaussian under a linear-Gaussian model, in the cheapest closed form.

- A mask over a diagonal C: value by value.
- A mask over C = F F^T + diag(d): x0 = m + F h + z with h ~ N(0, I), z ~ N(0, diag(d)). Given h
  the values of z are independent, so that with the gain g = d / (d + S) where measured, else 0,

      C' = diag((1 - g) d) + (1 - g) F H F^T (1 - g),   H = (I + F^T (diag(d) + S)^-1 F)^-1,

  F, d and S in H over the measured values: of the same form again.
- Few measurements (M, D) of C = Q diag(c) Q^T + v (I - Q Q^T): nothing but the span U of Q and
  A^T is touched, so that the update is one of R + M values and C' of the same form again.
- Else: matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .covariance import Covariance, Dense, Diagonal, eigendecomposition, shrinkage
from .linear_gaussian import (
    SINGULAR,
    LinearMeasurement,
    kalman,
    mask_of,
    read_mask,
    read_model,
)
from .structured import FactorAnalysis, LowRank


class Update(NamedTuple):
    """x0 given y: its mean (D,), its covariance, and log p(y)."""

    mean: Tensor
    C: Covariance
    log_evidence: Tensor


def condition(
    means: Tensor, covariances: Sequence[Covariance], event_shape: tuple[int, ...], model: Any,
    y: Tensor,
) -> list[Update]:  # fmt: skip
    """N(m_k, C_k) given y, for each of the means (K, D); the model is read once.

    Raises as `Gaussian.condition` says.
    """
    like = means[0].reshape(event_shape)
    pairs = list(zip(means, covariances, strict=True))
    if all(_serves_masks(C) for C in covariances) and (mask := mask_of(model, like)) is not None:
        y_full, S_full = (part.flatten() for part in read_mask(model, y, mask))
        kept = mask.flatten()
        if all(isinstance(C, Diagonal) for C in covariances):
            return [_diagonal(m, C, kept, y_full, S_full) for m, C in pairs]
        if bool((S_full[kept] > 0).all()):
            return [_factors(m, C, kept, y_full, S_full) for m, C in pairs]
    linear = read_model(model, y, like)
    return [_matrices(m, C, linear) for m, C in pairs]


def _serves_masks(C: Covariance) -> bool:
    if isinstance(C, LowRank):
        return C.smallest > 0 and bool((C.variances >= C.variance).all())
    return isinstance(C, Diagonal | FactorAnalysis)


def _diagonal(m: Tensor, C: Covariance, kept: Tensor, y: Tensor, S: Tensor) -> Update:
    assert isinstance(C, Diagonal)
    c = C.eigenvalues
    total = (c + S)[kept]
    if bool((total == 0).any()):
        raise ValueError(SINGULAR)
    surprise = torch.where(kept, y - m, 0.0)
    mean = m + torch.where(kept, shrinkage(c, S), 0.0) * surprise
    left = torch.where(kept, shrinkage(S, c), 1.0) * c
    log_evidence = -((surprise[kept] ** 2 / total + (2 * math.pi * total).log()).sum()) / 2
    return Update(mean, Diagonal(left), log_evidence)


def _factors(m: Tensor, C: Covariance, kept: Tensor, y: Tensor, S: Tensor) -> Update:
    F, d = _factor_and_diagonal(C)
    N, F_kept = (d + S)[kept], F[kept]
    left = torch.where(kept, S / (d + S), 1.0)  # 1 - g
    surprise = torch.where(kept, y - m, 0.0)
    eye = torch.eye(F.shape[1], dtype=F.dtype, device=F.device)
    precision = torch.linalg.cholesky(eye + F_kept.mT @ (F_kept / N.unsqueeze(-1)))
    seen = F_kept.mT @ (surprise[kept] / N)
    h = torch.cholesky_solve(seen.unsqueeze(-1), precision).squeeze(-1)
    mean = m + F @ h + (1 - left) * (surprise - F @ h)
    # H^(1/2) = L^-T where the precision of h is L L^T.
    root = torch.linalg.solve_triangular(precision, F.mT, upper=False).mT
    distance = (surprise[kept] ** 2 / N).sum() - seen @ h
    log_det = (2 * math.pi * N).log().sum() + 2 * precision.diagonal().log().sum()
    C = FactorAnalysis(left.unsqueeze(-1) * root, left * d)
    return Update(mean, C, -(distance + log_det) / 2)


def _factor_and_diagonal(C: Covariance) -> tuple[Tensor, Tensor]:
    """F (D, R) and d (D,) of C = F F^T + diag(d)."""
    if isinstance(C, FactorAnalysis):
        return C.factor, C.diagonal
    if isinstance(C, LowRank):
        return C.basis * (C.variances - C.variance).sqrt(), C.variance.expand(C.size)
    assert isinstance(C, Diagonal)
    return C.eigenvalues.new_zeros(C.size, 0), C.eigenvalues


def _matrices(m: Tensor, C: Covariance, linear: LinearMeasurement) -> Update:
    A, y, S = linear
    if not isinstance(C, LowRank) or C.variances.numel() + len(y) >= C.size:
        mean, matrix, log_evidence = kalman(m, C.dense().to(m), linear)
        return Update(mean, Dense(matrix), log_evidence)
    U, _ = torch.linalg.qr(torch.cat([C.basis, A.mT], -1))
    inside = LinearMeasurement(A @ U, y - A @ m, S)
    shift, matrix, log_evidence = kalman(U.new_zeros(U.shape[1]), U.mT @ C.matvec(U.mT).mT, inside)
    values, V = eigendecomposition(matrix)
    return Update(m + U @ shift, LowRank.from_basis(U @ V, values, C.variance), log_evidence)
