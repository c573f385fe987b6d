"""Maps between the noise level sigma and the time that a network was trained with, and back.

Each takes and gives tensors of any shape and is continuous, so that a level between two training
steps has the fractional time between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from ..schedule import Schedule


class TimeMap(ABC):
    """time = map(sigma), increasing, and its inverse sigma = map.sigma(time); network units."""

    @abstractmethod
    def __call__(self, sigma: Tensor) -> Tensor:
        """The time of a noise level."""

    @abstractmethod
    def sigma(self, time: Tensor) -> Tensor:
        """The noise level of a time."""


@final
class TableTime(TimeMap):
    """A fractional index into an increasing table of levels, linear in log sigma, float64.

    Beyond the table's ends the time is held at the nearest end.
    """

    def __init__(self, levels: Tensor) -> None:
        self.log_levels = levels.log()

    def __call__(self, sigma: Tensor) -> Tensor:
        table = self.log_levels.to(sigma.device)
        value = sigma.to(table.dtype).log()
        upper = torch.searchsorted(table, value).clamp(1, len(table) - 1)
        below, above = table[upper - 1], table[upper]
        index = upper - 1 + (value - below) / (above - below)
        return index.clamp(0, len(table) - 1)

    def sigma(self, time: Tensor) -> Tensor:
        table = self.log_levels.to(time.device)
        index = time.to(table.dtype).clamp(0, len(table) - 1)
        lower = index.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[lower], table[lower + 1], index - lower).exp()


@final
class LogTime(TimeMap):
    """time = log(sigma) / 4."""

    def __call__(self, sigma: Tensor) -> Tensor:
        return sigma.log() / 4

    def sigma(self, time: Tensor) -> Tensor:
        return (4 * time).exp()


@final
class LevelTime(TimeMap):
    """time = sigma."""

    def __call__(self, sigma: Tensor) -> Tensor:
        return sigma

    def sigma(self, time: Tensor) -> Tensor:
        return time


@final
class FlowTime(TimeMap):
    """time = steps * t with t = sigma / (1 + sigma)."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, sigma: Tensor) -> Tensor:
        return self.steps * sigma / (1 + sigma)

    def sigma(self, time: Tensor) -> Tensor:
        return time / (self.steps - time)


@final
class ScheduleTime(TimeMap):
    """time = scale * t, t the time of a schedule."""

    def __init__(self, schedule: Schedule, scale: float) -> None:
        self.schedule, self.scale = schedule, scale

    def __call__(self, sigma: Tensor) -> Tensor:
        return self.scale * self.schedule.t(sigma).to(sigma.dtype)

    def sigma(self, time: Tensor) -> Tensor:
        return self.schedule.sigma(time.double() / self.scale).to(time.dtype)
