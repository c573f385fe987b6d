"""The four preconditioners of EDM's checkpoints, in the words of NetworkPrior.

Of a network F, with x = x0 + sigma eps, D = c_skip x + c_out F(c_in x, time) is

    VP       x - sigma F(x / sqrt(1 + sigma^2), (M - 1) t(sigma))
    VE       x + sigma F(x, log(sigma / 2))
    iDDPM    x - sigma F(x / sqrt(1 + sigma^2), M - 1 - j(sigma)), F the first half of the channels
    EDM      d^2 / (sigma^2 + d^2) x
                 + sigma d / sqrt(sigma^2 + d^2) F(x / sqrt(sigma^2 + d^2), log(sigma) / 4)

t(sigma) inverts sigma^2 = exp(beta_d t^2 / 2 + beta_min t) - 1, d is sigma_data, and j(sigma) the
index into cosine noise, u_(j-1)^2 = (u_j^2 + 1) / max(a_(j-1) / a_j, C_1) - 1 from u_M = 0 with
a_j = sin^2(pi/2 j / (M (C_2 + 1))), linearly in log sigma between the levels u_j.

Paper: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
table 1, https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..schedule import VE, VP, Schedule
from ..times import LogTime, ScheduleTime, TableTime, TimeMap

# Between these the paper samples, where a preconditioner's own bounds are wider or none.
_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0


@dataclass(frozen=True)
class Preconditioning:
    """What NetworkPrior must know, in network units.

    Attributes:
        minus: whether the network gives minus what the parametrization means.
        doubled: whether the network gives a variance too, in as many channels again.
        table: u_0 to u_(M-1), for iDDPM.
    """

    parametrization: str
    sigma_range: tuple[float, float]
    time: TimeMap
    schedule: Schedule | None = None
    sigma_data: float = 0.5
    minus: bool = False
    doubled: bool = False
    table: Tensor | None = None


def preconditioning(stated: dict[str, Any]) -> Preconditioning:
    """What the settings of a checkpoint say, EDM's own values where they are silent.

    Raises:
        ValueError: numbers out of range.
    """

    def number(key: str, default: float, low: float = 0.0) -> float:
        value = float(stated.get(key, default))
        if not low < value < math.inf:
            raise ValueError(f"setting {key} must be above {low:g} and finite, got {value}")
        return value

    kind = stated["class_name"]
    if kind == "EDMPrecond":
        # Bounds of 0 and infinity are the checkpoints' way to say that there are none.
        low = max(float(stated.get("sigma_min", 0)), _SIGMA_MIN)
        high = min(float(stated.get("sigma_max", math.inf)), _SIGMA_MAX)
        data = number("sigma_data", 0.5)
        return Preconditioning("edm", _levels(low, high), LogTime(), sigma_data=data)
    if kind == "VEPrecond":
        levels = _levels(number("sigma_min", 0.02), number("sigma_max", 100.0))
        return Preconditioning(
            "epsilon",
            levels,
            time=LogTime(divisor=1.0, unit=2.0),
            schedule=VE(*levels),
            minus=True,
        )
    steps = int(number("M", 1000, 1))
    if steps > 10**6:
        raise ValueError(f"setting M must be at most a million, got {steps}")
    if kind == "VPPrecond":
        slope, start = number("beta_d", 19.9), number("beta_min", 0.1)
        vp = VP(start, start + slope)
        low, high = (float(vp.sigma(t)) for t in (number("epsilon_t", 1e-5), 1.0))
        return Preconditioning(
            "epsilon",
            _levels(low, high),
            time=ScheduleTime(vp, steps - 1),
            schedule=vp,
        )
    table = _cosine_levels(steps, number("C_1", 0.001), number("C_2", 0.008))
    rising = table.flip(0)
    return Preconditioning(
        "epsilon",
        _levels(float(rising[0]), min(float(rising[-1]), _SIGMA_MAX)),
        time=TableTime(rising),
        doubled=True,
        table=table,
    )


def _cosine_levels(steps: int, least: float, offset: float) -> Tensor:
    """u_0 to u_(M-1), decreasing."""
    j = torch.arange(steps + 1, dtype=torch.float64)
    signal = torch.sin(math.pi / 2 * j / (steps * (offset + 1))) ** 2
    ratio = (signal[:-1] / signal[1:]).clamp(min=least)
    # u_(j-1)^2 + 1 = (u_j^2 + 1) / ratio: a product from the last backwards.
    grown = (1 / ratio).flip(0).cumprod(0).flip(0)
    return (grown - 1).sqrt()


def _levels(low: float, high: float) -> tuple[float, float]:
    if not 0 < low < high < math.inf:
        raise ValueError(f"the settings' noise levels must be 0 < low < high, got {low} and {high}")
    return low, high
