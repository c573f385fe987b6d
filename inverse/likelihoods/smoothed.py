"""log mean_k p(y | z + r z_k): a likelihood blurred by fixed noise, its gradient, a safe step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from forward_models import ForwardModel

from .likelihood import Moments

Objective = Callable[[Tensor], Tensor]
"""A log density of images: (B, *event) -> (B,)."""


def fixed_normal(seed: int, sigma: Tensor, count: int, event_shape: tuple[int, ...]) -> Tensor:
    """`count` unit noises for each sample, (count, 1 or B, *event): functions of (seed, sigma).

    All samples at one noise level share them, so a sample depends neither on its batch nor on what
    was drawn before. Levels are told apart to six digits, the same in either precision.
    """
    levels = [f"{value:.5e}" for value in sigma.flatten().tolist()]
    generator, drawn = torch.Generator(), {}
    for level in set(levels):
        digest = hashlib.blake2b(f"{seed}/{level}".encode(), digest_size=8)
        generator.manual_seed(int.from_bytes(digest.digest()) >> 1)
        drawn[level] = torch.randn(count, *event_shape, generator=generator)
    rows = levels[:1] if len(drawn) == 1 else levels
    return torch.stack([drawn[level] for level in rows], 1).to(sigma.device, sigma.dtype)


def log_likelihoods(model: ForwardModel, y: Tensor, points: Tensor) -> Tensor:
    """log p(y | points), (K, B), for K candidates of each sample, (K, B, *event)."""
    count, batch = points.shape[:2]
    own = y if y.shape[0] == 1 else y.repeat(count, *[1] * (y.ndim - 1))
    return model.log_likelihood(own, points.flatten(0, 1)).reshape(count, batch)


def log_mean(values: Tensor) -> Tensor:
    """log mean_k exp(values), (K, B) -> (B,)."""
    return torch.logsumexp(values, 0) - math.log(len(values))


def smoothed(
    model: ForwardModel, y: Tensor, moments: Moments, spread: Tensor, draws: int, seed: int
) -> Objective:
    """z -> log (1/K) sum_k p(y | z + r z_k) with r = `spread` (B, 1, ..., 1); p itself if r = 0."""
    if not bool((spread > 0).any()):
        return lambda z: model.log_likelihood(y, z)
    noise = spread * fixed_normal(seed, moments.sigma, draws, tuple(moments.x.shape[1:]))
    return lambda z: log_mean(log_likelihoods(model, y, z + noise))


def ascent(f: Objective, z: Tensor) -> tuple[Tensor, Tensor]:
    """f(z) (B,) and its gradient (B, *event); differentiable if z is."""
    with torch.enable_grad():
        nested = z.requires_grad
        leaf = z if nested else z.detach().requires_grad_()
        value = f(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=nested)
    return value.detach(), gradient


@torch.no_grad()
def safe_step(f: Objective, z: Tensor, value: Tensor, gradient: Tensor, d: Tensor) -> Tensor:
    """t in [0, 1], (B, 1, ..., 1), with f(z + t d) >= f(z): 1 wherever that holds at 1.

    Where it does not, t goes to the top of the parabola through f(z), its slope along d and
    f(z + t d), which is the largest value on the line if f is quadratic; 12 trials, then 0.
    """
    slope = (gradient * d).reshape(len(d), -1).sum(1)
    t = torch.ones_like(value)

    def shaped(t: Tensor) -> Tensor:
        return t.reshape(-1, *[1] * (d.ndim - 1))

    for _ in range(12):
        there = f(z + shaped(t) * d)
        worse = ~(there >= value)  # also where not a number
        if not bool(worse.any()):
            return shaped(t)
        top = slope * t.square() / (2 * (value + slope * t - there))
        top = torch.where(torch.isfinite(top), top, 0).clamp(t / 1000, t / 2)
        t = torch.where(worse, top, t)
    return shaped(torch.where(f(z + shaped(t) * d) >= value, t, 0))


def check_model(model: object, name: str, differentiable: bool = True) -> None:
    """Refuse what is no forward model of clean images, or a black box where a gradient is taken."""
    if not isinstance(model, ForwardModel):
        raise TypeError(
            f"{name} needs a ForwardModel p(y | x0), got {type(model).__name__}; Exact serves "
            "time-dependent ones"
        )
    if differentiable and not model.differentiable:
        raise TypeError(
            f"{name} needs a differentiable model and {type(model).__name__} is a black box; "
            "ReverseRunLift only evaluates it"
        )
