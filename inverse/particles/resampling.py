"""Weights and resampling; log weights have shape (P, K): K particles for each of P problems."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log of the mean weight, (P,)."""
    return torch.logsumexp(log_weights, -1) - math.log(log_weights.shape[-1])


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """1 / sum of squared normalised weights, (P,), from 1 to K.

    Paper: Kong et al., "Sequential Imputations and Bayesian Missing Data Problems", 1994,
    https://doi.org/10.1080/01621459.1994.10476469
    """
    return torch.softmax(log_weights, -1).square().sum(-1).reciprocal()


def systematic(log_weights: Tensor, u: Tensor) -> Tensor:
    """Ancestors (P, K): particle i is chosen K w_i times, rounded up or down, in order.

    Args:
        log_weights: (P, K), not all -inf in a row.
        u: (P,) uniform in [0, 1); one draw moves all K points of a row's comb.

    Unbiased: the expected number of copies of particle i is K w_i.

    Paper: Carpenter et al., "Improved Particle Filter for Nonlinear Problems", 1999,
    https://doi.org/10.1049/ip-rsn:19990255
    """
    count = log_weights.shape[-1]
    edges = torch.softmax(log_weights.double(), -1).cumsum(-1)
    comb = (torch.arange(count, device=u.device) + u.double()[:, None]) / count
    # The last edge is 1 up to rounding; every point of the comb has an owner.
    return torch.searchsorted(edges / edges[:, -1:], comb).clamp(max=count - 1)
