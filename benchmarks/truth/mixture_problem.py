"""The mixture of 25 Gaussians whose posteriors are known: instances, exact denoisers, distances.

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

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from forward_models import LinearGaussian, MatrixOperator
from inverse.diagnostics.sliced import Slices
from priors import Mixture, Prior
from priors.prior import CovarianceProduct

Cell = tuple[int, int] | tuple[int, int, float]
"""d, m, and sigma_y in the second protocol."""
CELLS: tuple[Cell, ...] = tuple((d, m) for d in (8, 80, 800) for m in (1, 2, 4))
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


class Clock(Prior):
    """A prior that counts its network calls and products, and times them (processor seconds)."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.event_shape, self.sigma_range = prior.event_shape, prior.sigma_range
        self.scale, self.data_range = prior.scale, prior.data_range
        self.exact_covariance = prior.exact_covariance
        self.calls = self.products = 0
        self.seconds = 0.0

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.prior.initial(eps, sigma)

    def _timed(self, function: Callable, *arguments: Tensor):  # type: ignore[no-untyped-def]
        start = time.process_time()
        found = function(*arguments)
        self.seconds += time.process_time() - start
        return found

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self._timed(self.prior._denoise, x, sigma)

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        self.calls += 1
        x0, product = self._timed(self.prior._covariance, x, sigma)

        def counted(v: Tensor) -> Tensor:
            self.products += 1
            return self._timed(product, v)

        return x0, counted


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
    truth: Mixture

    @property
    def d(self) -> int:
        return self.cell[0]

    def exact(self, n: int, stream: int) -> Tensor:
        """n independent draws of the posterior; streams are independent."""
        return self.truth.sample(n, torch.Generator().manual_seed(1000 * stream + self.seed))

    @cached_property
    def distance(self) -> SlicedWasserstein:
        """To 2000 exact draws."""
        return SlicedWasserstein(self.exact(2000, stream=1), self.seed)


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
    truth = mixture.condition(model, y)
    return Problem(cell, seed, IsotropicMixture(mixture), model, y.unsqueeze(0), A, sigma_y, truth)


class SlicedWasserstein:
    """Mean over random directions of the W1 distance between projections on them.

    Args:
        other: (n', d) unweighted samples that all sets are compared with.
        seed: of the directions.
    """

    def __init__(self, other: Tensor, seed: int = 0, slices: int = 500) -> None:
        self.slices = Slices(other, projections=slices, seed=seed)

    def __call__(self, x: Tensor, weights: Tensor | None = None) -> float:
        """W1 between x (n, d), weighted (n,) or not, and `other`."""
        return float(self.slices.to(x, weights).w1.mean())


def coverage(problem: Problem, x: Tensor, weights: Tensor, level: float = 0.9) -> float:
    """Exact posterior mass of the samples' central intervals, mean over coordinates."""
    values, order = x.double().sort(0)
    below = weights.double()[order].cumsum(0)
    edges = []
    for mass in ((1 - level) / 2, (1 + level) / 2):
        index = (below < mass).sum(0).clamp(max=len(x) - 1)
        edges.append(values.gather(0, index.unsqueeze(0))[0])
    means, w = problem.truth.means.double(), problem.truth.weights.double()
    std = torch.eye(problem.d).double() - _explained(problem)
    std = std.diagonal().sqrt()
    low, high = (torch.special.ndtr((edge - means) / std) for edge in edges)
    return float((w @ (high - low)).mean())


def _explained(problem: Problem) -> Tensor:
    """A^T (A A^T + sigma_y^2)^-1 A: what y takes from each component's covariance I."""
    A = problem.A
    noise = problem.sigma_y**2 * torch.eye(len(A)).double()
    return A.mT @ torch.linalg.solve(A @ A.mT + noise, A)


def judge(problem: Problem, x: Tensor, weights: Tensor | None) -> dict[str, float]:
    """Figures of weighted samples x (n, d) against the exact posterior.

    sw: sliced W1 to 2000 exact draws; tv: total variation of the modes' weights; chi2: mean squared
    residual in units of sigma_y; coverage: mass of 90 % intervals; ess: samples these are worth.
    """
    x = x.double()
    w = x.new_full((len(x),), 1 / len(x)) if weights is None else weights.double()
    if not bool(torch.isfinite(x).all()):
        return {"sw": math.nan, "tv": math.nan, "chi2": math.nan, "coverage": math.nan, "ess": 0.0}
    # p(y | x) is common to the components: the posterior's responsibilities are the prior's.
    modes = w @ problem.prior.log_responsibilities(x, 0.0).exp()
    residual = (problem.y - x @ problem.A.mT) / problem.sigma_y
    return {
        "sw": problem.distance(x, weights),
        "tv": float((modes - problem.truth.weights.double()).abs().sum() / 2),
        "chi2": float(w @ residual.square().mean(-1)),
        "coverage": coverage(problem, x, w),
        "ess": float(1 / w.square().sum()),
    }
