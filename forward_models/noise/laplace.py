"""Laplace noise: errors with heavier tails than Gaussian ones."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from .noise import IndependentNoise
from .parameter import PerEntry


def standard_exponential(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws of mean 1 with the shape, dtype and device of `like`, on the generator's device."""
    device = like.device if generator is None else generator.device
    draws = torch.empty(like.shape, dtype=like.dtype, device=device)
    return draws.exponential_(generator=generator).to(like.device)


@final
class Laplace(IndependentNoise):
    """y = z + e, e of density exp(-|e| / scale) / (2 scale); exact for every z.

    E[y] = z, Var[y] = 2 scale^2, information 1 / scale^2. The slope jumps at z = y. y and z
    in any one unit. Cost: a few operations for each entry.

    Args:
        scale: mean absolute error in the unit of y, a positive number, or one for each entry.

    Raises:
        TypeError: the scale is no real number or tensor. ValueError: it is not positive.

    Paper: Tarantola, Inverse problem theory and methods for model parameter estimation,
    https://doi.org/10.1137/1.9780898717921
    """

    def __init__(self, scale: float | Tensor) -> None:
        self._scale = PerEntry("scale", scale)

    def _log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        scale = self._scale.like(z)
        return -(y - z).abs() / scale - (2 * scale).log()

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        return (y - z).sign() / self._scale.like(z)

    def information(self, z: Tensor) -> Tensor:
        return (1 / self._scale.like(z).square()).expand(z.shape)

    def mean(self, z: Tensor) -> Tensor:
        return z

    def variance(self, z: Tensor) -> Tensor:
        return (2 * self._scale.like(z).square()).expand(z.shape)

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        error = standard_exponential(z, generator) - standard_exponential(z, generator)
        return z + self._scale.like(z) * error
