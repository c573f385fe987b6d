"""The mixture of 25 Gaussians whose posteriors are known: instances and exact denoisers.

Prior: x0 ~ sum_k w_k N(m_k, I) in d dimensions, m_k = (-8 i, -8 j) repeated d / 2 times for i, j in
-2 ... 2, w proportional to squared normals. Measurement: y = A x0 + sigma_y eps of m values,
A = U diag(s) V with the singular vectors of a random matrix and s uniform in [0, 1], sigma_y
uniform in [0, max s]. Everything is drawn in float32 from torch's generator at one seed, in the
order: weights, A, s, x0, sigma_y, eps; the seed 27 gives the instances of the public benchopt
benchmark (sigma_y = 0.0048, 0.400, 0.274 for m = 1, 2, 4 at d = 8). In a second protocol all
weights are 1 / 25 and sigma_y is fixed at 0.01, 0.1 or 1.

Papers: Cardoso et al., "Monte Carlo guided Denoising Diffusion models for Bayesian linear inverse
problems", 2023, https://arxiv.org/abs/2308.07983; Boys et al., "Tweedie Moment Projected
Diffusions for Inverse Problems", 2024, https://arxiv.org/abs/2310.06721
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from posed import Modes
from torch import Tensor

from forward_models import LinearGaussian, MatrixOperator
from priors import Mixture, Prior
from priors.prior import CovarianceProduct

Cell = tuple[int, int] | tuple[int, int, float]
"""d, m, and sigma_y in the second protocol."""
CELLS: tuple[Cell, ...] = tuple((d, m) for d in (8, 80, 800) for m in (1, 2, 4))
SIGMAS_Y = (0.01, 0.1, 1.0)
"""Noise of the second protocol."""
HALF_WIDTH = 20.0
"""Half the range within which practically all values lie: the unit of toolboxes for images."""


class IsotropicMixture(Prior):
    """`Mixture` of unit covariances by matrix products alone: (B, K) values, never (K, B, D).

    With r_k the responsibilities, D(x) = (x + sigma^2 sum_k r_k m_k) / (1 + sigma^2).
    """

    exact_covariance = True

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self.event_shape, self.sigma_range = mixture.event_shape, mixture.sigma_range
        self.scale, self.data_range = mixture.scale, (-HALF_WIDTH, HALF_WIDTH)
        self.means, self.log_w = mixture.means.double(), mixture.weights.double().log()
        self.half = self.means.square().sum(-1) / 2

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.mixture.initial(eps, sigma)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.mixture.sample(n, generator)

    def log_responsibilities(self, x: Tensor, s2: Tensor | float) -> Tensor:
        """log r_k (B, K) at noise variance s2."""
        m = self.means.to(x)
        return (self.log_w.to(x) + (x @ m.mT - self.half.to(x)) / (1 + s2)).log_softmax(-1)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        s2 = sigma**2
        return (x + s2 * (self.log_responsibilities(x, s2).exp() @ self.means.to(x))) / (1 + s2)

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        s2, m = sigma**2, self.means.to(x)
        r = self.log_responsibilities(x, s2).exp()
        centre = r @ m
        c = s2 / (1 + s2)

        def product(v: Tensor) -> Tensor:
            along = r * (v @ m.mT - (v * centre).sum(-1, keepdim=True))
            between = along @ m - along.sum(-1, keepdim=True) * centre
            return c * v + c**2 * between

        return (x + s2 * centre) / (1 + s2), product


class ExactPosterior(Prior):
    """p_sigma(x | y) of an IsotropicMixture under y = A x0 + sigma_y eps, in closed form.

    Given x and the component, x0 ~ N(D_k, c I) with c = sigma^2 / (1 + sigma^2); then y updates it.
    """

    def __init__(self, prior: IsotropicMixture, A: Tensor, sigma_y: float, y: Tensor) -> None:
        self.prior, self.A, self.sigma_y, self.y = prior, A, sigma_y, y
        self.event_shape, self.sigma_range = prior.event_shape, prior.sigma_range
        self.scale, self.data_range = prior.scale, prior.data_range
        self.values, self.vectors = torch.linalg.eigh(A @ A.mT)

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.prior.initial(eps, sigma)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        s2, A = sigma**2, self.A.to(x)
        c = s2 / (1 + s2)
        seen = (x @ A.mT).unsqueeze(1) / (1 + s2).unsqueeze(1)
        seen = seen + c.unsqueeze(1) * (self.prior.means.to(x) @ A.mT)  # A D_k, (B, K, M)
        residual = (self.y.to(x) - seen) @ self.vectors.to(x)
        variance = c * self.values.to(x) + self.sigma_y**2  # (B, M)
        log_y = -(residual.square() / variance.unsqueeze(1)).sum(-1) / 2
        r = (self.prior.log_responsibilities(x, s2) + log_y).softmax(-1)
        x0 = (x + s2 * (r @ self.prior.means.to(x))) / (1 + s2)
        pulled = (r.unsqueeze(1) @ residual).squeeze(1) / variance
        return x0 + c * (pulled @ self.vectors.to(x).mT @ A)


@dataclass(frozen=True)
class Problem:
    """One instance: what a sampler may see (prior, model, y), and the truth it is judged by."""

    cell: Cell
    seed: int
    prior: IsotropicMixture
    model: LinearGaussian
    y: Tensor
    A: Tensor
    sigma_y: float

    @property
    def d(self) -> int:
        return self.cell[0]

    @cached_property
    def truth(self) -> Mixture:
        return self.prior.mixture.condition(self.model, self.y)

    def draws(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of the posterior."""
        return self.truth.sample(n, generator)

    def modes(self) -> Modes:
        """Those of the prior, to which p(y | x) is common, with the posterior's weights."""
        belong = partial(self.prior.log_responsibilities, s2=0.0)
        return Modes(lambda x: belong(x).exp(), self.truth.weights)


def parse_cell(text: str) -> Cell:
    d, m, *sigma_y = text.split(",")
    return (int(d), int(m), float(sigma_y[0])) if sigma_y else (int(d), int(m))


def problem(cell: Cell, seed: int) -> Problem:
    d, m, *fixed = cell
    source = torch.Generator().manual_seed(seed)
    weights = torch.randn(25, generator=source) ** 2
    grid = [(-8.0 * i, -8.0 * j) for i in range(-2, 3) for j in range(-2, 3)]
    means = torch.tensor(grid).repeat(1, d // 2)
    U, _, V = torch.linalg.svd(torch.randn(m, d, generator=source), full_matrices=False)
    s = torch.rand(m, generator=source).sort(descending=True).values
    A = (U @ (s.unsqueeze(-1) * V)).double()
    k = torch.multinomial(weights, 1, True, generator=source)
    x0 = (means + torch.randn(25, d, generator=source))[k[0]].double()
    sigma_y = float(torch.rand(1, generator=source) * s.max())
    if fixed:
        weights, sigma_y = torch.ones(25), float(fixed[0])
    y = A @ x0 + sigma_y * torch.randn(m, generator=source)
    weights = weights.double() / weights.double().sum()
    mixture = Mixture(means.double(), 1.0, weights)
    model = LinearGaussian(MatrixOperator(A), sigma_y)
    return Problem(cell, seed, IsotropicMixture(mixture), model, y.unsqueeze(0), A, sigma_y)
