"""One pair of noise levels of the martingale test: what log ratios of a likelihood say.

Ratios l (n, M) of M draws at each of n states; the identity is E exp l = 1 at every state. The log
of a mean that rests on few large ratios is low by itself: by Var / 2M, which is taken off, and by
as much again that so few draws do not show. So a bias counts from `systematic` on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .estimate import Estimate

Verdict = Literal["holds", "violated", "unknown"]
LEAST = 20.0
"""Draws of equal weight that E[exp l | x_t] must rest on, to be told."""
KNOWN, FEWEST = 0.9, 8
"""Share and number of states with a known bias that a verdict takes: those with an unknown one
are not like the others."""
UNKNOWN = 0.2
"""What the states left out may differ by in bias, nats: they are those with the largest ratios."""


@dataclass(frozen=True)
class Pair:
    """The identity between two levels.

    Attributes:
        sigma, below: t and s, data units; s = 0 compares with p(y | x0) itself.
        bias: mean of the bias over states, nats; negative where p~ is smaller, on average over
            the draws of x_s, than it was at x_t.
        violation: root mean square of the bias over states, nats, from products of two
            independent halves of the draws, so that noise adds nothing to it in expectation.
        systematic: a bias that cannot be told from none at so few draws, nats.
        variance: Var[l | x_t], mean over states, nats^2.
        known: share of the states at which the average rests on at least 20 draws of equal weight.
        p_value: the least of three, times three, by Student's t over states: of the bias, of the
            violation, and of the covariance of the two halves, each state's bias in units of its
            error and bounded, so that no state outweighs the others.
        verdict: "unknown" where fewer than 90 % of the states (or 8) are known: then the levels
            are too far apart for the test; "violated" where the chance of it among all pairs is
            below 1 in 1000 and the violation above the tolerance; else "holds", which excludes
            violations above `excluded` alone.

    Errors are standard errors over states; bias and violation are of known states.
    """

    sigma: float
    below: float
    bias: Estimate
    violation: Estimate
    systematic: float
    variance: Estimate
    known: float
    p_value: float
    verdict: Verdict

    @property
    def excluded(self) -> float:
        """Violations above this would probably have been seen, nats."""
        return self.violation.value + 2 * self.violation.error


class LogMean(NamedTuple):
    """log mean exp of each row, (n,): its value, less the bias Var / 2M of the logarithm, its
    standard error, and the effective sample size of the mean."""

    value: Tensor
    error: Tensor
    size: Tensor

    @property
    def bounded(self) -> Tensor:
        """The value in units of its error, drawn into [-1, 1]: no state outweighs the others."""
        return self.value / torch.hypot(self.value, self.error).clamp(min=1e-300)

    @property
    def taken_off(self) -> Tensor:
        """The bias that was taken off."""
        return self.error.square() / 2


def log_mean(ratio: Tensor) -> LogMean:
    """Of log ratios (n, M), row by row."""
    M = ratio.shape[1]
    value = ratio.logsumexp(1) - math.log(M)
    w = (ratio - value[:, None]).exp()  # of mean 1
    variance = w.var(1) / M
    return LogMean(value + variance / 2, variance.sqrt(), M / w.square().mean(1))


def pair_of(t: float, s: float, ratio: Tensor) -> Pair:
    """The pair with its figures; whether it is violated, `judged` says."""
    halves = [log_mean(half) for half in ratio.chunk(2, 1)]
    finite = torch.isfinite(ratio).all(1)
    known = finite & (halves[0].size + halves[1].size >= LEAST)
    (first, a), (second, b) = ((half.value[known], half.taken_off[known]) for half in halves)
    count = int(known.sum())
    share = count / len(ratio)
    bias, square = _mean((first + second) / 2), _mean(first * second)
    rms = math.sqrt(max(square.value, 0.0))
    violation = Estimate(rms, math.sqrt(max(square.value, 0.0) + square.error) - rms)
    systematic = float((a + b).mean() / 2) + UNKNOWN * (1 - share) if count else math.nan
    pair = Pair(
        t, s, bias, violation, systematic, _mean(ratio[finite].var(1)), share, math.nan, "unknown"
    )
    if share < KNOWN or count < FEWEST:
        return pair
    beyond = Estimate(max(abs(bias.value) - systematic, 0.0), bias.error)
    least = min(
        2 * _student(beyond, count),
        _student(_mean(first * second - a * b), count),
        _student(_mean(_together(*(half.bounded[known] for half in halves))), count),
    )
    return replace(pair, p_value=min(1.0, 3 * least), verdict="holds")


def judged(pair: Pair, alarm: float, tolerance: float) -> Pair:
    """The pair, "violated" where it was seen to be."""
    size = max(pair.violation.value, abs(pair.bias.value))
    seen = pair.verdict == "holds" and pair.p_value < alarm and size > tolerance
    return replace(pair, verdict="violated") if seen else pair


def _together(first: Tensor, second: Tensor) -> Tensor:
    """What both halves of the draws say of a state in common: zero on average without violation,
    even where they are skewed alike at all states."""
    return (first - first.mean()) * (second - second.mean())


def _mean(values: Tensor) -> Estimate:
    """The mean over states and its standard error."""
    if len(values) < 2:
        return Estimate(math.nan, math.nan)
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def _student(mean: Estimate, count: int) -> float:
    """The chance of a mean so far above 0; 1 where nothing varies about 0."""
    from scipy.stats import t

    if mean.error == 0:
        return 0.0 if mean.value > 0 else 1.0
    return float(t.sf(mean.value / mean.error, count - 1))
