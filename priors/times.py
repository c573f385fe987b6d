"""Maps between the noise level sigma and the time that a network was trained with, and back.

Each takes and gives tensors of any shape and is continuous, so that a level between two training
steps has the fractional time between them. sigma is in network units.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from .schedule import VE, Schedule


class TimeMap(ABC):
    """time = map(sigma), monotone, and its inverse sigma = map.sigma(time)."""

    @abstractmethod
    def __call__(self, sigma: Tensor) -> Tensor:
        """The time of a noise level."""

    @abstractmethod
    def sigma(self, time: Tensor) -> Tensor:
        """The noise level of a time."""


@final
class LevelTime(TimeMap):
    """time = sigma."""

    def __call__(self, sigma: Tensor) -> Tensor:
        return sigma

    def sigma(self, time: Tensor) -> Tensor:
        return time


@final
class LogTime(TimeMap):
    """time = log(sigma / unit) / divisor."""

    def __init__(self, divisor: float = 4.0, unit: float = 1.0) -> None:
        self.divisor, self.unit = divisor, unit

    def __call__(self, sigma: Tensor) -> Tensor:
        return (sigma / self.unit).log() / self.divisor

    def sigma(self, time: Tensor) -> Tensor:
        return self.unit * (self.divisor * time).exp()


@final
class ScheduleTime(TimeMap):
    """time = scale * t, t the time of a schedule.

    The product is rounded to sigma's dtype, and with `rounded` already t, as where a network was
    trained on a rounded t.
    """

    def __init__(self, schedule: Schedule, scale: float = 1.0, *, rounded: bool = False) -> None:
        self.schedule, self.scale, self.rounded = schedule, scale, rounded

    def __call__(self, sigma: Tensor) -> Tensor:
        t = self.schedule.t(sigma)
        return (self.scale * (t.to(sigma.dtype) if self.rounded else t)).to(sigma.dtype)

    def sigma(self, time: Tensor) -> Tensor:
        return self.schedule.sigma(time.double() / self.scale).to(time.dtype)


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
class GeometricTime(TimeMap):
    """A fractional index into levels that fall geometrically from high to low, held at its ends.

    time = (steps - 1) log(high / sigma) / log(high / low)
    """

    def __init__(self, low: float, high: float, steps: int) -> None:
        self.low, self.high, self.steps = low, high, steps

    def __call__(self, sigma: Tensor) -> Tensor:
        last = self.steps - 1
        time = last * (self.high / sigma).log() / math.log(self.high / self.low)
        return time.clamp(0, last)

    def sigma(self, time: Tensor) -> Tensor:
        return self.high * (self.low / self.high) ** (time / (self.steps - 1))


@final
class Scaled(TimeMap):
    """time = factor * inner(sigma)."""

    def __init__(self, inner: TimeMap, factor: float) -> None:
        self.inner, self.factor = inner, factor

    def __call__(self, sigma: Tensor) -> Tensor:
        return self.factor * self.inner(sigma)

    def sigma(self, time: Tensor) -> Tensor:
        return self.inner.sigma(time / self.factor)


def usual_time(parametrization: str, schedule: Schedule) -> TimeMap:
    """What networks of a parametrisation take, unless more is known.

    log(sigma) / 4 for edm, sigma for score under VE, 1000 t for flow, 999 t otherwise.
    """
    if parametrization == "edm":
        return LogTime()
    if parametrization == "score" and isinstance(schedule, VE):
        return LevelTime()
    return ScheduleTime(schedule, 1000.0 if parametrization == "flow" else 999.0, rounded=True)
