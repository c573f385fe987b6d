"""What a peer is given: a denoiser, a linear measurement with Gaussian noise, and a data range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """Draw n images (n, *shape) given y = A x + sigma eps, in `steps` network calls.

    Attributes:
        denoise: (x (B, *shape), sigma (B,)) -> E[x0 | x], data units, differentiable.
        A: (M, D), on flattened images. y: (1, M).
        low, high: the data range; peers are run in the ranges their documentation names.
        scale: standard deviation of one value, data units.
    """

    shape: tuple[int, ...]
    denoise: Callable[[Tensor, Tensor], Tensor]
    A: Tensor
    sigma: float
    y: Tensor
    low: float
    high: float
    scale: float
    n: int
    steps: int
    seed: int

    def in_range(self, low: float, high: float) -> Task:
        """The same task for x' = a x + b, with [low, high] the new data range, and y in its unit:
        a y + A b = A x' + a sigma eps."""
        a = (high - low) / (self.high - self.low)
        b = low - a * self.low

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return a * self.denoise((x - b) / a, sigma / a) + b

        y = a * self.y + (b * self.A.sum(1)).to(self.y)
        return Task(
            self.shape, denoise, self.A, a * self.sigma, y, low, high, a * self.scale, self.n,
            self.steps, self.seed,
        )  # fmt: skip

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (M, M), s (M,), V (D, D) with A = U [diag(s) 0] V."""
        return torch.linalg.svd(self.A, full_matrices=True)
