"""Optimisers for a batch of independent problems: each sample follows its own loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..checks import positive, whole

State = dict[str, Tensor]
"""Everything an optimisation needs to go on: tensors whose first axis is the sample."""


class Optimiser(ABC):
    """A rule that turns the loss and gradient at `theta` into the next `theta`.

    All tensors have the sample as their first axis, and no sample looks at another: a sample's
    path is the same alone or in a batch.
    """

    @abstractmethod
    def start(self, theta: Tensor) -> State:
        """The state before the first evaluation, `theta` (B, *event) included."""

    @abstractmethod
    def step(self, state: State, k: int, loss: Tensor, gradient: Tensor) -> tuple[State, Tensor]:
        """What changes after evaluation k, and which evaluations were taken, (B,) bool.

        Args:
            loss: (B,) at state["theta"]; gradient: (B, *event) there.
        """


@final
@dataclass(frozen=True)
class Adam(Optimiser):
    """theta <- theta - rate m / (sqrt(v) + 1e-8), with running means m, v of the gradient and of
    its square, corrected for their start at 0. Entry by entry: the scale of the loss is immaterial.

    Args:
        rate: in the unit of theta.
        betas: what the means of the gradient and of its square keep at each step, in [0, 1).

    Paper: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015,
    https://arxiv.org/abs/1412.6980
    """

    rate: float
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        positive(self.rate, "rate")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")

    def start(self, theta: Tensor) -> State:
        return {"theta": theta, "m": torch.zeros_like(theta), "v": torch.zeros_like(theta)}

    def step(self, state: State, k: int, loss: Tensor, gradient: Tensor) -> tuple[State, Tensor]:
        first, second = self.betas
        m = first * state["m"] + (1 - first) * gradient
        v = second * state["v"] + (1 - second) * gradient.square()
        root = (v / (1 - second ** (k + 1))).sqrt()
        theta = state["theta"] - self.rate * m / (1 - first ** (k + 1)) / (root + 1e-8)
        taken = torch.ones(len(theta), dtype=torch.bool, device=theta.device)
        return {"theta": theta, "m": m, "v": v}, taken


@final
@dataclass(frozen=True)
class LBFGS(Optimiser):
    """Limited-memory BFGS with a backtracking line search, one evaluation a step.

    Steps go along -H g, with H the inverse Hessian that the last pairs (s, y) of differences of
    theta and g imply. A trial point is taken where it lowers the loss by 1e-4 of what the slope
    promises; else the next trial is nearer, at the minimum of the parabola through what is known.
    So every sample costs the same, though each is at another place of its search. A trial with a
    loss that is no number is never taken. The first trial moves theta by `first` root mean square.

    Args:
        memory: pairs kept, each of the size of theta twice.
        first: length of the first trial, in the unit of theta.

    Paper: Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989,
    https://doi.org/10.1007/BF01589116
    """

    memory: int = 10
    first: float = 0.1

    def __post_init__(self) -> None:
        whole(self.memory, "memory")
        positive(self.first, "first")

    def start(self, theta: Tensor) -> State:
        zero = theta.new_zeros(len(theta))
        pairs = theta.new_zeros(len(theta), self.memory, *theta.shape[1:])
        return {
            "theta": theta, "base": theta, "g": torch.zeros_like(theta),
            "direction": torch.zeros_like(theta), "loss": zero + torch.inf, "slope": zero,
            "length": zero, "s": pairs, "y": pairs, "weight": zero[:, None].repeat(1, self.memory),
        }  # fmt: skip

    def step(self, state: State, k: int, loss: Tensor, gradient: Tensor) -> tuple[State, Tensor]:
        before, length, slope = state["loss"], state["length"], state["slope"]
        rounding = 4 * torch.finfo(loss.dtype).eps * before.abs()
        promised = before + 1e-4 * length * slope + rounding
        fresh = before == torch.inf
        taken = fresh | (loss <= promised)
        pairs = self._pairs(state, gradient, taken & ~fresh)
        base = _where(taken, state["theta"], state["base"])
        g = _where(taken, gradient, state["g"])
        ahead = -_inverse_hessian(g, **pairs)
        new_slope = _dot(ahead, g)
        # Rounding can turn a direction uphill; the gradient never does.
        uphill = ~(new_slope < 0)
        ahead = _where(uphill, -g, ahead)
        new_slope = torch.where(uphill, -_dot(g, g), new_slope)
        begun = (pairs["weight"] > 0).any(1) & ~uphill
        size = (_dot(ahead, ahead) / ahead[0].numel()).sqrt()
        opening = torch.where(begun, 1.0, self.first / size.clamp(min=1e-30))
        bend = loss - before - length * slope
        nearer = torch.where(bend > 0, -slope * length**2 / (2 * bend), torch.nan)
        nearer = torch.where(loss.isfinite() & nearer.isfinite(), nearer, 0 * length)
        nearer = torch.minimum(torch.maximum(nearer, 0.1 * length), 0.5 * length)
        length = torch.where(taken, opening, nearer)
        direction = _where(taken, ahead, state["direction"])
        return {
            "theta": base + _each(length, direction) * direction, "base": base, "g": g,
            "direction": direction, "loss": torch.where(taken, loss, before),
            "slope": torch.where(taken, new_slope, slope), "length": length, **pairs,
        }, taken  # fmt: skip

    def _pairs(self, state: State, gradient: Tensor, taken: Tensor) -> State:
        """The pairs (s, y) and their weights 1 / s.y, the latest first; 0 where there is none."""
        s, y = state["theta"] - state["base"], gradient - state["g"]
        curvature = _dot(s, y)
        use = taken & (curvature > 1e-10 * _dot(y, y).sqrt() * _dot(s, s).sqrt())
        weight = 1 / torch.where(use, curvature, 1)
        latest = {"s": s, "y": y, "weight": weight}
        return {
            name: _where(use, torch.cat([value[:, None], state[name][:, :-1]], 1), state[name])
            for name, value in latest.items()
        }


def _inverse_hessian(g: Tensor, s: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """H g of each sample, by the two loops; H = I where there are no pairs."""
    q, along = g, []
    for i in range(s.shape[1]):
        along.append(weight[:, i] * _dot(s[:, i], q))
        q = q - _each(along[i], q) * y[:, i]
    scale = 1 / (weight[:, 0] * _dot(y[:, 0], y[:, 0]))
    q = _each(torch.where(weight[:, 0] > 0, scale, 1), q) * q
    for i in reversed(range(s.shape[1])):
        back = weight[:, i] * _dot(y[:, i], q)
        q = q + _each(along[i] - back, q) * s[:, i]
    return q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).reshape(len(a), -1).sum(1)


def _each(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (like.ndim - 1))


def _where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(_each(chosen, a), a, b)
