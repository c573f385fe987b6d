"""C = c(sigma) I: the denoised image is off by as much everywhere."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from priors import Prior
from priors.prior import event_size

from .covariance import AssumedCovariance
from .likelihood import Moments
from .linear_system import Measured
from .solution import Solution


class Homogeneous(AssumedCovariance):
    """C = c(sigma) I.

    Solved by the operator: in closed form where it has a singular value decomposition or A A^T is
    diagonal, else by conjugate gradients. log det(S + c A A^T) = log det S + sum_i log(1 + c
    theta_i) over the eigenvalues theta of S^(-1/2) A A^T S^(-1/2), found once; see `spectrum_of`
    for when they are exact. No product with the network's Jacobian.
    """

    @abstractmethod
    def variance(self, sigma: Tensor) -> Tensor:
        """c, shaped as sigma."""

    def solve(self, moments: Moments, measured: Measured, r: Tensor, density: bool) -> Solution:
        c = self.variance(moments.sigma).flatten()
        v = measured.solve(r, c)
        return Solution(v, (r * v).sum(1), log_det=measured.log_det(c) if density else None)

    def product(self, moments: Moments, u: Tensor) -> Tensor:
        return self.variance(moments.sigma) * u


@final
@dataclass(frozen=True)
class Zero(Homogeneous):
    """C = 0: the denoised image is taken for the truth; p(y | D) with the true sigma_y.

    Stiff wherever sigma |A| is not small beside sigma_y.

    Paper: Chung et al., "Diffusion Posterior Sampling", 2023, https://arxiv.org/abs/2209.14687
    """

    assumable = False

    def variance(self, sigma: Tensor) -> Tensor:
        return torch.zeros_like(sigma)


@final
@dataclass(frozen=True)
class Isotropic(Homogeneous):
    """c = scale sigma^2 s^2 / (sigma^2 + s^2), s the prior's standard deviation.

    Exact if the prior is N(m, s^2 I) and scale = 1. With s = infinity, c = scale sigma^2.

    Papers: Song et al., "Pseudoinverse-Guided Diffusion Models", 2023,
    https://openreview.net/forum?id=9_gsMA8MRKQ; Zhu et al., "DiffPIR", 2023,
    https://arxiv.org/abs/2305.08995 (scale = 1 / lambda, s infinite, without the Jacobian)
    """

    s: float = math.inf
    scale: float = 1.0

    def variance(self, sigma: Tensor) -> Tensor:
        if math.isinf(self.s):
            return self.scale * sigma**2
        return self.scale * sigma**2 * self.s**2 / (sigma**2 + self.s**2)


@final
@dataclass(frozen=True)
class Switched(Homogeneous):
    """c of one rule below a noise level, and of another from there on.

    Paper: Peng et al., "Improving Diffusion Models for Inverse Problems Using Optimal Posterior
    Covariance", 2024, https://arxiv.org/abs/2402.02149
    """

    below: Homogeneous
    above: Homogeneous
    at: float

    def variance(self, sigma: Tensor) -> Tensor:
        return torch.where(sigma < self.at, self.below.variance(sigma), self.above.variance(sigma))


@final
class Tabulated(Homogeneous):
    """c(sigma) = E|x0 - D(x0 + sigma eps)|^2 / n, the prior's own denoising error, from a table.

    Of all isotropic covariances the one that maximises the likelihood of x0 given x. Between the
    levels 1 / c is linear in 1 / sigma^2, as it is everywhere for a prior N(m, s^2 I); below them c
    falls as sigma^2, above them it stays.

    Args:
        levels, errors: sigma and c, two sequences of positive numbers, levels increasing; `measure`
            makes them.

    Raises ValueError for others.

    Paper: Peng et al., "Improving Diffusion Models for Inverse Problems Using Optimal Posterior
    Covariance", 2024, https://arxiv.org/abs/2402.02149
    """

    def __init__(self, levels: Tensor, errors: Tensor) -> None:
        sigma, c = (torch.as_tensor(t, dtype=torch.float64).cpu() for t in (levels, errors))
        if sigma.ndim != 1 or sigma.shape != c.shape or not len(sigma):
            raise ValueError(
                f"levels and errors must be two lists of equal length, got {tuple(sigma.shape)} "
                f"and {tuple(c.shape)}"
            )
        good = torch.isfinite(sigma).all() and torch.isfinite(c).all()
        if not good or sigma.min() <= 0 or c.min() <= 0 or (sigma.diff() <= 0).any():
            raise ValueError("levels must be positive and increasing, errors positive, all finite")
        self.levels, self.errors = sigma, c

    @classmethod
    @torch.no_grad()
    def measure(
        cls,
        prior: Prior,
        levels: Tensor,
        images: Tensor | None = None,
        *,
        generator: torch.Generator,
        count: int | None = None,
        batch: int | None = None,
    ) -> Tabulated:
        """The table of a prior at given noise levels, one network call for each image and level.

        c = sum |x0 - D|^2 / sum |eps|^2, with the same eps at all levels: where sigma is small
        without the error of a finite sample, elsewhere with one of about 2 / sqrt(values) that
        changes little from level to level. Samples feel an error that jumps: of 10 % at each level
        by itself, Heun's ODE with the Jacobian makes 25 % of a Gaussian's variance.

        Args:
            prior: any prior.
            levels: noise levels, increasing, data units.
            images: clean images (N, *event), data units, that the prior was not trained on; by
                default `count` exact draws, for priors that have a `sample`.
            generator: of the noise and of those draws.
            count: by default as many draws as hold 2^16 values, at least 64.
            batch: images in one network call; by default as many as hold 2^16 values, at least 16.
        Raises ValueError if there are neither images nor exact draws.
        """
        if images is None:
            if not hasattr(prior, "sample"):
                raise ValueError(
                    f"{type(prior).__name__} has no exact draws: give clean images (N, *event)"
                )
            images = prior.sample(
                count or max(64, 2**16 // event_size(prior.event_shape)), generator
            )
        prior.check_input(images)
        parts = images.split(batch or max(16, 2**16 // images[0].numel()))
        state, errors = generator.get_state(), []
        for sigma in torch.as_tensor(levels).tolist():
            generator.set_state(state)
            missed = noise = 0.0
            for x0 in parts:
                eps = torch.randn(
                    x0.shape, generator=generator, dtype=x0.dtype, device=generator.device
                ).to(x0.device)
                missed += float(
                    (x0 - prior.denoise(x0 + sigma * eps, sigma)).double().square().sum()
                )
                noise += float(eps.double().square().sum())
            errors.append(missed / noise)
        return cls(torch.as_tensor(levels), torch.tensor(errors, dtype=torch.float64))

    def variance(self, sigma: Tensor) -> Tensor:
        level, levels = sigma.double().cpu(), self.levels
        inside = level.clamp(float(levels[0]), float(levels[-1]))
        precision = 1 / self.errors[0]
        if len(levels) > 1:
            right = torch.searchsorted(levels, inside.contiguous()).clamp(1, len(levels) - 1)
            a, b = levels[right - 1] ** -2, levels[right] ** -2
            share = (inside**-2 - a) / (b - a)
            precision = (1 - share) / self.errors[right - 1] + share / self.errors[right]
        below = (level / levels[0]).clamp(max=1)
        return (below**2 / precision).to(sigma)
