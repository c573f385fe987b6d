"""Densities of the noise level from which training draws, one level for each image of a batch.

A density p(sigma) decides where the network's effort goes; it never changes what the best denoiser
is. A batch of n levels is stratified: level i is the quantile of a uniform number in [i, i + 1) / n
and the order is random, so that every batch sees the whole range and yet each level alone has
density p.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from ..analytic.parameters import check_count
from ..schedule import Schedule

_SLACK = 1e-6
"""Relative slack at the ends of a range: a float32 level may have been rounded past them."""


class NoiseLevels(ABC):
    """A density of sigma on [low, high], known by its quantiles.

    Attributes:
        sigma_range: (low, high) in the prior's units (those of its data), 0 < low < high.
    """

    def __init__(self, sigma_range: tuple[float, float]) -> None:
        low, high = map(float, sigma_range)
        if not 0 < low < high < math.inf:
            raise ValueError(
                f"sigma_range must be (low, high) with 0 < low < high, got {tuple(sigma_range)}"
            )
        self.sigma_range = (low, high)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n stratified levels in random order, (n,) float32, on the generator's device.

        Raises:
            ValueError: n is no integer >= 1. TypeError: no torch.Generator.
        """
        check_generator(generator)
        device = generator.device
        strata = torch.randperm(check_count(n), generator=generator, device=device)
        within = torch.rand(n, generator=generator, device=device)
        u = (strata.cpu().double() + within.cpu().double()) / n
        return self._quantile(u).clamp(*self.sigma_range).float().to(device)

    def log_density(self, sigma: Tensor) -> Tensor:
        """log p(sigma), p with respect to d sigma in the prior's units; -inf outside the range.

        Args:
            sigma: any shape, > 0. Returns the same shape and dtype; computed in float64.
        """
        level = torch.as_tensor(sigma).detach().double()
        low, high = self.sigma_range
        inside = (level >= low * (1 - _SLACK)) & (level <= high * (1 + _SLACK))
        log_p = torch.where(inside, self._log_density(level.clamp(low, high)), -math.inf)
        return log_p.to(torch.as_tensor(sigma).dtype)

    @abstractmethod
    def _quantile(self, u: Tensor) -> Tensor:
        """The level below which lies the share u (n,) of all levels; float64."""

    @abstractmethod
    def _log_density(self, sigma: Tensor) -> Tensor:
        """log p(sigma) within the range; float64."""


@final
class LogNormal(NoiseLevels):
    """log sigma ~ N(mean, std^2), conditioned on sigma_range.

    Args:
        mean, std: of log sigma before conditioning, sigma in the prior's units: a mean meant for
            network units becomes mean + log(data units per network unit).
        sigma_range: (low, high), the prior's units.

    Raises:
        ValueError: std <= 0, a bad range, or one that holds less than 1e-6 of the probability.

    Paper: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
    https://arxiv.org/abs/2206.00364 (mean -1.2, std 1.2 for data in [-1, 1])
    """

    def __init__(self, mean: float, std: float, sigma_range: tuple[float, float]) -> None:
        super().__init__(sigma_range)
        self.mean, self.std = float(mean), float(std)
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            raise ValueError(f"need a finite mean and std > 0 of log sigma, got {mean}, {std}")
        ends = torch.tensor(self.sigma_range, dtype=torch.float64).log()
        below = torch.special.ndtr((ends - self.mean) / self.std)
        self._below, self._mass = float(below[0]), float(below[1] - below[0])
        if self._mass < 1e-6:
            raise ValueError(
                f"sigma_range {self.sigma_range} holds a share {self._mass:.1e} of a log-normal "
                f"with mean {self.mean} and std {self.std} of log sigma; are both in one unit?"
            )

    def _quantile(self, u: Tensor) -> Tensor:
        return (self.mean + self.std * torch.special.ndtri(self._below + u * self._mass)).exp()

    def _log_density(self, sigma: Tensor) -> Tensor:
        z = (sigma.log() - self.mean) / self.std
        constant = math.log(self.std * self._mass) + math.log(2 * math.pi) / 2
        return -(z**2) / 2 - constant - sigma.log()


@final
class Geometric(NoiseLevels):
    """log sigma uniform on sigma_range: p(sigma) = 1 / (sigma log(high / low)).

    Paper: Song and Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution",
    2019, https://arxiv.org/abs/1907.05600
    """

    def _quantile(self, u: Tensor) -> Tensor:
        low, high = self.sigma_range
        return low * (high / low) ** u

    def _log_density(self, sigma: Tensor) -> Tensor:
        low, high = self.sigma_range
        return -sigma.log() - math.log(math.log(high / low))


@final
class UniformTime(NoiseLevels):
    """The time t of a schedule uniform: p(sigma) = (dt / d sigma) / (t(high) - t(low)).

    Args:
        schedule: VE, VP, SubVP, Cosine, Flow or any other; its sigma is std(noise) / alpha.
        sigma_range: (low, high), the prior's units, within the schedule's sigma(0) and sigma(1).
        unit: the prior's units per unit of the schedule, `NetworkPrior.unit`: schedules are made
            for the network's range of values.

    Raises:
        ValueError: a range that the schedule does not reach, or unit <= 0.

    Paper: Song et al., "Score-Based Generative Modeling through SDEs", 2021,
    https://arxiv.org/abs/2011.13456
    """

    def __init__(
        self, schedule: Schedule, sigma_range: tuple[float, float], unit: float = 1.0
    ) -> None:
        super().__init__(sigma_range)
        if not 0 < float(unit) < math.inf:
            raise ValueError(f"unit must be positive and finite, got {unit}")
        self.schedule, self.unit = schedule, float(unit)
        low, high = self.sigma_range
        first, last = float(schedule.sigma(0.0)) * unit, float(schedule.sigma(1.0)) * unit
        if low < first * (1 - _SLACK) or high > last * (1 + _SLACK):
            raise ValueError(
                f"sigma_range {self.sigma_range} must lie within the levels {first:.4g} to "
                f"{last:.4g} of {type(schedule).__name__} in the prior's units"
            )
        self._start = float(schedule.t(low / self.unit))
        self._length = float(schedule.t(high / self.unit)) - self._start

    def _quantile(self, u: Tensor) -> Tensor:
        return self.unit * self.schedule.sigma(self._start + u * self._length)

    def _log_density(self, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            level = (sigma / self.unit).requires_grad_()
            (slope,) = torch.autograd.grad(self.schedule.t(level).sum(), level)
        return slope.log() - math.log(self._length * self.unit)


def check_generator(generator: torch.Generator) -> None:
    """Refuse anything but a torch.Generator: the global random state is never drawn from."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {type(generator).__name__}; "
            "make one with torch.Generator().manual_seed(seed)"
        )
