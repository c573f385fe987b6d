"""Logarithms of probabilities, without cancellation in single precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Stirling's series: lgamma(n + 1) = n log n - n + log(2 pi n) / 2 + sum_k c_k / n^(2k + 1).
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)


def deviance(n: Tensor, rate: Tensor, log_rate: Tensor | None = None) -> Tensor:
    """rate - n - n log(rate / n) >= 0, zero where rate = n; n >= 0 and rate > 0.

    Relative errors near rate = n stay those of rate - n itself, though the terms cancel.

    Args:
        log_rate: log(rate), where it is known better than rate, which may underflow.
    """
    some = torch.where(n > 0, n, 1)
    excess = (rate - n) / some
    near = excess.abs() < 0.5
    log_rate = torch.where(near, 1, rate).log() if log_rate is None else log_rate
    log_ratio = torch.where(near, torch.where(near, excess, 0).log1p(), log_rate - some.log())
    return rate - n - n * log_ratio


def stirling_excess(n: Tensor) -> Tensor:
    """lgamma(n + 1) - (n log n - n) for n >= 0; 0 at n = 0."""
    small = n < 16
    few, many = torch.where(small, n, 1), torch.where(small, 16, n)
    exact = torch.lgamma(few + 1) - torch.xlogy(few, few) + few
    square, series = 1 / many.square(), torch.zeros_like(many)
    for c in reversed(_STIRLING):
        series = series * square + c
    return torch.where(small, exact, 0.5 * (2 * math.pi * many).log() + series / many)


def poisson_log_prob(n: Tensor, rate: Tensor, log_rate: Tensor | None = None) -> Tensor:
    """log(rate^n exp(-rate) / n!) for counts n >= 0 and rate > 0.

    Paper: Loader, Fast and accurate computation of binomial probabilities, 2000,
    https://www.r-project.org/doc/reports/CLoader-dbinom-2002.pdf
    """
    return -deviance(n, rate, log_rate) - stirling_excess(n)


def normal_log_prob(u: Tensor) -> Tensor:
    """log phi(u) of the standard normal density."""
    return -0.5 * u.square() - 0.5 * math.log(2 * math.pi)


def log_ndtr(u: Tensor) -> Tensor:
    """log Phi(u) of the standard normal distribution; its slope is right in the far tail too."""
    low = u < 0
    tail = torch.where(low, -u / math.sqrt(2), 0)
    body = torch.where(low, 0, u / math.sqrt(2))
    below = torch.special.erfcx(tail).log() - tail.square() - math.log(2)
    return torch.where(low, below, torch.log1p(-0.5 * torch.special.erfc(body)))


def hazard(u: Tensor) -> Tensor:
    """phi(u) / Phi(u), the slope of log Phi; about -u in the lower tail."""
    low = u < 0
    below = math.sqrt(2 / math.pi) / torch.special.erfcx(torch.where(low, -u / math.sqrt(2), 0))
    body = torch.where(low, 0, u)
    above = normal_log_prob(body).exp() / torch.special.ndtr(body)
    return torch.where(low, below, above)
