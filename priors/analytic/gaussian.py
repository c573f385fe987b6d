"""The Gaussian prior x0 ~ N(m, C): everything about it is known at every noise level.

p_sigma(x) = N(x; m, C + sigma^2 I),       D(x, sigma) = m + C (C + sigma^2 I)^-1 (x - m),
score      = -(C + sigma^2 I)^-1 (x - m),  Cov[x0 | x] = sigma^2 C (C + sigma^2 I)^-1.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from ..prior import CovarianceProduct, Prior
from .conditioning import Update, condition
from .covariance import Covariance, as_covariance, noise_range, noise_variance
from .parameters import (
    Parameters,
    check_count,
    constant,
    floating_dtype,
    private_generator,
    unit_noise,
)


@final
class Gaussian(Parameters, Prior):
    """x0 ~ N(mean, covariance), exact at every noise level; the reference for every method.

    Args:
        mean: m, any event shape.
        covariance: a variance; variances of the event's shape; a matrix (D, D) with D the number
            of values in an event; or a `Covariance` (Circulant, Kronecker, LowRank,
            FactorAnalysis). It may be singular, but then there is no density at sigma = 0.
        data_range: (low, high) of the user's units, where the data have one.

    Attributes:
        C: the covariance, a `Covariance` (the method `covariance` is that of x0 given x).

    Costs what the covariance's own operations cost: O(B D) for a diagonal, O(B D^2) for a dense
    matrix, O(B D log D) for a stationary field; no derivative is taken. Computed at the dtype of
    x; decompositions in float64.

    Raises:
        ValueError: shapes that do not fit, a negative variance or eigenvalue, an asymmetric matrix.
    """

    exact_covariance = True

    def __init__(
        self,
        mean: Tensor,
        covariance: Covariance | Tensor | float,
        *,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        self._mean = constant(mean, "the mean")
        self.event_shape = tuple(self._mean.shape)
        self.C = as_covariance(covariance, self.event_shape)
        self.data_range = data_range
        self.dtype = floating_dtype(mean)
        self.sigma_range = noise_range(*self.C.std_range())
        self.scale = math.sqrt(self.C.trace() / self.C.size)

    @property
    def mean(self) -> Tensor:
        """E[x0], (*event)."""
        return self._mean.to(self.dtype)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (*event) and dense covariance (D, D), in float64."""
        return self._mean, self.C.dense().to(self._mean)

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log p_sigma(x) in nats, (B,): the density of x0 + sigma eps, exact.

        Raises ValueError at sigma = 0 where the covariance is singular.
        """
        self.check_input(x)
        s2 = noise_variance(self.check_sigma(sigma, x))
        residual = x - self.like(x)._mean
        distance = (residual * self.C.solve(residual, s2)).reshape(x.shape[0], -1).sum(-1)
        return -(distance + self.C.logdet(s2) + self.C.size * math.log(2 * math.pi)) / 2

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws (n, *event); from a private generator, seeded by the system, if None."""
        shape = (check_count(n), *self.event_shape)
        eps = unit_noise(shape, private_generator(generator), self._mean)
        return (self._mean + self.C.sqrt(eps)).to(self.dtype)

    def transform(self, eps: Tensor, u: Tensor) -> Tensor:
        """Unit noise eps (n, *event) as exact draws, row by row; u (n,) is not needed."""
        return self.initial(eps, 0.0)

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        """m + (C + sigma^2 I)^(1/2) eps: an exact draw from p_sigma at any noise level."""
        return self.like(eps)._mean + self.C.sqrt(eps, sigma**2)

    def condition(self, model: Any, y: Tensor) -> Gaussian:
        """The exact posterior p(x0 | y), a Gaussian again; condition on further data likewise.

            m' = m + K (y - A m),  C' = (I - K A) C,  K = C A^T (A C A^T + S)^-1

        Args:
            model: y = A x0 + N(0, S) noise, anything with an `operator` (A, linear, with
                `adjoint`) and a `noise_variance` S; entries of y outside `operator.measured`
                are no data. S = 0 is allowed where A C A^T is invertible.
            y: one measurement, (*measurement) or (1, *measurement).

        A mask costs O(D) over a diagonal covariance and O(D R^2) over LowRank and FactorAnalysis
        (with S > 0), whose posteriors keep that form. Otherwise A is built as a matrix (M, D);
        LowRank then costs O((D + R + M) (R + M)^2) while R + M < D, and all else, with C' as
        (D, D), O(D^3 + D^2 M + M^3). In float64.

        Raises:
            TypeError: the model is not linear-Gaussian. ValueError: y of the wrong shape, a problem
            too large for matrices, or A C A^T + S singular.
        """
        update = self._update(model, y)
        mean = update.mean.reshape(self.event_shape)
        posterior = Gaussian(mean, update.C, data_range=self.data_range)
        posterior.dtype = self.dtype
        return posterior

    def log_evidence(self, model: Any, y: Tensor) -> Tensor:
        """log p(y) = log N(y; A m, A C A^T + S) over the measured entries, a float64 scalar."""
        return self._update(model, y).log_evidence

    def _update(self, model: Any, y: Tensor) -> Update:
        return condition(self._mean.reshape(1, -1), [self.C], self.event_shape, model, y)[0]

    def _particulars(self) -> dict[str, Any]:
        return {"covariance": type(self.C)}

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        mean = self.like(x)._mean
        x0 = mean + self.C.shrink(x - mean, noise_variance(sigma))
        return torch.where(sigma > 0, x0, x)

    def _score(self, x: Tensor, sigma: Tensor) -> Tensor:
        return -self.C.solve(x - self.like(x)._mean, noise_variance(sigma))

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        s2 = noise_variance(sigma)
        return self._denoise(x, sigma), lambda v: sigma**2 * self.C.shrink(v, s2)
