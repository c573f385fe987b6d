"""Norms of batches."""

from __future__ import annotations

from torch import Tensor


def norm_of(values: Tensor) -> Tensor:
    """The norm of each sample of (B, *event), (B, 1, ..., 1)."""
    norm = values.reshape(len(values), -1).norm(dim=1)
    return norm.reshape(-1, *[1] * (values.ndim - 1))
