"""What weighted samples are worth: their effective number, its error, and when neither is believed.

    ESS = (sum_i w_i)^2 / sum_i w_i^2

is n for equal weights and 1 where one sample has all of the mass. It is itself an estimate: weights
drawn anew would give another. How far it is off, the tail of their law decides. With p(w) falling
as w^(-1 - 1/k), E[w^2] is finite for k < 1/2, so that ESS / n settles as n grows, and its variance
for k < 1/4; above 1/2 the largest weights are yet to come.

Papers: Kong et al., "Sequential Imputations and Bayesian Missing Data Problems", 1994,
https://doi.org/10.1080/01621459.1994.10476469; Vehtari et al., "Pareto Smoothed Importance
Sampling", 2024, https://arxiv.org/abs/1507.02646; Zhang & Stephens, "A New and Efficient Estimation
Method for the Generalized Pareto Distribution", 2009, https://doi.org/10.1198/tech.2009.08017
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .estimate import Estimate, axes_of, effective, shares, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAVY = 0.7
"""Tail index above which means under the weights do not settle at any affordable number."""
LIGHT = 0.25
"""Tail index below which the size has a finite variance."""
SMALLEST = 5
"""Weights in the tail at the least: fewer say nothing about it."""


@dataclass(frozen=True)
class EffectiveSize:
    """The effective number of weighted samples.

    Attributes:
        size: from 1 to n; its error covers the chances of independent weights drawn anew. The
            error is too small where the tail index is above 1/4: by half at .4.
        tail: the index k of the generalised Pareto law of the largest min(n / 5, 3 sqrt(n))
            weights, which tells little where n is not in the hundreds; inf where fewer than five
            of these have any mass, nan where fewer than five exceed the next one: less than 25
            weights, or many alike.
        weights: (n,), of sum 1, the largest first.
    """

    size: Estimate
    tail: float
    weights: Tensor

    @property
    def heavy(self) -> bool:
        """Whether weighted means are not to be believed either: k > min(1 - 1 / log10 n, .7)."""
        n = len(self.weights)
        return n >= SMALLEST and self.tail > min(1 - 1 / math.log10(max(n, 11)), HEAVY)

    def __str__(self) -> str:
        tail = "tail unknown" if math.isnan(self.tail) else f"tail index {self.tail:.2f}"
        doubt = ""
        if self.heavy:
            doubt = ": the heaviest weights are still to come, believe no mean under these"
        elif self.tail > LIGHT:
            doubt = ": the size may be off by more than this error"
        return f"{self.size} of {len(self.weights)}, {tail}{doubt}"

    def plot(self, to: Axes | str | os.PathLike[str] | None = None) -> Axes:
        """The mass that the largest weights hold together; on axes, or into a picture at a path."""
        axes = axes_of(to, (4, 2.8))
        n = len(self.weights)
        at = torch.arange(n + 1).numpy()
        held = torch.cat([self.weights.new_zeros(1), self.weights.cumsum(0)])
        axes.plot(at, at / n, color="#bbbbbb", lw=1, label="equal weights")
        axes.plot(at, held.numpy(), color="#d62728", lw=1.5, label="these")
        size, error = self.size.value, self.size.error
        axes.axvline(size, color="#2171b5", lw=1, label=str(self).partition(":")[0])
        axes.axvspan(size - error, size + error, color="#2171b5", alpha=0.15)
        axes.set_xlabel("samples, the heaviest first", fontsize=9)
        axes.set_ylabel("mass", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        return written(axes, to)


def effective_size(weights: Tensor) -> EffectiveSize:
    """How many equal ones weights are worth, by the weights alone.

    Copies that a resampling made count as different samples: `Samples.worth` names the ancestors.

    Args:
        weights: (n,), >= 0, of any scale, of one measurement (`samples.of(p).weights`);
            independent for the error.
    Raises:
        TypeError, ValueError: no tensor of floats, or not finite, negative or all 0.
    """
    if not isinstance(weights, Tensor):
        hint = "; give its .weights" if hasattr(weights, "weights") else ""
        if weights is None:
            hint = "; samples without weights are worth their number"
        got = type(weights).__name__
        raise TypeError(f"weights must be a floating tensor (n,), got {got}{hint}")
    if weights.ndim != 1 or len(weights) == 0:
        raise ValueError(f"weights must have shape (n,), n >= 1, got {tuple(weights.shape)}")
    w = shares(weights, len(weights))
    n, size = len(w), effective(w)
    # d log ESS = 2 d(sum w) / sum w - d(sum w^2) / sum w^2, from independent w.
    influence = 2 * (w * n - 1) - (w.square() * n * size - 1)
    error = size * float(influence.square().sum().sqrt()) / n
    error = error if error > 1e-12 * size else 0.0  # of equal weights, rounding is left
    tail = _tail(w, 10 * torch.finfo(weights.dtype).eps)
    return EffectiveSize(Estimate(size, error), tail, w.sort(descending=True).values)


def _tail(w: Tensor, rounding: float) -> float:
    """k of the generalised Pareto law of the largest min(n / 5, 3 sqrt(n)) weights."""
    ordered, n = w.sort().values, len(w)
    many = int(min(n / 5, 3 * math.sqrt(n)))
    if many < SMALLEST:
        return math.nan
    least = rounding * ordered[-1]
    beyond = ordered[n - many :] - ordered[n - many - 1]
    beyond = beyond[beyond > least]
    if len(beyond) < SMALLEST:
        return math.inf if bool(ordered[n - SMALLEST] <= least) else math.nan
    # The weak prior of the paper: ten weights' worth at 1/2.
    return (_pareto(beyond) * len(beyond) + 5.0) / (len(beyond) + 10)


def _pareto(x: Tensor) -> float:
    """k of p(x) = (1 + k x / s)^(-1 - 1/k) / s for x > 0 in increasing order: the posterior mean
    of b = -k / s under the data's own prior, and k = mean log(1 - b x)."""
    n = len(x)
    points = 30 + int(math.sqrt(n))
    j = torch.arange(1, points + 1, dtype=x.dtype)
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1 / x[-1] + (1 - (points / (j - 0.5)).sqrt()) / (3 * quartile)
    k = torch.log1p(-b[:, None] * x).mean(1)
    profile = n * ((-b / k).log() - k - 1)
    mean = (profile.softmax(0) * b).sum()
    return float(torch.log1p(-mean * x).mean())
