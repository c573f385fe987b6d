"""Optimising the noise that a deterministic map turns into an image."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from priors import Prior

from ..checks import flag, whole
from ..samplers.sampler import check_levels
from .misfit import Misfit
from .variational_method import Look, VariationalMethod


class InitialNoise(VariationalMethod):
    """min over z of a loss of F(z), with F(z) the end of a few steps of the probability-flow ODE

        x_0 = c + (sigma_0^2 + scale^2)^(1/2) z,      x_k+1 = step(x_k, sigma_k, sigma_k+1),

    c being the centre of the prior. Every image that is tried is one that the prior makes, as far
    as z looks like noise. The gradient goes through all steps of the map.

    Args:
        levels: (K + 1,) decreasing noise levels of the map, the last one 0.
        steps: evaluations of the loss and its gradient.
        recompute: whether the network's inner values are computed again for the gradient instead
            of kept: the memory of one network call, for twice the calls.
    """

    def __init__(
        self, levels: Tensor | Sequence[float], steps: int, recompute: bool = False
    ) -> None:
        self.levels = check_levels(levels)
        if float(self.levels[-1]) != 0:
            raise ValueError(f"the map needs a last level of 0, got {float(self.levels[-1])}")
        self.steps, self.recompute = whole(steps, "steps"), flag(recompute, "recompute")

    @property
    def path(self) -> Tensor:
        """Images are clean at every step."""
        return torch.zeros(self.steps + 1, dtype=torch.float64)

    @property
    def network_calls(self) -> int:
        return self.steps * self.map_calls * (2 if self.recompute else 1)

    @property
    @abstractmethod
    def map_calls(self) -> int:
        """Network calls of one map."""

    @abstractmethod
    def _advance(self, prior: Prior, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """x at sigma_next; differentiable in x."""

    @abstractmethod
    def _loss(self, misfit: Misfit, x: Tensor, z: Tensor) -> Tensor:
        """(B,) of images x = F(z)."""

    def generate(self, prior: Prior, z: Tensor) -> Tensor:
        """F(z), (B, *event); differentiable."""
        centre, spread = self._first(prior, z)
        x = centre + spread * z
        denoiser = Recomputed(prior) if self.recompute and x.requires_grad else prior
        for sigma, sigma_next in pairwise(self.levels.tolist()):
            x = self._advance(denoiser, x, sigma, sigma_next)
        return x

    def _first(self, prior: Prior, z: Tensor) -> tuple[Tensor, float]:
        """c and (sigma_0^2 + scale^2)^(1/2)."""
        sigma = float(self.levels[0])
        return prior.initial(torch.zeros_like(z), sigma), math.hypot(sigma, prior.scale)

    def _start(self, misfit: Misfit, eps: Tensor) -> Tensor:
        return eps

    def _look(self, misfit: Misfit, theta: Tensor, k: int, eps: Tensor) -> Look:
        with torch.enable_grad():
            z = theta.detach().requires_grad_()
            x = self.generate(misfit.posterior.prior, z)
            loss = self._loss(misfit, x, z)
            (gradient,) = torch.autograd.grad(loss.sum(), z)
        return Look(loss.detach(), gradient, x.detach())


class Recomputed(Prior):
    """A prior whose gradients are computed by denoising again."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.event_shape, self.data_range = prior.event_shape, prior.data_range
        self.sigma_range, self.scale = prior.sigma_range, prior.scale

    def accepts(self, event_shape: tuple[int, ...]) -> bool:
        return self.prior.accepts(event_shape)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        again: Tensor = checkpoint(
            self.prior.denoise, x, sigma.flatten(), use_reentrant=False, preserve_rng_state=False
        )
        return again
