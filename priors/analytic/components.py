"""What a mixture is made of: K covariances, however they are given, and their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .covariance import Covariance, Dense, as_covariance, check_nonnegative
from .parameters import constant
from .structured import LowRank


def components(
    covariances: Covariance | Sequence[Covariance] | Tensor | float,
    count: int,
    event_shape: tuple[int, ...],
) -> tuple[Covariance, ...]:
    """Every way to give K covariances, as K of them; the same object where all are equal."""
    size = math.prod(event_shape)
    if isinstance(covariances, Covariance):
        return (as_covariance(covariances, event_shape),) * count
    if isinstance(covariances, Sequence) and any(isinstance(C, Covariance) for C in covariances):
        if len(covariances) != count:
            raise ValueError(
                f"there must be one covariance for each of the {count} means, got "
                f"{len(covariances)}"
            )
        return tuple(as_covariance(C, event_shape) for C in covariances)
    given = covariances if isinstance(covariances, Tensor) else torch.as_tensor(covariances)
    shape = tuple(given.shape)
    none = torch.zeros(size, 0, dtype=torch.float64, device=given.device)
    if shape == ():
        return (LowRank(none, constant(covariances, "the variance")),) * count
    if shape == (count,):
        variances = constant(covariances, "the variances")
        return tuple(LowRank(none, variance) for variance in variances)
    if shape == (size, size):
        return (Dense(given),) * count
    if shape == (count, size, size):
        return tuple(Dense(matrix) for matrix in given)
    raise ValueError(
        f"covariances must be a variance, ({count},) variances, a matrix ({size}, {size}) or "
        f"({count}, {size}, {size}), or a list of {count} Covariances; got shape {shape}"
    )


def check_weights(weights: Tensor, count: int) -> Tensor:
    """Probabilities (count,) in float64; refused if negative or not adding up to 1."""
    probabilities = constant(weights, "the weights")
    if tuple(probabilities.shape) != (count,):
        raise ValueError(f"weights must have shape ({count},), got {tuple(probabilities.shape)}")
    check_nonnegative(probabilities, "a weight")
    total = float(probabilities.sum())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the weights must add up to 1, got {total:.8g}; divide by their sum")
    return probabilities / total
