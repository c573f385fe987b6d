"""Climbing log p(y | z) - |z - x0|^2 / (2 v) for any differentiable forward model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from forward_models.linear.solvers import inner, per_sample

from .problem import Problem

SHRINK, TRIALS = 0.25, 8


@torch.no_grad()
def climb(
    problem: Problem,
    x0: Tensor,
    v: float,
    gradients: int,
    enough: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Conjugate gradients for a function that is not quadratic, each sample by itself.

    With v infinite it is p(y | z) alone that is climbed, from x0. Where enough(z), (B,), holds the
    sample stays.

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

    tiny, eps = torch.finfo(x0.dtype).tiny, torch.finfo(x0.dtype).eps
    reach = min(v**0.5, problem.scale)
    z = x0
    f, g = slope(z)
    p, gg = g, inner(g, g)
    plain, stuck = torch.ones_like(f, dtype=torch.bool), torch.zeros_like(f, dtype=torch.bool)
    if enough is not None:
        stuck = enough(z)
    for _ in range(gradients):
        length = inner(p, p).sqrt()
        # A step of a thousandth of the reach: small beside what bends, large beside rounding.
        h = 1e-3 * reach / length.clamp(min=tiny)
        bend = -inner(slope(z + per_sample(h, z) * p)[1] - g, p) / h
        # A curvature that is not above the rounding of the gradients counts as none.
        known = bend > 10 * eps * (gg.sqrt() * length / h + length**2 / reach**2)
        t = inner(g, p) / torch.where(known, bend, length**2 / reach**2).clamp(min=tiny)
        t = torch.minimum(t, 10 * problem.scale / length.clamp(min=tiny))
        moved, risen = z, torch.zeros_like(stuck)
        for _ in range(TRIALS):
            trial = z + per_sample(t, z) * p
            good = ~risen & ~stuck & (value(trial) > f)
            moved = torch.where(per_sample(good, z), trial, moved)
            risen = risen | good
            if bool((risen | stuck).all()):
                break
            t = torch.where(risen, t, SHRINK * t)
        stuck = stuck | (~risen & plain)  # not even along the gradient
        z = moved
        if enough is not None:
            stuck = stuck | enough(z)
        if bool(stuck.all()):
            break
        f, new = slope(z)
        beta = (inner(new, new - g) / gg.clamp(min=tiny)).clamp(min=0)
        onward = new + per_sample(beta, z) * p
        plain = ~risen | (beta == 0) | (inner(onward, new) <= 0)
        p = torch.where(per_sample(plain, z), new, onward)
        g, gg = new, inner(new, new)
    return z
