"""The exact law of a sampler's output where every step is affine, as on a Gaussian prior.

Its output is x = F e + c for all the unit noise e that it drew, so that one run with the noise at
zero gives the mean c, and one with each unit vector in turn a row of F: the covariance is F F^T.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from problems import DOUBLE, problem

import inverse

LEVELS = torch.tensor([3.0, 1.0, 0.4, 0.1, 0.0], dtype=DOUBLE)


class Unit:
    """Noise of several runs at once: row b is one at entry places[b] of draw keys[b], else 0."""

    def __init__(self, shape, hot, asked, purpose=0) -> None:
        self.event_shape, self.hot, self.asked = tuple(shape), hot, asked
        self.purpose = purpose

    def normal(self, step: int) -> torch.Tensor:
        z = torch.zeros(max(1, len(self.hot)), *self.event_shape, dtype=DOUBLE)
        key = (self.purpose, self.event_shape, step)
        self.asked.add(key)
        for row, (hot, place) in enumerate(self.hot):
            if hot == key:
                z[row].view(-1)[place] = 1.0
        return z

    def beside(self, purpose: int, shape) -> Unit:
        return Unit(shape, self.hot, self.asked, purpose)


def law_of(run, event_shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and covariance (D, D) of run(noise, n), affine in the noise."""
    asked: set = set()
    mean = run(Unit(event_shape, [], asked), 1).flatten()
    hot = [(key, i) for key in sorted(asked) for i in range(math.prod(key[1]))]
    if not hot:
        return mean, torch.zeros(len(mean), len(mean), dtype=DOUBLE)
    rows = run(Unit(event_shape, hot, set()), len(hot)).flatten(1) - mean
    return mean, rows.T @ rows


def law(sampler, prior) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and covariance (D, D) of what the sampler returns on this prior or posterior."""
    return law_of(
        lambda noise, n: sampler(prior, n, noise=noise, dtype=DOUBLE), tuple(prior.event_shape)
    )


def gaussian_case():
    """Prior N(m, C), y = A x0 + N(0, S): all as matrices."""
    prior, model, y, _ = problem()
    eye = torch.eye(6, dtype=DOUBLE)
    A = model.operator.matrix.to(DOUBLE)
    _, product = prior.covariance(torch.zeros(1, 6, dtype=DOUBLE), 1.0)  # C (C + 1)^-1
    gain = torch.cat([product(row[None]) for row in eye])
    C = torch.linalg.solve(eye - gain, gain)
    mean = prior.mean.to(DOUBLE)
    return inverse.condition(prior, model, y), mean, C, A, y[0]


def denoised(m, C, sigma):
    """x -> x0 of N(m, C) as (matrix, offset)."""
    eye = torch.eye(len(m), dtype=DOUBLE)
    gain = C @ torch.linalg.inv(C + sigma**2 * eye)
    return gain, m - gain @ m


def recursion(step, m, C, levels=LEVELS):
    """Mean and covariance after all steps of x' = M x + c + L e, from the prior at the first level.

    step(sigma, sigma_next) -> (M, c, L L^T)
    """
    eye = torch.eye(len(m), dtype=DOUBLE)
    levels = levels.tolist()
    mean, cov = m.clone(), C + levels[0] ** 2 * eye
    for sigma, sigma_next in pairwise(levels):
        M, c, Q = step(sigma, sigma_next)
        mean, cov = M @ mean + c, M @ cov @ M.T + Q
    return mean, cov
