"""The Gaussian mixture x0 ~ sum_k w_k N(m_k, C_k): multimodal, and known at every noise level.

With r_k(x) the probability that x came from component k (its responsibility at level sigma),

    p_sigma(x) = sum_k w_k N(x; m_k, C_k + sigma^2 I),   D(x, sigma) = sum_k r_k(x) D_k(x, sigma),
    Cov[x0 | x] = sum_k r_k (Cov_k[x0 | x] + (D_k - D)(D_k - D)^T).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from ..prior import CovarianceProduct, Prior
from .covariance import Covariance, Dense, check_nonnegative, eigendecomposition, noise_range
from .linear_gaussian import condition, log_evidence, read_model
from .parameters import (
    Parameters,
    check_count,
    constant,
    floating_dtype,
    private_generator,
    unit_noise,
)
from .structured import LowRank


@final
class Mixture(Parameters, Prior):
    """x0 ~ sum_k w_k N(m_k, C_k), exact at every noise level.

    Args:
        means: m_k, (K, *event).
        covariances: one variance; K variances (K,); one matrix (D, D) for all; or (K, D, D), with
            D the number of values in an event. They may be singular, but then there is no
            density at sigma = 0.
        weights: w_k (K,), >= 0, adding up to 1.
        data_range: (low, high) of the user's units, where the data have one.

    Costs O(B K D) for variances and O(B K D^2) for matrices; no derivative is taken. Computed at
    the dtype of x; decompositions, O(D^3) each, in float64.

    Raises:
        ValueError: shapes that do not fit, weights that do not add up to 1 (within 1e-6), a
            negative weight, variance or eigenvalue, an asymmetric matrix.
    """

    exact_covariance = True

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor | float,
        weights: Tensor,
        *,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        full = constant(means, "the means")
        if full.ndim < 1 or full.shape[0] < 1:
            raise ValueError(f"the means must have shape (K, *event), got {tuple(full.shape)}")
        self.event_shape = tuple(full.shape[1:])
        self._means = full.reshape(full.shape[0], -1)
        self._weights = check_weights(weights, full.shape[0]).to(full.device)
        # Eigenvalues (K or 1, D or 1) and eigenvectors (D, D) or (K, D, D), None for the identity.
        self._eigenvalues, self._basis = self._decompose(covariances)
        self._smallest = float(self._eigenvalues.min())
        self.data_range = data_range
        self.dtype = floating_dtype(means)
        used = self._eigenvalues[self._eigenvalues > 0].sqrt()
        low, high = (float(used.min()), float(used.max())) if used.numel() else (0.0, 0.0)
        spread = float((self._means - self._mean).norm(dim=-1).max())
        self.sigma_range = noise_range(low or spread, high + spread)
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
        count, size = self._means.shape
        values = self._eigenvalues.expand(count, size)
        if self._basis is None:
            return torch.diag_embed(values)
        return (self._basis * values.unsqueeze(-2)) @ self._basis.mT

    @property
    def mean(self) -> Tensor:
        """E[x0], (*event)."""
        return self._mean.reshape(self.event_shape).to(self.dtype)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (*event) and dense covariance (D, D) of the whole mixture, in float64."""
        centred = self._means - self._mean
        between = (self._weights.unsqueeze(-1) * centred).mT @ centred
        within = (self._weights[:, None, None] * self.covariances).sum(0)
        return self._mean.reshape(self.event_shape), within + between

    def responsibilities(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """r_k(x), the probability that x (B, *event) came from component k, (B, K)."""
        self.check_input(x)
        s2 = self._positive(self.check_sigma(sigma, x).flatten() ** 2)
        mixture = self.like(x)
        return mixture._log_joint(*mixture._rotated(x), s2).softmax(-1)

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log p_sigma(x) in nats, (B,): the density of x0 + sigma eps, exact.

        Raises ValueError at sigma = 0 where a component is singular.
        """
        self.check_input(x)
        s2 = self._positive(self.check_sigma(sigma, x).flatten() ** 2)
        mixture = self.like(x)
        return mixture._log_joint(*mixture._rotated(x), s2).logsumexp(-1)

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
        shared = self._eigenvalues.shape[0] == 1
        scaled = eps * self._eigenvalues.sqrt()[torch.zeros_like(k) if shared else k]
        if self._basis is not None:
            basis = self._basis if self._basis.ndim == 2 else self._basis[k]
            scaled = (basis @ scaled.unsqueeze(-1)).squeeze(-1)
        return (self._means[k] + scaled).reshape(len(k), *self.event_shape)

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
        linear = read_model(model, y, self._means[0].reshape(self.event_shape))
        pairs = [
            condition(m, C, linear) for m, C in zip(self._means, self.covariances, strict=True)
        ]
        posterior = Mixture(
            torch.stack([mean for mean, _ in pairs]).reshape(-1, *self.event_shape),
            torch.stack([matrix for _, matrix in pairs]),
            self._log_evidences(linear).softmax(0),
            data_range=self.data_range,
        )
        posterior.dtype = self.dtype
        return posterior

    def log_evidence(self, model: Any, y: Tensor) -> Tensor:
        """log p(y) = log sum_k w_k N(y; A m_k, A C_k A^T + S) over the measured entries.

        A float64 scalar; arguments, cost and refusals as in `condition`.
        """
        linear = read_model(model, y, self._means[0].reshape(self.event_shape))
        return self._log_evidences(linear).logsumexp(0)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._posterior(x, sigma)[0]

    def _score(self, x: Tensor, sigma: Tensor) -> Tensor:
        mixture = self.like(x)
        s2 = self._positive(sigma.flatten() ** 2)
        turned, c = mixture._rotated(x)
        r = mixture._log_joint(turned, c, s2).softmax(-1)
        each = mixture._rotate_back(turned / (c + s2.reshape(-1, 1, 1)))
        return -(r.unsqueeze(-1) * each).sum(1).reshape(x.shape)

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        x0, r, apart, gain = self._posterior(x, sigma)
        mixture = self.like(x)
        s2 = sigma.reshape(-1, 1) ** 2
        weighted = r.unsqueeze(-1) * apart

        def product(v: Tensor) -> Tensor:
            flat = v.reshape(v.shape[0], 1, -1)
            turned = mixture._rotate(flat.expand(-1, r.shape[1], -1))
            # sum_k r_k Cov_k v; the rotations back differ from component to component.
            within = mixture._rotate_back(r.unsqueeze(-1) * gain * turned).sum(1)
            between = (weighted * (apart * flat).sum(-1, keepdim=True)).sum(1)
            total = s2 * within + torch.where(s2 > 0, between, torch.zeros_like(between))
            return total.reshape(v.shape)

        return x0, product

    def _posterior(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """D (B, *event), r (B, K), D_k - D (B, K, D), and C_k (C_k + s2)^-1 in eigenvectors."""
        mixture = self.like(x)
        s2 = sigma.flatten() ** 2
        # At sigma = 0 the answer is x; the formulas are kept finite there.
        safe = torch.where(s2 > 0, s2, torch.ones_like(s2))
        turned, c = mixture._rotated(x)
        gain = c / (c + safe.reshape(-1, 1, 1))
        r = mixture._log_joint(turned, c, safe).softmax(-1)
        each = mixture._means + mixture._rotate_back(gain * turned)
        x0 = (r.unsqueeze(-1) * each).sum(1)
        out = torch.where((s2 > 0).reshape(sigma.shape), x0.reshape(x.shape), x)
        return out, r, each - x0.unsqueeze(1), gain

    def _rotated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x - m_k in the eigenvectors of C_k, (B, K, D), and the eigenvalues."""
        flat = x.reshape(x.shape[0], 1, self.size)
        return self._rotate(flat - self._means), self._eigenvalues

    def _log_joint(self, turned: Tensor, c: Tensor, s2: Tensor) -> Tensor:
        """log w_k N(x; m_k, C_k + s2 I), (B, K), for s2 (B,) > 0."""
        variance = (c + s2.reshape(-1, 1, 1)).expand(
            *torch.broadcast_shapes(turned.shape, (s2.numel(), *c.shape))
        )
        terms = turned**2 / variance + variance.log()
        return self._weights.log() - (terms.sum(-1) + self.size * math.log(2 * math.pi)) / 2

    def _rotate(self, v: Tensor) -> Tensor:
        """Q_k^T v_k for v (B, K, D)."""
        return v if self._basis is None else _each(v, self._basis)

    def _rotate_back(self, v: Tensor) -> Tensor:
        return v if self._basis is None else _each(v, self._basis.mT)

    def _positive(self, s2: Tensor) -> Tensor:
        if self._smallest + float(s2.min()) <= 0:
            raise ValueError(
                "a component's covariance is singular (smallest eigenvalue 0), so there is no "
                "density at sigma = 0; give sigma > 0"
            )
        return s2

    def _log_evidences(self, linear: Any) -> Tensor:
        each = [
            log_evidence(m, C, linear) for m, C in zip(self._means, self.covariances, strict=True)
        ]
        return self._weights.log() + torch.stack(each)

    def _total_variance(self) -> float:
        count, size = self._means.shape
        within = self._eigenvalues.expand(count, size).sum(-1)
        between = (self._means - self._mean).square().sum(-1)
        return float((self._weights * (within + between)).sum())

    @property
    def _mean(self) -> Tensor:
        return self._weights @ self._means

    @cached_property
    def _moments_covariance(self) -> Covariance:
        """The covariance of the whole mixture; of rank K and a multiple of I for variances."""
        if self._basis is None:
            factor = self._weights.sqrt().unsqueeze(-1) * (self._means - self._mean)
            within = self._weights @ self._eigenvalues.expand(self._means.shape[0], 1)
            return LowRank(factor.mT, within)
        return Dense(self.moments()[1])

    def _decompose(self, covariances: Tensor | float) -> tuple[Tensor, Tensor | None]:
        shape, (count, size) = tuple(torch.as_tensor(covariances).shape), self._means.shape
        if shape in ((), (count,)):
            variances = constant(covariances, "the variances").reshape(-1, 1)
            check_nonnegative(variances, "a variance")
            return variances, None
        if shape not in ((size, size), (count, size, size)):
            raise ValueError(
                f"covariances must be a variance, ({count},) variances, a matrix ({size}, {size}) "
                f"or ({count}, {size}, {size}); got shape {shape}"
            )
        values, basis = eigendecomposition(torch.as_tensor(covariances))
        return (values[None], basis) if len(shape) == 2 else (values, basis)


def check_weights(weights: Tensor, count: int) -> Tensor:
    """Probabilities (count,) in float64; refused if negative or not adding up to 1."""
    probabilities = constant(weights, "the weights")
    if tuple(probabilities.shape) != (count,):
        raise ValueError(f"weights must have shape ({count},), got {tuple(probabilities.shape)}")
    check_nonnegative(probabilities, "a weight")
    total = float(probabilities.sum())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the weights must add up to 1, got {total:.8g}; divide by their sum")
    return probabilities / total


def _each(v: Tensor, basis: Tensor) -> Tensor:
    """v_k B_k for v (B, K, D) and one B (D, D) or K of them."""
    return v @ basis if basis.ndim == 2 else torch.einsum("bkd,kde->bke", v, basis)
