"""The Fisher divergence, where the data's true score is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...analytic.parameters import check_count, unit_noise
from ...prior import Prior
from ..noise_levels import check_generator
from .objective import squared_norm

_BATCH = 4096


class Divergence(NamedTuple):
    """An estimate and its standard error, each of the shape of sigma, float64."""

    value: Tensor
    error: Tensor


@torch.no_grad()
def fisher_divergence(
    prior: Prior,
    truth: Prior,
    sigma: Tensor | Sequence[float] | float,
    n: int,
    generator: torch.Generator,
    *,
    relative: bool = False,
) -> Divergence:
    """F = E |s_prior(x) - s_truth(x)|^2 over x = x0 + sigma eps, x0 drawn from the truth.

    Args:
        prior: the prior in question.
        truth: the data's own prior, with an exact score and a `sample` (Gaussian, Mixture, ...).
        sigma: noise levels, a scalar or (L,), > 0, data units.
        n: samples for each level.
        generator: from which they are drawn.
        relative: divide by E |s_truth(x)|^2, so that a score of zero has divergence 1.
    Returns:
        value in squared inverse data units (a pure number where relative), summed over the event,
        and standard error over the n samples (of the ratio to first order where relative).
        Costs n network calls for each level.
    Raises:
        TypeError: a truth without `sample`. ValueError: n < 2, another event shape, bad levels.
    """
    check_generator(generator)
    if check_count(n) < 2:
        raise ValueError(f"n must be at least 2, to know the error; got {n}")
    if not hasattr(truth, "sample"):
        raise TypeError(
            f"the truth must be a prior with a sample method, as Gaussian and Mixture are; "
            f"{type(truth).__name__} has none"
        )
    if not prior.accepts(truth.event_shape):
        raise ValueError(
            f"the prior has events of shape {prior.event_shape}, the truth {truth.event_shape}"
        )
    levels = torch.as_tensor(sigma, dtype=torch.float64)
    if levels.ndim > 1 or levels.numel() == 0:
        raise ValueError(f"sigma must be a scalar or have shape (L,), got {tuple(levels.shape)}")
    pairs = [
        _estimate(*_squares(prior, truth, level, n, generator), relative)
        for level in levels.reshape(-1).tolist()
    ]
    values, errors = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
    return Divergence(values.reshape(levels.shape), errors.reshape(levels.shape))


def _squares(
    prior: Prior, truth: Prior, sigma: float, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """|s_prior - s_truth|^2 and |s_truth|^2 of n samples, each (n,) float64."""
    differences, sizes = [], []
    clean: Tensor = truth.sample(n, generator)  # type: ignore[attr-defined]
    for x0 in clean.split(_BATCH):
        x = x0 + sigma * unit_noise(tuple(x0.shape), generator, x0)
        score = truth.score(x, sigma)
        differences.append(squared_norm((prior.score(x, sigma) - score).double()))
        sizes.append(squared_norm(score.double()))
    return torch.cat(differences), torch.cat(sizes)


def _estimate(difference: Tensor, size: Tensor, relative: bool) -> tuple[float, float]:
    count = math.sqrt(len(difference))
    if not relative:
        return float(difference.mean()), float(difference.std()) / count
    ratio = difference.mean() / size.mean()
    return float(ratio), float((difference - ratio * size).std() / size.mean()) / count
