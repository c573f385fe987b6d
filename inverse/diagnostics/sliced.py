"""Sliced Wasserstein distances between two sets of samples, weighted or not.

In one dimension W_p^p = int_0^1 |F^-1(u) - G^-1(u)|^p du, by sorting. Over random directions theta

    mean W1 = E_theta W_1(theta x, theta x'),      W2 = (E_theta W_2^2)^(1/2),
    largest = max over the directions drawn of W_2,

of which the first two are distances of laws where every direction counts (in expectation), the last
a bound of the largest there is from below.

Papers: Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", 2015,
https://doi.org/10.1007/s10851-014-0506-3; Deshpande et al., "Max-Sliced Wasserstein Distance and
its Use for GANs", 2019, https://arxiv.org/abs/1904.05877
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from ..checks import whole
from .estimate import Draw, Estimate, Null, axes_of, draw_null, effective, flat, shares, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Projected(NamedTuple):
    """A set on P directions: values (P, n) in increasing order, which sample each is (None where
    nobody asked), and its weight (P, n), or None where all count alike."""

    values: Tensor
    rows: Tensor | None
    weights: Tensor | None

    def without(self, dropped: Tensor) -> Projected:
        """The set without the samples marked in `dropped` (n,)."""
        assert self.rows is not None
        kept = ~dropped[self.rows]
        values, rows = (t[kept].reshape(len(t), -1) for t in (self.values, self.rows))
        if self.weights is None:
            return Projected(values, rows, None)
        w = self.weights[kept].reshape(len(values), -1)
        return Projected(values, rows, w / w.sum(1, keepdim=True))


class Distances(NamedTuple):
    """W_1 and W_2 on each direction, (P,)."""

    w1: Tensor
    w2: Tensor

    def figures(self) -> Tensor:
        """Mean W1, W2 and the largest W_2, (3,)."""
        return torch.stack([self.w1.mean(), self.w2.square().mean().sqrt(), self.w2.max()])


def distances(a: Projected, b: Projected) -> Distances:
    """W_1 and W_2 between two projected sets, on each of the directions they share."""
    n, m = a.values.shape[1], b.values.shape[1]
    if a.weights is None and b.weights is None and max(n, m) % min(n, m) == 0:
        most = max(n, m)
        each = (t.repeat_interleave(most // t.shape[1], 1) for t in (a.values, b.values))
        gap = (next(each) - next(each)).abs()
        return Distances(gap.mean(1), gap.square().mean(1).sqrt())
    # Between neighbouring heights of either distribution function both quantiles are constant.
    edges, order = torch.cat([_cumulative(a), _cumulative(b)], 1).sort(1)
    width = edges.diff(dim=1, prepend=edges.new_zeros(len(edges), 1))
    of_a = (order < n).long()
    passed = of_a.cumsum(1) - of_a
    of_b = torch.arange(n + m) - passed
    gap = a.values.gather(1, passed.clamp(max=n - 1)) - b.values.gather(1, of_b.clamp(max=m - 1))
    return Distances((gap.abs() * width).sum(1), (gap.square() * width).sum(1).sqrt())


def _cumulative(s: Projected) -> Tensor:
    """The distribution function after each value, (P, n)."""
    P, n = s.values.shape
    if s.weights is not None:
        return s.weights.cumsum(1)
    return (torch.arange(1, n + 1, dtype=torch.float64) / n).expand(P, n).contiguous()


@final
class Slices:
    """Random directions, and one set of samples projected on them once, to compare others with.

    Args:
        other: (n, *event), the set that all are compared with.
        weights: (n,), of any scale; equal by default.
        projections: P, how many directions, uniform on the sphere.
        seed: of the directions.
    Attributes:
        directions: (P, D), of unit length.
        other: the projected set.

    Costs O(P n (D + log n)) for each set.
    """

    def __init__(
        self, other: Tensor, weights: Tensor | None = None, *, projections: int = 500, seed: int = 0
    ) -> None:
        x = flat(other, "other")
        source = torch.Generator().manual_seed(seed)
        directions = torch.randn(
            whole(projections, "projections"), x.shape[1], generator=source, dtype=torch.float64
        )
        self.directions = directions / directions.norm(dim=1, keepdim=True)
        self.other = self.projected(other, weights, rows=True)

    def projected(
        self, x: Tensor, weights: Tensor | None = None, *, rows: bool = False
    ) -> Projected:
        """Another set on the same directions; with `rows` it is known which sample is where."""
        samples = flat(x)
        if samples.shape[1] != self.directions.shape[1]:
            raise ValueError(
                f"both sets must have as many values a sample, got {samples.shape[1]} and "
                f"{self.directions.shape[1]}"
            )
        along = (self.directions @ samples.mT).numpy()
        if weights is None and not rows:
            return Projected(torch.from_numpy(np.sort(along, 1)), None, None)
        order = torch.from_numpy(np.argsort(along, 1))
        values = torch.from_numpy(along).gather(1, order)
        w = None if weights is None else shares(weights, len(samples))[order]
        return Projected(values, order, w)

    def to(self, x: Tensor, weights: Tensor | None = None) -> Distances:
        """From the set x (n, *event), weighted (n,) or not, to `other`."""
        return distances(self.projected(x, weights), self.other)


@dataclass(frozen=True)
class SlicedWasserstein:
    """Sliced distances between two sets, in data units.

    Attributes:
        w1: mean W1. w2: W2. largest: W_2 on the worst of the directions drawn.
        direction: (D,), that direction.
        sizes: how many samples of equal weight each set is worth.

    Errors cover the sampling of both sets, for distances well above those of exact sets; near
    them the null is what tells. They do not cover the choice of directions, which both share.
    """

    w1: Estimate
    w2: Estimate
    largest: Estimate
    direction: Tensor
    sizes: tuple[float, float]

    def __str__(self) -> str:
        return f"W1 {self.w1}, W2 {self.w2}, W2 on the worst direction {self.largest}"

    def plot(self, to: Axes | str | os.PathLike[str] | None = None) -> Axes:
        """W2 beside what exact sets of these sizes reach; on axes, or into a picture at a path."""
        axes = axes_of(to, (4.5, 2.6))
        draw_null(axes, self.w2, "sliced W2, data units")
        return written(axes, to)


def sliced_wasserstein(
    x: Tensor,
    other: Tensor,
    *,
    weights: Tensor | None = None,
    other_weights: Tensor | None = None,
    projections: int = 500,
    seed: int = 0,
    null: Draw | Literal["permutation"] | None = None,
    replicates: int = 200,
    groups: int = 20,
) -> SlicedWasserstein:
    """Sliced W1, W2 and max-sliced W2 between two sets, with errors and a simulated null.

    Exact for the sets and directions given; as distances between the laws behind them they are too
    large, by what the null shows. Errors are delete-a-group jackknives over samples, which must be
    independent or exchangeable: group g is dropped from both sets at once.

    Args:
        x, other: (n, *event) and (n', *event), data units.
        weights, other_weights: (n,) and (n',), of any scale; equal by default.
        projections, seed: how many random directions, and their seed (and the null's).
        null: a function that draws n exact samples, (n, generator) -> (n, *event), for the
            distance between two exact sets, as large as these sets are worth (1 / sum w^2); or
            "permutation", for unweighted sets alone, which asks whether the two share one law; or
            None.
        replicates: pairs of sets of the null; p-values end at 1 / (replicates + 1).
        groups: of the jackknife, at most the size of the smaller set.
    Raises:
        TypeError, ValueError: sets or weights that do not fit, and permutations of weighted sets.
    """
    whole(replicates, "replicates")
    slices = Slices(other, other_weights, projections=projections, seed=seed)
    mine = slices.projected(x, weights, rows=True)
    found = distances(mine, slices.other)
    sizes = effective(shares(weights, len(x))), effective(shares(other_weights, len(other)))
    errors = _jackknife(mine, slices.other, whole(groups, "groups", least=2))
    simulated: list[Null | None] = [None] * 3
    if null is not None:
        if null == "permutation" and (weights is not None or other_weights is not None):
            raise ValueError(
                "weighted sets cannot be permuted: give null a function that draws exact samples"
            )
        pair = _permuted(x, other) if null == "permutation" else _drawn(null, sizes)  # type: ignore[arg-type]
        source = torch.Generator().manual_seed(seed)
        values = torch.stack([
            distances(*map(slices.projected, pair(source))).figures() for _ in range(replicates)
        ])  # fmt: skip
        of = "shuffled sets" if null == "permutation" else "exact sets"
        simulated = [Null(column, of) for column in values.sort(0).values.unbind(1)]
    w1, w2, largest = (
        Estimate(float(value), float(error), law)
        for value, error, law in zip(found.figures(), errors, simulated, strict=True)
    )
    return SlicedWasserstein(w1, w2, largest, slices.directions[found.w2.argmax()], sizes)


Pair = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def _drawn(draw: Draw, sizes: tuple[float, float]) -> Pair:
    n, m = (max(2, round(size)) for size in sizes)
    return lambda source: (draw(n, source), draw(m, source))


def _permuted(x: Tensor, other: Tensor) -> Pair:
    both = torch.cat([flat(x), flat(other)])

    def pair(source: torch.Generator) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(both), generator=source)
        return both[order[: len(x)]], both[order[len(x) :]]

    return pair


def _jackknife(a: Projected, b: Projected, groups: int) -> Tensor:
    """Standard errors (3,) of the figures; sample i is in group i modulo their number."""
    sizes = [s.values.shape[1] for s in (a, b)]
    G = min(groups, *sizes)
    left = torch.stack([
        distances(*(
            s.without(torch.arange(n) % G == g) for s, n in zip((a, b), sizes, strict=True)
        )).figures()
        for g in range(G)
    ])  # fmt: skip
    return ((left - left.mean(0)).square().sum(0) * (G - 1) / G).sqrt()
