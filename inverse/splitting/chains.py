"""Markov chains whose law is p(y | z) N(z; x0, v I): data steps for any forward model.

All begin at the denoised image x0 and run for a fixed number of steps, so that their draws are of
that law only as far as the chain has mixed: a direction that y leaves open spreads like
sqrt(steps), and reaches sqrt(v) after about v L steps of Langevin dynamics, L the steepest
curvature. Hamiltonian dynamics take about the square root of that.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from forward_models.linear.solvers import inner, per_sample

from ..checks import positive, whole
from .problem import Problem
from .updates import DataStep, Slack, Split


@dataclass(frozen=True)
class _Chain(DataStep):
    slack: Slack
    steps: int

    def __post_init__(self) -> None:
        whole(self.steps, "steps")

    @property
    def draws(self) -> int:  # type: ignore[override]
        return self.steps

    @torch.no_grad()
    def __call__(self, split: Split) -> Tensor:
        v = self.slack.variance(split)
        return split.x0 if v == 0 else self._run(split, v)

    @abstractmethod
    def _run(self, split: Split, v: float) -> Tensor: ...


@final
@dataclass(frozen=True)
class LangevinChain(_Chain):
    """z' = z + a grad log(p(y | z) N(z; x0, v I)) + sqrt(2 a) e, unadjusted.

    a = relative_step / L with L the largest curvature at x0, for each sample: below 2 / L the chain
    is stable, and its variance along a direction of curvature h is 1 / (h (1 - a h / 2)). L grows
    where the chain meets a steeper place. One gradient of log p(y | z) a step.

    Args:
        slack: v. steps: how many. relative_step: in (0, 1].
    Raises:
        TypeError: a forward model without a gradient.

    Paper: Zhang et al., "Improving Diffusion Inverse Problem Solving with Decoupled Noise
    Annealing", 2024, https://arxiv.org/abs/2407.01521
    """

    relative_step: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _share(self.relative_step)

    def _run(self, split: Split, v: float) -> Tensor:
        problem, x0 = split.problem, split.x0
        L = steepest(problem, x0, v)
        z, slope = x0, _slope(problem, x0, x0, v)[1]
        for k in range(self.steps):
            a = per_sample(self.relative_step / L, z)
            moved = z + a * slope + (2 * a).sqrt() * split.eps(k)
            rising = _slope(problem, moved, x0, v)[1]
            d = moved - z
            L = torch.maximum(L, inner(d, slope - rising) / inner(d, d))
            z, slope = moved, rising
        return z


@final
@dataclass(frozen=True)
class HamiltonianChain(_Chain):
    """Hamiltonian dynamics with momentum drawn anew at each step, and a test of acceptance.

    Exact for any step length, as the chain grows: a trajectory of `leaps` leapfrog steps of length
    h = u relative_step / sqrt(L), L as of LangevinChain, is accepted with probability
    min(1, exp(-change of energy)); u in (0.5, 1) is drawn anew, since a trajectory of half a period
    only turns a direction's sign. `leaps` gradients of log p(y | z) a step.

    Args:
        slack: v. steps: trajectories. leaps: leapfrog steps of each. relative_step: in (0, 1].
    Raises:
        TypeError: a forward model without a gradient.

    Paper: Neal, "MCMC Using Hamiltonian Dynamics", 2011, https://arxiv.org/abs/1206.1901
    """

    leaps: int = 10
    relative_step: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.leaps, "leaps")
        _share(self.relative_step)

    def _run(self, split: Split, v: float) -> Tensor:
        problem, x0 = split.problem, split.x0
        longest = self.relative_step / steepest(problem, x0, v).sqrt()
        z, (value, slope) = x0, _slope(problem, x0, x0, v)
        for k in range(self.steps):
            p, u = split.eps(k), _uniform(split, k)
            h = per_sample(longest * (1 + u[:, 1]) / 2, x0)
            energy = value - inner(p, p) / 2
            end, rising = z, slope
            for _ in range(self.leaps):
                p = p + h / 2 * rising
                end = end + h * p
                ended, rising = _slope(problem, end, x0, v)
                p = p + h / 2 * rising
            accepted = u[:, 0].log() < ended - inner(p, p) / 2 - energy
            z = torch.where(per_sample(accepted, z), end, z)
            slope = torch.where(per_sample(accepted, z), rising, slope)
            value = torch.where(accepted, ended, value)
        return z


@final
@dataclass(frozen=True)
class MetropolisChain(_Chain):
    """Proposals of N(x0, v I) that are tested by p(y | z) alone: black boxes will do.

        z^ = x0 + sqrt(1 - b^2) (z - x0) + b sqrt(v) e,  accepted with min(1, p(y | z^) / p(y | z)),

    so that dimension alone refuses nothing. b begins at `share` and follows each sample's
    acceptance towards 0.3, by steps that fade. One evaluation of p(y | z) a step.

    Args:
        slack: v. steps: proposals. share: b at first, in (0, 1].

    Paper: Cotter et al., "MCMC Methods for Functions: Modifying Old Algorithms to Make Them
    Faster", 2013, https://arxiv.org/abs/1202.0709
    """

    share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        _share(self.share, "share")

    def _run(self, split: Split, v: float) -> Tensor:
        problem, x0 = split.problem, split.x0
        z, value = x0, problem.log_likelihood(x0)
        log_b = torch.full_like(value, math.log(self.share))
        for k in range(self.steps):
            b = per_sample(log_b.exp(), z)
            trial = x0 + (1 - b**2).sqrt() * (z - x0) + b * math.sqrt(v) * split.eps(k)
            found = problem.log_likelihood(trial)
            accepted = _uniform(split, k)[:, 0].log() < found - value
            z = torch.where(per_sample(accepted, z), trial, z)
            value = torch.where(accepted, found, value)
            log_b = (log_b + (accepted.to(log_b) - 0.3) / math.sqrt(k + 1)).clamp(max=0.0)
        return z


def steepest(problem: Problem, x0: Tensor, v: float, rounds: int = 4) -> Tensor:
    """L, (B,): the largest curvature that a few power iterations at x0 find, at least 1 / v.

    By differences of gradients, from the gradient itself, so no noise is drawn.
    """
    value, slope = _slope(problem, x0, x0, v)
    direction, found = slope, torch.full_like(value, 1 / v)
    tiny = torch.finfo(x0.dtype).tiny
    for _ in range(rounds):
        unit = direction / per_sample(inner(direction, direction).sqrt().clamp(min=tiny), x0)
        h = 1e-3 * math.sqrt(v)
        direction = (slope - _slope(problem, x0 + h * unit, x0, v)[1]) / h
        found = torch.maximum(found, inner(direction, unit))
    return found


def _slope(problem: Problem, z: Tensor, x0: Tensor, v: float) -> tuple[Tensor, Tensor]:
    """log p(y | z) - |z - x0|^2 / (2 v), (B,), and its gradient."""
    value, slope = problem.gradient(z)
    return value - inner(z - x0, z - x0) / (2 * v), slope - (z - x0) / v


def _uniform(split: Split, k: int) -> Tensor:
    """(B, 2) uniform in (0, 1), of a stream apart from that of the images."""
    return torch.special.ndtr(split.eps(k, (2,)))


def _share(value: float, name: str = "relative_step") -> None:
    if positive(value, name) > 1:
        raise ValueError(f"{name} must lie in (0, 1], got {value}")
