"""How much too narrow, too wide or shifted draws are, whatever the shape of the posterior.

With m and s^2 the mean and the (unbiased) variance of L draws, and e = x0* - m,

    E[e^2] = (1 + 1/L) E[s^2]

for exact draws of any law, as the truth is one more of them. The ratio R of the two sides, summed
over the simulations, makes the width of the draws over the right one 1 / sqrt(R); the mean of e
is their shift.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from .quantities import View
from .ranks import Ranks, rank


@dataclass(frozen=True)
class Width:
    """The width of the draws in one view, over that of the posterior; 1 if exact.

    Attributes:
        value, error: the ratio and its standard error over the simulations.
        words: of what.
    """

    value: float
    error: float
    words: str

    @property
    def deviation(self) -> float:
        """In standard errors, of log width."""
        if self.value <= 0:
            return -math.inf
        return math.log(self.value) * self.value / max(self.error, 1e-12)

    def __str__(self) -> str:
        kind = "narrow" if self.value < 1 else "wide"
        amount = 100 * abs(self.value - 1)
        return f"too {kind} by {amount:.0f} % +- {100 * self.error:.0f} % in {self.words}"


@dataclass(frozen=True)
class Shift:
    """How far the draws of one number lie from where they should, in standard deviations of the
    posterior (as the draws have it), with its standard error."""

    value: float
    error: float
    label: str

    def __str__(self) -> str:
        return (
            f"shifted by {self.value:+.2f} +- {self.error:.2f} posterior standard deviations in "
            f"{self.label}"
        )


def width(view: View, error: Tensor, variance: Tensor, weights: Tensor) -> Width:
    """Of the entries of a view, each scaled by the mean variance of its draws.

    Args:
        error: truth less mean of the draws, (N, J).
        variance: of the draws, (N, J).
        weights: of the draws, (N, L).
    """
    n = len(error)
    expected = variance * (1 + weights.square().sum(1, keepdim=True))
    # A shift is told on its own.
    found = (error - error.mean(0)).square() * (n / max(n - 1, 1))
    unit = expected.mean(0).clamp(min=1e-24).maximum(1e-12 * found.mean(0))
    found, expected = (found / unit).mean(1), (expected / unit).mean(1)
    above, below = float(found.mean()), float(expected.mean())
    if below < 1e-9 * above:
        return Width(0.0, 0.0, view.words)
    ratio = above / max(below, 1e-300)
    spread = float((found - ratio * expected).std()) / (math.sqrt(n) * below)
    value = ratio**-0.5 if ratio > 0 else math.inf
    return Width(value, 0.5 * value**3 * spread, view.words)


def shifts(view: View, error: Tensor, variance: Tensor) -> list[Shift]:
    """Of each entry of a view: the draws less the truth, on average over the simulations."""
    unit = variance.mean(0).clamp(min=1e-24).maximum(1e-12 * error.var(0)).sqrt()
    values = -error.mean(0) / unit
    errors = error.std(0) / math.sqrt(len(error)) / unit
    told = zip(values.tolist(), errors.tolist(), view.labels, strict=True)
    return [Shift(*one) for one in told]


def far(spread: Tensor) -> Tensor:
    """Which truths lie outside all draws by far, (N,) bool: at more than twice the `spread`
    (N, 1 + L), truth first, of any draw."""
    return spread[:, 0] > 2 * spread[:, 1:].amax(1)


def outside(spread: Tensor) -> float:
    """The chance of as many truths that are `far`.

    Of the simulations in which one of the 1 + L is so far from the others, it is the truth in one
    of 1 + L for exact draws: binomial, exactly.
    """
    from scipy import stats

    first, second = spread.topk(2, 1).values.T
    cases, count = int((first > 2 * second).sum()), int(far(spread).sum())
    return float(stats.binom.sf(count - 1, cases, 1 / spread.shape[1])) if count else 1.0


def visible(values: Tensor, weights: Tensor, level: float, seed: int = 0) -> float | None:
    """The least error of width that the ranks of a `spread` would have shown at this level.

    Draws take the place of truths, and the others are drawn together or apart by a factor
    1 +- w, half of the trials either way; the least w of a grid at which most trials are caught,
    None if none is, or where particles of some weight are too few to stand for truths.

    Args:
        values: (N, 1 + L), truth first; weights: (N, L).
        level: of the p-value of `Ranks`.
    """
    if worth(weights) < FEW:
        return None
    generator = torch.Generator().manual_seed(seed)
    n, count = values.shape[0], values.shape[1] - 1
    draws = values[:, 1:]
    trials = []
    for _ in range(4):
        chosen = weights.double().multinomial(1, generator=generator)[:, 0]
        others = torch.ones(n, count, dtype=torch.bool)
        others[torch.arange(n), chosen] = False
        rest = weights[others].reshape(n, -1)
        rest = torch.where(rest.sum(1, keepdim=True) > 1e-9, rest, 1 / (count - 1))
        rest = rest / rest.sum(1, keepdim=True)
        jitter = torch.rand(n, generator=generator, dtype=torch.float64)
        trials.append((draws.gather(1, chosen[:, None])[:, 0], draws[others].reshape(n, -1),
                       jitter, rest))  # fmt: skip

    def seen(w: float) -> bool:
        caught = [
            Ranks(rank(truth, factor**2 * others, jitter, rest)).p_value < level
            for truth, others, jitter, rest in trials
            for factor in (1 + w, 1 / (1 + w))
        ]
        return 2 * sum(caught) > len(caught)

    first = bisect_left(_WIDTHS, True, key=seen)
    return _WIDTHS[first] if first < len(_WIDTHS) else None


def worth(weights: Tensor) -> float:
    """The effective number of draws of a simulation, the median; weights (N, L)."""
    return float((1 / weights.double().square().sum(1)).median())


FEW = 8
"""Effective draws below which they cannot stand for truths."""
_WIDTHS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5,
           0.7, 1.0, 1.5, 2.0, 4.0)  # fmt: skip
