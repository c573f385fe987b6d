"""Langevin dynamics: climb the score with noise, until the law is that of one noise level."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from priors import Prior

from ..checks import positive, whole
from .sampler import Noise, Past, Sampler


def langevin_step(x: Tensor, score: Tensor, step_size: Tensor | float, z: Tensor) -> Tensor:
    """x + a score + sqrt(2 a) z, for a step size a that is a number or (B, 1, ..., 1)."""
    a = torch.as_tensor(step_size, dtype=x.dtype, device=x.device)
    return x + a * score + (2 * a).sqrt() * z


@final
class Langevin(Sampler):
    """Unadjusted Langevin steps at one noise level: x' = x + a score(x, sigma) + sqrt(2 a) z.

    Its stationary law is p_sigma up to an error of order a. On a Gaussian of variance v at level
    sigma (so v = C + sigma^2 along each eigenvector) it is exactly

        mean of p_sigma,   variance v / (1 - a / (2 v)),   reached like |1 - a / v|^steps,

    and the steps diverge for a >= 2 v; v >= sigma^2, so a < 2 sigma^2 is always safe. Between modes
    that a low density separates it does not mix: the weights of the modes stay those of the start.
    AnnealedLangevin mends that. One network call a step.

    Args:
        sigma: the noise level, data units, > 0; the samples follow p_sigma, noise included.
        step_size: a, data units squared, > 0.
        steps: how many.
    Raises:
        ValueError: arguments out of these ranges. When run, DivergenceError: a step too large.

    Paper: Roberts and Tweedie, "Exponential Convergence of Langevin Distributions and Their
    Discrete Approximations", 1996, https://doi.org/10.2307/3318418
    """

    order = 1
    stationary = True

    def __init__(self, sigma: float, step_size: float, steps: int) -> None:
        self.sigma, self.step_size = positive(sigma, "sigma"), positive(step_size, "step_size")
        self.steps = whole(steps, "steps")
        self.levels = torch.tensor([self.sigma], dtype=torch.float64)

    @property
    def path(self) -> Tensor:
        return self.levels.expand(self.steps + 1)

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        score = prior.score(x, sigma)
        return langevin_step(x, score, self.step_size, eps()), x + sigma**2 * score
