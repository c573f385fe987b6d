"""Noise schedules: pairs (alpha(t), sigma(t)).

Every diffusion dx_t = f(t) x_t dt + g(t) dw has x_t = alpha(t) (x0 + sigma(t) eps) with
alpha = exp(int f) and sigma^2 = int g^2 / alpha^2. Dividing by alpha gives the coordinate in which
everything else here is written; a schedule only scales a pretrained network's input and places
a solver's steps.

Paper: Song et al., "Score-Based Generative Modeling through SDEs", 2021, https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

_TINY = 1e-300


class Schedule(ABC):
    """alpha(t) and sigma(t) for t in [0, 1], sigma increasing; t(sigma) is its inverse.

    x_t = alpha (x0 + sigma eps): sigma is std(noise) / alpha, not the std(noise) that papers often
    write, which is alpha sigma.

    All three take floats or tensors of any shape and compute in float64.
    """

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """Scale of the signal at time t: x_t = alpha * (x0 + sigma * eps)."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """Noise level at time t, relative to the signal: std(noise) / alpha."""

    @abstractmethod
    def t(self, sigma: Tensor | float) -> Tensor:
        """The time at which the noise level is sigma."""

    def drift(self, t: Tensor | float) -> Tensor:
        """f = d log alpha / dt of the diffusion dx = f x dt + g dw; exact, by differentiation."""
        return _derivative(lambda time: self.alpha(time).log(), t)

    def diffusion(self, t: Tensor | float) -> Tensor:
        """g^2 = alpha^2 d sigma^2 / dt of the diffusion; exact, by differentiation."""
        return self.alpha(t) ** 2 * _derivative(lambda time: self.sigma(time) ** 2, t)

    def levels(self, steps: int, sigma_range: tuple[float, float]) -> Tensor:
        """steps + 1 decreasing noise levels, uniform in t between the two of sigma_range, then 0.

        The last interval leads from sigma_range[0] to 0, so that `steps` network calls end at a
        clean image.
        """
        low, high = check_grid(steps, sigma_range)
        times = torch.linspace(float(self.t(high)), float(self.t(low)), steps, dtype=torch.float64)
        inner = self.sigma(times)
        inner[0], inner[-1] = high, low if steps > 1 else high
        return torch.cat([inner, torch.zeros(1, dtype=torch.float64)])


def _derivative(of: Callable[[Tensor], Tensor], t: Tensor | float) -> Tensor:
    with torch.enable_grad():
        time = _double(t).detach().requires_grad_()
        value = of(time)
        if not value.requires_grad:  # constant
            return torch.zeros_like(value)
        return torch.autograd.grad(value.sum(), time)[0]


def _double(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


class VE(Schedule):
    """Variance exploding: alpha = 1, sigma geometric from sigma_min to sigma_max."""

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min}, {sigma_max}")
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(_double(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** _double(t)

    def t(self, sigma: Tensor | float) -> Tensor:
        ratio = torch.log(_double(sigma).clamp(min=_TINY) / self.sigma_min)
        return ratio / math.log(self.sigma_max / self.sigma_min)


class VP(Schedule):
    """Variance preserving, beta linear: alpha^2 (1 + sigma^2) = 1."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < beta_min < beta_max < math.inf:
            raise ValueError(f"need 0 < beta_min < beta_max, got {beta_min}, {beta_max}")
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)

    def _integral(self, t: Tensor | float) -> Tensor:
        time = _double(t)
        return self.beta_min * time + (self.beta_max - self.beta_min) * time**2 / 2

    def _time(self, integral: Tensor) -> Tensor:
        # The root of beta_min t + (beta_max - beta_min) t^2 / 2, written without cancellation.
        delta = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * delta * integral))

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(torch.expm1(self._integral(t)))

    def t(self, sigma: Tensor | float) -> Tensor:
        return self._time(torch.log1p(_double(sigma) ** 2))


class SubVP(VP):
    """Sub-VP: the signal of VP with the smaller noise std(noise) = 1 - alpha^2."""

    def sigma(self, t: Tensor | float) -> Tensor:
        # (1 - alpha^2) / alpha = 2 sinh(integral / 2)
        return 2 * torch.sinh(self._integral(t) / 2)

    def t(self, sigma: Tensor | float) -> Tensor:
        return self._time(2 * torch.asinh(_double(sigma) / 2))


class Cosine(Schedule):
    """Cosine: alpha = cos(angle) / cos(angle at t = 0), variance preserving.

    t = 1 is held a hair before the angle pi / 2, where sigma would be infinite.

    Paper: Nichol and Dhariwal, "Improved DDPM", 2021, https://arxiv.org/abs/2102.09672
    """

    def __init__(self, offset: float = 0.008) -> None:
        if not 0 < offset < 1:
            raise ValueError(f"offset must lie in (0, 1), got {offset}")
        self.offset = float(offset)
        self._start = math.cos(offset / (1 + offset) * math.pi / 2)

    def alpha(self, t: Tensor | float) -> Tensor:
        time = _double(t) * (1 - 1e-4)
        return torch.cos((time + self.offset) / (1 + self.offset) * math.pi / 2) / self._start

    def sigma(self, t: Tensor | float) -> Tensor:
        alpha = self.alpha(t)
        return torch.sqrt((1 / alpha**2 - 1).clamp(min=0))

    def t(self, sigma: Tensor | float) -> Tensor:
        alpha = torch.rsqrt(1 + _double(sigma) ** 2)
        angle = torch.arccos((alpha * self._start).clamp(max=1))
        return (angle * 2 / math.pi * (1 + self.offset) - self.offset) / (1 - 1e-4)


class Flow(Schedule):
    """Rectified flow: x_t = (1 - t) x0 + t eps, so alpha = 1 - t and sigma = t / (1 - t).

    Paper: Liu et al., "Flow Straight and Fast", 2022, https://arxiv.org/abs/2209.03003
    """

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - _double(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        time = _double(t)
        return time / (1 - time)

    def t(self, sigma: Tensor | float) -> Tensor:
        level = _double(sigma)
        return level / (1 + level)


def check_grid(steps: int, sigma_range: tuple[float, float]) -> tuple[float, float]:
    """The two levels, or ValueError for them or for steps below 1."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    low, high = map(float, sigma_range)
    if not 0 < low < high < math.inf:
        raise ValueError(f"sigma_range must be (low, high) with 0 < low < high, got {sigma_range}")
    return low, high
