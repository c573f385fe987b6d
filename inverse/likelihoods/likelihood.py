"""p_sigma(y | x) = E[p(y | x0) | x]: a measurement, seen from every noise level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from priors import Prior

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cost:
    """What a likelihood costs at one noise level, beside the one network call that denoises x.

    Attributes:
        network_calls: further evaluations of the prior's network, for each sample.
        products: vector-Jacobian products of the network, at most.
    """

    network_calls: int = 0
    products: int = 0


@dataclass(frozen=True)
class Moments:
    """What a prior says of x0 given x; made by one network call and shared by all likelihoods.

    Attributes:
        x: (B, *event) the noisy state.
        sigma: (B, 1, ..., 1) its noise level.
        x0: (B, *event) E[x0 | x].
        product: v -> Cov[x0 | x] v, one vector-Jacobian product each; None unless a likelihood
            asked for it.
        exact: whether the product is in closed form, so that many cost little.
        prior: the prior they come from, for likelihoods that ask it more.
    """

    x: Tensor
    sigma: Tensor
    x0: Tensor
    product: Product | None = None
    exact: bool = False
    prior: Prior | None = None

    def covariance(self, v: Tensor) -> Tensor:
        """Cov[x0 | x] v, (B, *event)."""
        if self.product is None:
            raise RuntimeError("this likelihood did not declare needs_covariance")
        return self.product(v)

    def covariances(self, v: Tensor) -> Tensor:
        """Cov[x0 | x] v_p for P batches v, (P, B, *event); P products, at once where that pays."""
        many = getattr(self.product, "many", None)
        return torch.stack([self.covariance(row) for row in v]) if many is None else many(v)


class Likelihood(ABC):
    """A forward model and its measurement at every noise level.

    A likelihood answers with the shift of the denoised image that the measurement causes,

        shift = sigma^2 grad_x log p_sigma(y | x) = E[x0 | x, y] - E[x0 | x],

    so that posteriors add shifts, and no algorithm divides by a small sigma^2.
    """

    needs_covariance: bool = False
    """Whether `shift` uses Cov[x0 | x]."""

    def needs_covariance_at(self, sigma: Tensor) -> bool:
        """Whether it does at any of these noise levels."""
        return self.needs_covariance

    @property
    def weighs_with_covariance(self) -> bool:
        """Whether `log_likelihood` uses it."""
        return self.needs_covariance

    @abstractmethod
    def shift(self, moments: Moments) -> Tensor:
        """sigma^2 grad_x log p_sigma(y | x), (B, *event)."""

    @abstractmethod
    def log_likelihood(self, moments: Moments) -> Tensor:
        """log p_sigma(y | x) as this approximation has it, (B,)."""

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """`shift` and `log_likelihood` together; cheaper where they share a solve."""
        return self.shift(moments), self.log_likelihood(moments)

    @property
    def cost(self) -> Cost:
        """What `shift` costs where the denoiser is a network."""
        return Cost(products=1 if self.needs_covariance else 0)

    @property
    def density_cost(self) -> Cost:
        """What `log_likelihood` adds to that, in `evaluate`; alone it costs no more than both."""
        return Cost()

    @property
    def prepared_calls(self) -> int:
        """Network calls made so far, in all, to prepare what serves every state."""
        return 0

    def exact_at(self, sigma: float) -> bool:
        """Whether unguided steps from this noise level carry p_sigma(x) exp(log_likelihood) to the
        posterior: p_sigma(y | x) is exact there, or stands for it after noise."""
        return False
