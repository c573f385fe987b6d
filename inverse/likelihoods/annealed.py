"""The annealed likelihood: y compared with A x itself, its variance raised with the noise."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import LinearGaussian

from ..checks import positive
from .likelihood import Likelihood, Moments


@final
class ScoreALD(Likelihood):
    """log N(y; A x, S + gamma_sigma^2 I), evaluated at the noisy x and not at its denoised image:

        shift = sigma^2 A^T (y - A x) / (S + gamma_sigma^2),     gamma_sigma = gamma |A| sigma.

    Given x0, y - A x has the covariance S + sigma^2 A A^T, which this is where A A^T = |A|^2 I and
    gamma = 1; but the noise of x is then counted as if it told nothing of x0. Not a posterior score
    at any noise level; it tends to the likelihood as sigma falls. With gamma >= 1 the Langevin
    steps that the prior allows stay stable.

    Cost: one product with A and one with its adjoint; no network call, no vector-Jacobian product.

    Args:
        model, y: a LinearGaussian forward model and its measurement.
        gamma: > 0.

    Raises:
        TypeError: another forward model. ValueError: gamma out of range.

    Paper: Jalal et al., "Robust Compressed Sensing MRI with Deep Generative Priors", 2021,
    https://arxiv.org/abs/2108.01368
    """

    def __init__(self, model: LinearGaussian, y: Tensor, gamma: float = 1.0) -> None:
        if not isinstance(model, LinearGaussian):
            raise TypeError(
                f"ScoreALD needs a LinearGaussian model, got {type(model).__name__}; "
                "MonteCarloLift serves any differentiable one"
            )
        self.model, self.y, self.gamma = model, y, positive(gamma, "gamma")
        self._operator_norm: float | None = None

    def shift(self, moments: Moments) -> Tensor:
        residual = self.model.residual(self.y, moments.x)
        added = self._added(moments).reshape(-1, *[1] * (residual.ndim - 1))
        noise = self.model.noise_variance
        noise = torch.as_tensor(noise, dtype=added.dtype, device=added.device)
        return moments.sigma**2 * self.model.operator.adjoint(residual / (noise + added))

    def log_likelihood(self, moments: Moments) -> Tensor:
        values = []
        for i, added in enumerate(self._added(moments).tolist()):
            widened = LinearGaussian(
                self.model.operator, (self.model.noise_variance + added) ** 0.5
            )
            own = self.y if self.y.shape[0] == 1 else self.y[i : i + 1]
            values.append(widened.log_likelihood(own, moments.x[i : i + 1]))
        return torch.cat(values)

    def _added(self, moments: Moments) -> Tensor:
        """gamma_sigma^2, (B,)."""
        if self._operator_norm is None:
            shape, A = tuple(moments.x.shape[1:]), self.model.operator
            if shape:
                self._operator_norm = A.norm(shape, iterations=50, tolerance=1e-3)
            else:  # of one number A is its own norm
                self._operator_norm = float(A.apply(torch.ones_like(moments.x[:1])).abs())
        level = moments.sigma.flatten().expand(len(moments.x))
        return (self.gamma * self._operator_norm * level).square()
