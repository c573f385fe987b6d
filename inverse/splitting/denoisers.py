"""How a splitting method gets a clean image from a noisy one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from forward_models.linear.solvers import per_sample
from priors import karras

from ..checks import positive, whole
from ..samplers import Ancestral, Multistep
from ..samplers.sampler import Noise, Past, Sampler
from .problem import Problem


class Denoiser(ABC):
    """x at level sigma to a clean image, under the prior (and factors that are exact in noise).

    Attributes:
        calls: network calls.
        draws: unit noises that it takes.
    """

    draws: int = 0

    @property
    @abstractmethod
    def calls(self) -> int: ...

    @abstractmethod
    def __call__(self, problem: Problem, x: Tensor, sigma: float, eps: Noise) -> Tensor:
        """The clean image, (B, *event)."""


@final
@dataclass(frozen=True)
class Mean(Denoiser):
    """E[x0 | x]: one network call."""

    calls = 1  # type: ignore[assignment]

    def __call__(self, problem: Problem, x: Tensor, sigma: float, eps: Noise) -> Tensor:
        return problem.prior.denoise(x, sigma)


@dataclass(frozen=True)
class _Walk(Denoiser):
    """A sampler's run from sigma to 0, over the levels of Karras et al. between.

    Args:
        steps: network calls, >= 1.
    """

    steps: int

    def __post_init__(self) -> None:
        whole(self.steps, "steps")

    @property
    def calls(self) -> int:
        return self.steps

    @abstractmethod
    def _sampler(self, levels: Tensor) -> Sampler: ...

    def __call__(self, problem: Problem, x: Tensor, sigma: float, eps: Noise) -> Tensor:
        # Near the prior's lowest level the grid still needs some length.
        low = min(problem.prior.sigma_range[0], sigma / 2)
        sampler = self._sampler(karras(self.steps, (low, sigma)))
        past: Past = ()
        for k, (level, level_next) in enumerate(pairwise(sampler.path.tolist())):
            x, x0 = sampler._step(problem.prior, x, level, level_next, partial(eps, k), past)
            past = ((level, x0), *past)[: sampler.memory]
        return x


@final
@dataclass(frozen=True)
class FlowODE(_Walk):
    """The end of the probability-flow ODE from x, by Euler's steps: a point of the prior.

    Each x has one end, so what p(x0 | x) has of spread is lost: a splitting that takes it for a
    draw of p(x0 | x) is biased (DAPS says by how much on a Gaussian).
    """

    def _sampler(self, levels: Tensor) -> Sampler:
        return Ancestral(levels, eta=0.0)


@final
@dataclass(frozen=True)
class ReverseSDE(_Walk):
    """A draw of p(x0 | x), exact as `steps` grow: weak order 2, by `Multistep`."""

    @property
    def draws(self) -> int:  # type: ignore[override]
        return self.steps

    def _sampler(self, levels: Tensor) -> Sampler:
        return Multistep(levels)


@final
@dataclass(frozen=True)
class Optimised(Denoiser):
    """D(v) for the network's input v near x whose denoised image explains y (SITCOM):

        v = argmin -log p(y | D(v)) + lam |v - x|^2 / (2 sigma^2),

    by Adam from v = x, until the residual is that of the noise (`misfit` <= 1, each sample by
    itself). The paper's first term is |y - A D(v)|^2; here the noise weighs it, so that other
    forward models have one, too. One network call and one vector-Jacobian product an iteration,
    and a call for the last D(v).

    Args:
        iterations: of Adam. lam: > 0. rate: Adam's step, in units of sqrt(scale^2 + sigma^2).
    Raises:
        TypeError: a forward model without a gradient.

    Paper: Alkhouri et al., "SITCOM: Step-wise Triple-Consistent Diffusion Sampling for Inverse
    Problems", 2024, https://arxiv.org/abs/2410.04479
    """

    iterations: int = 20
    lam: float = 1.0
    rate: float = 0.01

    def __post_init__(self) -> None:
        whole(self.iterations, "iterations")
        positive(self.lam, "lam")
        positive(self.rate, "rate")

    @property
    def calls(self) -> int:
        return self.iterations + 1

    def __call__(self, problem: Problem, x: Tensor, sigma: float, eps: Noise) -> Tensor:
        v, first, second = x, torch.zeros_like(x), torch.zeros_like(x)
        rate = self.rate * math.sqrt(problem.prior.scale**2 + sigma**2)
        for k in range(1, self.iterations + 1):
            x0, product = problem.prior.covariance(v, sigma)
            if not bool(torch.isfinite(x0).all()):
                return x0
            _, rising = problem.gradient(x0)
            slope = (self.lam * (v - x) - product(rising)) / sigma**2
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope**2
            step = first / (1 - 0.9**k) / ((second / (1 - 0.999**k)).sqrt() + 1e-8)
            going = per_sample(~problem.explained(x0), x)
            v = torch.where(going, v - rate * step, v)
        return problem.prior.denoise(v, sigma)
