"""C of a Gaussian prior that stands in for the real one."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from priors import Circulant, Covariance
from priors.analytic.covariance import Diagonal, as_covariance

from .covariance import AssumedCovariance
from .likelihood import Moments
from .linear_system import Measured
from .solution import Solution, assembled, log_det
from .spectrum import DENSE, PROBES, STEPS


@final
class FixedPrior(AssumedCovariance):
    """C = (Sigma^-1 + I / sigma^2)^-1 = sigma^2 Sigma (Sigma + sigma^2 I)^-1, Sigma fixed.

    What Cov[x0 | x] would be if the prior had covariance Sigma. By default without the Jacobian
    (K = C), so that no derivative of the network is taken. Exact for a Gaussian prior of that
    covariance, whatever its mean.

    Solved by conjugate gradients of the operator and Sigma. The log-determinant is exact up to 256
    measured values (M products with A and Sigma), else by Lanczos quadrature with 8 fixed vectors
    and 32 steps; no network either way.

    Args:
        covariance: Sigma in squared data units: a priors.Covariance (Circulant, Kronecker, LowRank,
            FactorAnalysis, or the `C` of a Gaussian prior), a variance, variances of the event's
            shape, or a matrix (D, D). See also `diagonal` and `circulant`.

    After the Jacobian-free posterior sampling (JFPS) of https://github.com/probabilists/azula.
    """

    jacobian = False

    def __init__(self, covariance: Covariance | Tensor | float) -> None:
        self._given = covariance
        self._made: Covariance | None = None

    @classmethod
    def diagonal(cls, images: Tensor) -> FixedPrior:
        """Sigma = the variance of each value over images (N, *event) of the prior, N >= 2."""
        return cls(Diagonal(_centred(images).square().sum(0).flatten() / (len(images) - 1)))

    @classmethod
    def circulant(cls, images: Tensor) -> FixedPrior:
        """Sigma of a stationary field: the mean power spectrum of images (N, ..., H, W), N >= 2."""
        power = torch.fft.fft2(_centred(images), norm="ortho").abs().square().sum(0)
        power = power / (len(images) - 1)
        even = (power + power.flip(-2, -1).roll((1, 1), (-2, -1))) / 2
        return cls(Circulant(even, tuple(images.shape[1:])))

    def solve(self, moments: Moments, measured: Measured, r: Tensor, density: bool) -> Solution:
        sigma, system = moments.sigma, measured.system(r)
        if density and measured.size <= DENSE:
            return assembled(system, lambda v: torch.stack([self._product(sigma, u) for u in v]), r)
        v = measured.solve(r, lambda u: self._product(sigma, u))
        if not density:
            return Solution(v, (r * v).sum(1))
        # One determinant serves all samples of a level.
        if bool((sigma == sigma[:1]).all()):
            sigma = sigma[:1]
        found = log_det(system, lambda u: self._product(sigma, u), r[: len(sigma)], PROBES, STEPS)
        return Solution(v, (r * v).sum(1), log_det=found.expand(len(r)))

    def product(self, moments: Moments, u: Tensor) -> Tensor:
        return self._product(moments.sigma, u)

    def _product(self, sigma: Tensor, u: Tensor) -> Tensor:
        if self._made is None:
            self._made = as_covariance(self._given, tuple(u.shape[1:]))
        return sigma**2 * self._made.shrink(u, sigma.flatten() ** 2)


def _centred(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or not images.is_floating_point() or len(images) < 2:
        raise ValueError("give at least two images, a floating tensor (N, *event)")
    x = images.detach().double()
    return x - x.mean(0)
