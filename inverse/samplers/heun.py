"""Heun's method on the probability-flow ordinary differential equation."""

from __future__ import annotations

from typing import final

from torch import Tensor

from priors import Prior

from .sampler import Noise, Past, Sampler


@final
class Heun(Sampler):
    """dx / dsigma = (x - D(x, sigma)) / sigma, by the trapezoidal rule; deterministic.

    Order 2; a step to level 0 is an Euler step, which returns the denoised image. Two network
    calls a step, one for the step to 0.

    Paper: Karras et al., 2022, https://arxiv.org/abs/2206.00364
    """

    order = 2

    def _calls(self, sigma: float, sigma_next: float) -> int:
        return 1 if sigma_next == 0 else 2

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        return heun_step(prior, x, sigma, sigma_next)


def heun_step(prior: Prior, x: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
    """(x at sigma_next, D(x, sigma)): trapezoidal, or Euler to level 0."""
    x0 = prior.denoise(x, sigma)
    if sigma_next == 0:
        return x0, x0
    slope = (x - x0) / sigma
    x_next = x + (sigma_next - sigma) * slope
    slope_next = (x_next - prior.denoise(x_next, sigma_next)) / sigma_next
    return x + (sigma_next - sigma) * (slope + slope_next) / 2, x0
