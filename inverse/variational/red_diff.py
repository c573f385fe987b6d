"""RED-diff: an image pulled to its own denoised versions, and to the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ..checks import positive
from ..samplers.sampler import check_levels
from .misfit import Misfit
from .optimisers import Adam
from .variational_method import Look, VariationalMethod


@final
class REDDiff(VariationalMethod):
    """min over mu of loss(mu) + lambda_t sg[eps_theta(x_t) - eps]^T mu / w, t from noisy to clean.

    x_t = mu + sigma eps, and lambda_t = weight (sigma / w), the published "linear" weight by the
    inverse ratio of signal to noise. Since eps_theta - eps = (mu - D(x_t)) / sigma, the level
    cancels, and a step of Adam descends along

        w grad loss(mu)  +  weight (mu - D(mu + sigma eps, sigma)) / w,

    with the loss of `Misfit`: 1/2 |(y - A mu) / w|^2 n / m for n values, m data and a data range of
    width 2 w, which is the released code's sum of means at its range [-1, 1], without sigma_y.
    Held at one level it settles where

        (n / m) A^T (y - A mu) = weight E[mu - D(mu + sigma eps)],

    the mode of p(y | mu) q(mu)^kappa for kappa = weight (m / n) (sigma / sigma_y)^2, with log q(mu)
    the mean of log p_sigma over mu + sigma eps. For a prior N(m, C) the right side is
    weight sigma^2 (C + sigma^2)^-1 (mu - m). As sigma falls so does kappa, and in the end y is
    fitted, noise and all, where y sees; what y does not see stays as larger levels left it.

    A point estimate. Starts from `Misfit.estimate`: the released A^+ y, damped by the noise. The
    published weight is for operators of norm near 1. One network call a step, no derivative of it.

    Args:
        levels: (N + 1,) decreasing noise levels; step k is made at levels[k], the last is not used.
        unit: w, half the width of the data range.
        weight: lambda_t w / sigma.
        rate, betas: of Adam; the rate in units of w.

    Paper: Mardani et al., "A Variational Perspective on Solving Inverse Problems with Diffusion
    Models", 2024, https://arxiv.org/abs/2305.04391
    """

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        unit: float = 1.0,
        weight: float = 0.25,
        rate: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self.levels = check_levels(levels)
        self.unit, self.weight = positive(unit, "unit"), positive(weight, "weight")
        self.optimiser = Adam(positive(rate, "rate") * self.unit, betas)

    @property
    def path(self) -> Tensor:
        return self.levels

    @property
    def network_calls(self) -> int:
        return len(self.levels) - 1

    def _start(self, misfit: Misfit, eps: Tensor) -> Tensor:
        return misfit.estimate

    def _look(self, misfit: Misfit, theta: Tensor, k: int, eps: Tensor) -> Look:
        sigma = float(self.levels[k])
        x0 = misfit.posterior.prior.denoise(theta + sigma * eps, sigma)
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            loss = misfit(leaf)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        pull = self.weight * (theta - x0) / self.unit
        return Look(loss.detach(), self.unit * gradient + pull)
