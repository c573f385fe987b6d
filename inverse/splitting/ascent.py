"""The maximum of log p(y | z) - |z - x0|^2 / (2 v) for any differentiable forward model."""

from __future__ import annotations

import torch
from torch import Tensor

from forward_models.linear.solvers import inner, per_sample

from .problem import Problem

SHRINK, TRIALS = 0.25, 8


@torch.no_grad()
def climb(problem: Problem, x0: Tensor, v: float, gradients: int) -> Tensor:
    """Conjugate gradients for a function that is not quadratic, each sample by itself.

    Directions by Polak and Ribiere, begun anew where they stop climbing; the length of a step by
    the curvature along it, from a difference of gradients, and shrunk until the objective rises.
    On a linear Gaussian model these are the conjugate gradients of the proximal map. Where no step
    rises, the sample stays. About two gradients and one or more values of log p(y | z) a turn,
    none of the network.

    Paper: Nocedal and Wright, "Numerical Optimization", 2006, chapter 5,
    https://doi.org/10.1007/978-0-387-40065-5
    """

    def value(z: Tensor) -> Tensor:
        return problem.log_likelihood(z) - inner(z - x0, z - x0) / (2 * v)

    def slope(z: Tensor) -> tuple[Tensor, Tensor]:
        f, g = problem.gradient(z)
        return f - inner(z - x0, z - x0) / (2 * v), g - (z - x0) / v

    z = x0
    f, g = slope(z)
    p, gg = g, inner(g, g)
    for _ in range(gradients):
        rising = inner(g, p)
        length = inner(p, p).sqrt()
        # A step of a thousandth of the slack: small beside what bends, large beside rounding.
        h = 1e-3 * v**0.5 / length.clamp(min=torch.finfo(z.dtype).tiny)
        bend = -(inner(slope(z + per_sample(h, z) * p)[1] - g, p)) / h
        floor = length**2 / v  # the slack's own curvature: without a log-concave p(y | z)
        t = rising / torch.where(bend > 0, bend, floor).clamp(min=torch.finfo(z.dtype).tiny)
        moved, risen = z, torch.zeros_like(f, dtype=torch.bool)
        for _ in range(TRIALS):
            trial = z + per_sample(t, z) * p
            good = ~risen & (value(trial) > f)
            moved = torch.where(per_sample(good, z), trial, moved)
            risen = risen | good
            if bool(risen.all()):
                break
            t = torch.where(risen, t, SHRINK * t)
        if not bool(risen.any()):
            break
        z = moved
        f, new = slope(z)
        beta = ((inner(new, new - g)) / gg.clamp(min=torch.finfo(z.dtype).tiny)).clamp(min=0)
        p = torch.where(per_sample(risen, z), new + per_sample(beta, z) * p, new)
        downhill = inner(p, new) <= 0
        p = torch.where(per_sample(downhill, z), new, p)
        g, gg = new, inner(new, new)
    return z
