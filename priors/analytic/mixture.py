"""The Gaussian mixture x0 ~ sum_k w_k N(m_k, C_k): multimodal, and known at every noise level.

With r_k(x) the probability that x came from component k (its responsibility at level sigma),

    p_sigma(x) = sum_k w_k N(x; m_k, C_k + sigma^2 I),   D(x, sigma) = sum_k r_k(x) D_k(x, sigma),
    Cov[x0 | x] = sum_k r_k (Cov_k[x0 | x] + (D_k - D)(D_k - D)^T).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from ..prior import CovarianceProduct, Prior
from .components import check_weights, components
from .conditioning import Update, condition
from .covariance import Covariance, Dense, noise_range, noise_variance
from .parameters import (
    Parameters,
    check_count,
    constant,
    floating_dtype,
    private_generator,
    unit_noise,
)
from .stack import stack
from .structured import LowRank


@final
class Mixture(Parameters, Prior):
    """x0 ~ sum_k w_k N(m_k, C_k), exact at every noise level.

    Args:
        means: m_k, (K, *event).
        covariances: one variance; K variances (K,); one matrix (D, D) for all; (K, D, D), with D
            the number of values in an event; a `Covariance` for all; or a list of K of them, of
            any kinds. They may be singular, but then there is no density at sigma = 0.
        weights: w_k (K,), >= 0, adding up to 1.
        data_range: (low, high) of the user's units, where the data have one.
        sigma_range: noise levels between which samplers run; by default from a thousandth of the
            smallest scale to a hundred times the largest.

    Attributes:
        C: the K covariances, each a `Covariance`.

    Costs K times what the covariances' own operations cost: O(B K D) for variances, O(B K D R)
    for LowRank(D, R), O(B K D^2) for matrices; no derivative is taken. Holds (K, B, D) values.
    Computed at the dtype of x; decompositions, O(D^3) for a matrix, in float64.

    Raises:
        ValueError: shapes that do not fit, weights that do not add up to 1 (within 1e-6), a
            negative weight, variance or eigenvalue, an asymmetric matrix.
    """

    exact_covariance = True

    def __init__(
        self,
        means: Tensor,
        covariances: Covariance | Sequence[Covariance] | Tensor | float,
        weights: Tensor,
        *,
        data_range: tuple[float, float] | None = None,
        sigma_range: tuple[float, float] | None = None,
    ) -> None:
        full = constant(means, "the means")
        if full.ndim < 1 or full.shape[0] < 1:
            raise ValueError(f"the means must have shape (K, *event), got {tuple(full.shape)}")
        self.event_shape = tuple(full.shape[1:])
        self._means = full.reshape(full.shape[0], -1)
        self._weights = check_weights(weights, full.shape[0]).to(full.device)
        self.C = components(covariances, full.shape[0], self.event_shape)
        self._stack = stack(self.C)
        self._smallest = min(C.smallest for C in self.C)
        self.data_range = data_range
        self.dtype = floating_dtype(means)
        lows, highs = zip(*(C.std_range() for C in self.C), strict=True)
        spread = float((self._means - self._mean).norm(dim=-1).max())
        low = min((low for low in lows if low > 0), default=spread)
        self.sigma_range = sigma_range or noise_range(low, max(highs) + spread)
        self.scale = math.sqrt(self._total_variance() / self.size)

    @property
    def size(self) -> int:
        """D, the number of values in an event."""
        return self._means.shape[1]

    @property
    def means(self) -> Tensor:
        """m_k, (K, *event)."""
        return self._means.reshape(-1, *self.event_shape).to(self.dtype)

    @property
    def weights(self) -> Tensor:
        """w_k, (K,)."""
        return self._weights.to(self.dtype)

    @property
    def covariances(self) -> Tensor:
        """C_k, (K, D, D), in float64."""
        return torch.stack([C.dense().to(self._means) for C in self.C])

    @property
    def mean(self) -> Tensor:
        """E[x0], (*event)."""
        return self._mean.reshape(self.event_shape).to(self.dtype)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (*event) and dense covariance (D, D) of the whole mixture, in float64."""
        centred = self._means - self._mean
        between = (self._weights.unsqueeze(-1) * centred).mT @ centred
        within = sum(w * C.dense().to(w) for w, C in zip(self._weights, self.C, strict=True))
        return self._mean.reshape(self.event_shape), within + between

    def responsibilities(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """r_k(x), the probability that x (B, *event) came from component k, (B, K)."""
        self.check_input(x)
        s2 = self._positive(self.check_sigma(sigma, x))
        mixture = self.like(x)
        apart = mixture._apart(x)
        return mixture._log_joint(apart, mixture._stack.solve(apart, s2), s2).softmax(0).mT

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log p_sigma(x) in nats, (B,): the density of x0 + sigma eps, exact.

        Raises ValueError at sigma = 0 where a component is singular.
        """
        self.check_input(x)
        s2 = self._positive(self.check_sigma(sigma, x))
        mixture = self.like(x)
        apart = mixture._apart(x)
        return mixture._log_joint(apart, mixture._stack.solve(apart, s2), s2).logsumexp(0)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws (n, *event); from a private generator, seeded by the system, if None."""
        source = private_generator(generator)
        weights = self._weights.to(source.device)
        k = torch.multinomial(weights, check_count(n), replacement=True, generator=source)
        k = k.to(self._means.device)
        eps = unit_noise((n, self.size), source, self._means)
        return self._draw(k, eps).to(self.dtype)

    def transform(self, eps: Tensor, u: Tensor) -> Tensor:
        """Unit noise eps (n, *event) and uniform numbers u (n,) as exact draws, row by row.

        u chooses the component by its place among the cumulative weights.
        """
        edges = self._weights.cumsum(0)
        k = torch.searchsorted(edges / edges[-1], u.to(edges), right=True)
        k = k.clamp(max=len(edges) - 1)
        return self._draw(k, eps.reshape(len(eps), -1).to(self._means)).to(eps)

    def _draw(self, k: Tensor, eps: Tensor) -> Tensor:
        """m_k + C_k^(1/2) eps for components k (n,) and eps (n, D): (n, *event), float64."""
        draws = self._means[k]
        for j in k.unique().tolist():
            draws[k == j] += self.C[j].sqrt(eps[k == j])
        return draws.reshape(len(k), *self.event_shape)

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        """A draw from the Gaussian with p_sigma's mean and covariance.

        Exact as sigma grows: the third cumulant, the first to differ, has relative size
        O(spread^3 / sigma^3).
        """
        flat = self._moments_covariance.sqrt(eps, sigma**2)
        return self.like(eps)._mean.reshape(self.event_shape) + flat

    def condition(self, model: Any, y: Tensor) -> Mixture:
        """The exact posterior p(x0 | y), a mixture again; condition on further data likewise.

        Each component is conditioned as a Gaussian and its weight multiplied by the evidence
        N(y; A m_k, A C_k A^T + S). Arguments, cost (K times) and refusals as in
        `Gaussian.condition`.
        """
        updates = self._updates(model, y)
        posterior = Mixture(
            torch.stack([update.mean for update in updates]).reshape(-1, *self.event_shape),
            [update.C for update in updates],
            self._log_joint_evidence(updates).softmax(0),
            data_range=self.data_range,
        )
        posterior.dtype = self.dtype
        return posterior

    def log_evidence(self, model: Any, y: Tensor) -> Tensor:
        """log p(y) = log sum_k w_k N(y; A m_k, A C_k A^T + S) over the measured entries.

        A float64 scalar; arguments, cost and refusals as in `condition`.
        """
        return self._log_joint_evidence(self._updates(model, y)).logsumexp(0)

    def _updates(self, model: Any, y: Tensor) -> list[Update]:
        return condition(self._means, self.C, self.event_shape, model, y)

    def _log_joint_evidence(self, updates: list[Update]) -> Tensor:
        return self._weights.log() + torch.stack([update.log_evidence for update in updates])

    def _particulars(self) -> dict[str, Any]:
        return {"components": len(self.C)}

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._posterior(x, sigma)[0]

    def _score(self, x: Tensor, sigma: Tensor) -> Tensor:
        mixture, s2 = self.like(x), self._positive(sigma)
        apart = mixture._apart(x)
        white = mixture._stack.solve(apart, s2)
        r = mixture._log_joint(apart, white, s2).softmax(0)
        return -(r.unsqueeze(-1) * white).sum(0).reshape(x.shape)

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        x0, r, spread = self._posterior(x, sigma)
        mixture, s2 = self.like(x), noise_variance(sigma).unsqueeze(-1)
        safe = torch.where(s2 > 0, s2, 1.0)
        weighted = r.unsqueeze(-1) * spread

        def product(v: Tensor) -> Tensor:
            flat = v.reshape(v.shape[0], -1)
            each = mixture._stack.shrink(flat.expand(len(r), *flat.shape), safe)
            within = s2 * (r.unsqueeze(-1) * each).sum(0)
            between = (weighted * (spread * flat).sum(-1, keepdim=True)).sum(0)
            return (within + torch.where(s2 > 0, between, 0.0)).reshape(v.shape)

        return x0, product

    def _posterior(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D (B, *event), r (K, B) and D_k - D (K, B, D)."""
        mixture, s2 = self.like(x), noise_variance(sigma).unsqueeze(-1)
        # At sigma = 0 the answer is x; the formulas are kept finite there.
        safe = torch.where(s2 > 0, s2, 1.0)
        apart = mixture._apart(x)
        r = mixture._log_joint(apart, mixture._stack.solve(apart, safe), safe).softmax(0)
        each = mixture._means.unsqueeze(1) + mixture._stack.shrink(apart, safe)
        x0 = (r.unsqueeze(-1) * each).sum(0)
        return torch.where(sigma > 0, x0.reshape(x.shape), x), r, each - x0

    def _apart(self, x: Tensor) -> Tensor:
        """x - m_k, (K, B, D)."""
        return x.reshape(1, x.shape[0], self.size) - self._means.unsqueeze(1)

    def _log_joint(self, apart: Tensor, white: Tensor, s2: Tensor) -> Tensor:
        """log w_k N(x; m_k, C_k + s2 I), (K, B), from x - m_k and (C_k + s2 I)^-1 (x - m_k)."""
        constant = self._stack.logdet(s2) + self.size * math.log(2 * math.pi)
        return self._weights.log().unsqueeze(-1) - ((apart * white).sum(-1) + constant) / 2

    def _positive(self, sigma: Tensor) -> Tensor:
        """sigma^2 (B, 1) or (1, 1), refused where a density does not exist."""
        s2 = noise_variance(sigma).unsqueeze(-1)
        if self._smallest + float(s2.min()) <= 0:
            raise ValueError(
                "a component's covariance is singular (smallest eigenvalue 0), so there is no "
                "density at sigma = 0; give sigma > 0"
            )
        return s2

    def _total_variance(self) -> float:
        within = sum(float(w) * C.trace() for w, C in zip(self._weights, self.C, strict=True))
        between = (self._means - self._mean).square().sum(-1)
        return within + float((self._weights * between).sum())

    @property
    def _mean(self) -> Tensor:
        return self._weights @ self._means

    @cached_property
    def _moments_covariance(self) -> Covariance:
        """The covariance of the whole mixture: of low rank again where the ranks are few."""
        low_rank = [C for C in self.C if isinstance(C, LowRank)]
        rank = len(self.C) + sum(C.variances.numel() for C in low_rank)
        if len(low_rank) < len(self.C) or rank >= self.size:
            return Dense(self.moments()[1])
        factors = [(self._weights.sqrt().unsqueeze(-1) * (self._means - self._mean)).mT]
        factors += [
            w.sqrt() * C.basis * (C.variances - C.variance).sqrt()
            for w, C in zip(self._weights, low_rank, strict=True)
        ]
        variance = sum(w * C.variance for w, C in zip(self._weights, low_rank, strict=True))
        return LowRank(torch.cat(factors, -1), variance)
