"""What a prior is trained to minimise: its denoising error, estimated in several ways.

For x = x0 + sigma eps and any denoiser D, with score s_D = (D - x) / sigma^2 and s the data's,

    E |D - x0|^2 = sigma^4 E |s_D - s|^2 + E tr Cov[x0 | x].

The last term knows nothing of D, so to minimise the error is to minimise the Fisher divergence
E |s_D - s|^2, at whose zero D = E[x0 | x]. Denoising, sliced and exact score matching are
unbiased estimates of this one number: they differ in cost, in variance, and in whether they look
at x0 or at x alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ...analytic.parameters import unit_noise
from ...prior import Prior, event_size
from ..noise_levels import NoiseLevels, check_generator
from .weighting import Weighting


class Objective(ABC):
    """The weighted denoising error per value, w(sigma) |D(x, sigma) - x0|^2 / n, or an estimate.

    Args:
        weighting: w, by name: uniform, score, edm, flow, min-snr or likelihood (see `Weighting`).
        sigma_data: standard deviation of one value of x0 in the prior's units, for edm, flow and
            min-snr; None takes the prior's `scale`.
        gamma: for min-snr.
        levels: the density of the noise levels, for likelihood.

    An objective sees a Prior and nothing else. Authors write `_error`, in which every sample's
    error is its own.
    """

    def __init__(
        self,
        weighting: str,
        *,
        sigma_data: float | None = None,
        gamma: float = 5.0,
        levels: NoiseLevels | None = None,
    ) -> None:
        self.weighting = Weighting(weighting, sigma_data=sigma_data, gamma=gamma, levels=levels)

    def __call__(
        self, prior: Prior, x0: Tensor, sigma: Tensor | float, generator: torch.Generator
    ) -> Tensor:
        """The loss of each sample, (B,), differentiable in the weights of the prior's network.

        Args:
            prior: any Prior; its network must not have its gradients switched off.
            x0: (B, *event), clean samples in data units.
            sigma: noise levels, scalar or (B,), > 0, data units.
            generator: from which the noise (and the slices) are drawn.
        Raises:
            TypeError, ValueError: naming what came and what was expected.
        """
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
        check_generator(generator)
        prior.check_input(x0)
        level = prior.check_sigma(sigma, x0, positive=True)
        x = x0 + level * unit_noise(tuple(x0.shape), generator, x0)
        error = self._error(prior, x0, x, level, generator) / event_size(tuple(x0.shape[1:]))
        return self.weighting(level.flatten(), prior.scale) * error

    @abstractmethod
    def _error(
        self, prior: Prior, x0: Tensor, x: Tensor, sigma: Tensor, generator: torch.Generator
    ) -> Tensor:
        """(B,): an unbiased estimate of |D(x, sigma) - x0|^2; sigma (B, 1, ..., 1)."""


def squared_norm(v: Tensor) -> Tensor:
    """|v|^2 of each sample, (B,)."""
    return v.square().reshape(v.shape[0], -1).sum(-1)


def inner(u: Tensor, v: Tensor) -> Tensor:
    """u . v of each sample, (B,)."""
    return (u * v).reshape(u.shape[0], -1).sum(-1)
