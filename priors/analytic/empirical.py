"""The empirical prior: a data set as a distribution, each sample an atom.

    D(x, sigma) = sum_i r_i x_i,   r = softmax_i(log w_i - ||x - x_i||^2 / (2 sigma^2)),
    Cov[x0 | x] = sum_i r_i (x_i - D)(x_i - D)^T.

It is what a diffusion model that fits its training set perfectly would know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor

from ..prior import CovarianceProduct, Prior
from .components import check_weights
from .covariance import noise_range
from .parameters import check_count, private_generator

_CHUNK = 2**22


@final
class Empirical(Prior):
    """N stored samples as a prior: exact denoiser, covariance and noisy density.

    Args:
        dataset: x_i, (N, *event), floating point; kept as given, not copied.
        weights: w_i (N,), >= 0, adding up to 1; equal by default.
        data_range: (low, high) of the user's units, where the data have one.

    Costs O(B N D) for each call and product. Besides the (B, N) weights no more than a few
    million values are held at once. Distances are taken in float64, so that small noise levels
    come out right in float32 too.

    Raises:
        TypeError, ValueError: a dataset that is not floating point, finite and (N, *event).
    """

    exact_covariance = True

    def __init__(
        self,
        dataset: Tensor,
        weights: Tensor | None = None,
        *,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        if not isinstance(dataset, Tensor) or not dataset.is_floating_point():
            kind = dataset.dtype if isinstance(dataset, Tensor) else type(dataset).__name__
            raise TypeError(f"the dataset must be a floating tensor, got {kind}")
        if dataset.ndim < 1 or dataset.shape[0] < 1:
            raise ValueError(f"the dataset must have shape (N, *event), got {tuple(dataset.shape)}")
        if not bool(torch.isfinite(dataset).all()):
            bad = int((~torch.isfinite(dataset)).sum())
            raise ValueError(f"the dataset must be finite; {bad} values are not")
        self.dataset = dataset.detach()
        self.event_shape = tuple(dataset.shape[1:])
        self.size = math.prod(self.event_shape)
        self.data_range = data_range
        count = dataset.shape[0]
        equal = torch.full((count,), 1 / count, dtype=torch.float64)
        self._weights = equal if weights is None else check_weights(weights, count)
        self._weights = self._weights.to(dataset.device)
        self._mean, self._variance = self._diagonal_moments()
        self._norms = torch.cat(
            [(part.double() - self._mean).square().sum(-1) for _, part in self._parts()]
        )
        spread = math.sqrt(float(self._weights @ self._norms))
        self.scale = spread / math.sqrt(self.size)
        self.sigma_range = noise_range(self.scale, float(self._norms.max().sqrt()))

    @property
    def weights(self) -> Tensor:
        """w_i, (N,), in float64."""
        return self._weights

    @property
    def mean(self) -> Tensor:
        """E[x0], (*event)."""
        return self._mean.reshape(self.event_shape).to(self.dataset.dtype)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (*event) and dense covariance (D, D) of the data, in float64."""
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.dataset.device)
        for where, part in self._parts():
            centred = part.double() - self._mean
            total += (self._weights[where, None] * centred).mT @ centred
        return self._mean.reshape(self.event_shape), total

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log p_sigma(x) in nats, (B,), for sigma > 0: atoms have no density without noise."""
        self.check_input(x)
        level = self.check_sigma(sigma, x)
        if bool((level == 0).any()):
            raise ValueError("a data set has a density only with noise added; give sigma > 0")
        s2 = level.reshape(-1, 1).double() ** 2
        centred = x.reshape(x.shape[0], -1).double() - self._mean.to(x.device)
        joint = self._log_joint(centred, s2).logsumexp(-1)
        distance = (centred.square() / s2).sum(-1)
        constant = self.size * (2 * math.pi * s2.squeeze(-1)).log()
        return (joint - (distance + constant) / 2).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n stored samples (n, *event), chosen at random with replacement.

        From a private generator, seeded by the system, if None.
        """
        source = private_generator(generator)
        u = torch.rand(check_count(n), generator=source, device=source.device, dtype=torch.float64)
        return self._choose(u)

    def transform(self, eps: Tensor, u: Tensor) -> Tensor:
        """Uniform numbers u (n,) as exact draws, row by row; eps gives only dtype and device."""
        return self._choose(u).to(eps)

    def _choose(self, u: Tensor) -> Tensor:
        """The stored samples at the places u (n,) of the cumulative weights, (n, *event)."""
        cumulative = self._weights.cumsum(0)
        chosen = torch.searchsorted(cumulative, u.to(cumulative) * cumulative[-1], right=True)
        return self.dataset[chosen.clamp(max=self.dataset.shape[0] - 1)]

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        """A draw from the Gaussian with p_sigma's mean and the variance of each of its values.

        Correlations between values are left out: exact as sigma grows, with a relative error
        O(C / sigma^2).
        """
        std = (self._variance.to(eps) + sigma**2).sqrt()
        return (self._mean.to(eps) + std * eps.reshape(eps.shape[0], -1)).reshape(eps.shape)

    def condition(self, model: Any, y: Tensor) -> Empirical:
        """The exact posterior under any forward model: the same atoms, w_i p(y | x_i) as weights.

        Args:
            model: anything with log_likelihood(y, x) -> (B,); it need not be linear or Gaussian.
            y: one measurement, as the model takes it.
        """
        log_weights = self._weights.log() + self._log_likelihoods(model, y)
        if not bool((log_weights > -math.inf).any()):
            raise ValueError("y has probability 0 under every stored sample")
        posterior = log_weights.softmax(0)
        return Empirical(self.dataset, posterior, data_range=self.data_range)

    def log_evidence(self, model: Any, y: Tensor) -> Tensor:
        """log p(y) = log sum_i w_i p(y | x_i), a float64 scalar."""
        return (self._weights.log() + self._log_likelihoods(model, y)).logsumexp(0)

    def _particulars(self) -> dict[str, Any]:
        return {"images": len(self.dataset)}

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._average(self._responsibilities(x, sigma), x, sigma)

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        r = self._responsibilities(x, sigma)
        x0 = self._average(r, x, sigma)
        centre = x0.reshape(x.shape[0], -1)

        def product(v: Tensor) -> Tensor:
            flat = v.reshape(v.shape[0], -1)
            total = torch.zeros_like(flat)
            for where, part in self._parts():
                atoms = part.to(flat)
                along = flat @ atoms.mT - (centre * flat).sum(-1, keepdim=True)
                weighted = r[:, where] * along
                total = total + weighted @ atoms - weighted.sum(-1, keepdim=True) * centre
            return torch.where(sigma > 0, total.reshape(v.shape), torch.zeros_like(v))

        return x0, product

    def _responsibilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        """r_i, (B, N), at the dtype of x."""
        s2 = sigma.reshape(-1, 1).double() ** 2
        safe = torch.where(s2 > 0, s2, torch.ones_like(s2))
        centred = x.reshape(x.shape[0], -1).double() - self._mean.to(x.device)
        return self._log_joint(centred, safe).softmax(-1).to(x.dtype)

    def _average(self, r: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        total = torch.zeros_like(x).reshape(x.shape[0], -1)
        for where, part in self._parts():
            total = total + r[:, where] @ part.to(x)
        return torch.where(sigma > 0, total.reshape(x.shape), x)

    def _log_joint(self, centred: Tensor, s2: Tensor) -> Tensor:
        """log w_i - (||x_i||^2 / 2 - x . x_i) / s2 about the mean: (B, N), float64.

        The log of w_i N(x; x_i, s2 I) up to a term that all atoms share.
        """
        device = centred.device
        overlap = torch.cat(
            [centred @ (part.double() - self._mean).to(device).mT for _, part in self._parts()], -1
        )
        return self._weights.log().to(device) + (overlap - self._norms.to(device) / 2) / s2

    def _parts(self) -> Iterator[tuple[slice, Tensor]]:
        """The atoms (n, D) in pieces of bounded size, with their places."""
        flat = self.dataset.reshape(self.dataset.shape[0], -1)
        step = max(1, _CHUNK // self.size)
        for start in range(0, flat.shape[0], step):
            where = slice(start, min(start + step, flat.shape[0]))
            yield where, flat[where]

    def _diagonal_moments(self) -> tuple[Tensor, Tensor]:
        mean = sum(self._weights[where] @ part.double() for where, part in self._parts())
        assert isinstance(mean, Tensor)
        variance = sum(
            self._weights[where] @ (part.double() - mean).square() for where, part in self._parts()
        )
        assert isinstance(variance, Tensor)
        return mean, variance

    def _log_likelihoods(self, model: Any, y: Tensor) -> Tensor:
        if not callable(getattr(model, "log_likelihood", None)):
            raise TypeError(
                "conditioning a data set needs a forward model with log_likelihood(y, x); got "
                f"{type(model).__name__}"
            )
        parts = []
        with torch.no_grad():
            for _, part in self._parts():
                parts.append(model.log_likelihood(y, part.reshape(-1, *self.event_shape)).double())
        values = torch.cat(parts)
        if bool(values.isnan().any()):
            raise ValueError(f"the forward model gave {int(values.isnan().sum())} values of NaN")
        return values
