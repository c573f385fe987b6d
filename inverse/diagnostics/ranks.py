"""Ranks of the truth among posterior draws: uniform if the draws follow the posterior.

For truth x0* ~ p(x0), y ~ p(y | x0*) and exact draws x0_1 ... x0_L ~ p(x0 | y) all L + 1 are
exchangeable given y, so that for any function T of x0 and y

    u = (#{T_l < T*} + U (1 + #{T_l = T*})) / (L + 1),     U ~ uniform(0, 1),

is uniform on (0, 1), exactly and for every L; U breaks ties, of discrete quantities too.

Papers: Talts et al. 2018, Validating Bayesian Inference Algorithms with Simulation-Based
Calibration, https://arxiv.org/abs/1804.06788; Modrak et al. 2023, Simulation-Based Calibration
Checking for Bayesian Computation: The Choice of Test Quantities Shapes Sensitivity,
https://arxiv.org/abs/2211.02383
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from ..checks import between, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TESTS = ("shape", "shift", "width", "low", "high")
"""What `Ranks.p_value` joins; see there."""


@final
@dataclass(frozen=True, repr=False)
class Ranks:
    """The ranks of one test quantity in N simulations, and how far from uniform they are.

    Five tests, each exact for every N. The first, Kolmogorov's, is of the whole `shape`; the others
    see their kinds of fault in fewer simulations. With the normal scores z = Phi^-1(u) ~ N(0, 1):
    `shift`, the mean of z; `width`, that of z^2; `low` and `high`, those of -log u and -log(1 - u)
    (Fisher's), for widths that a quantity of one sign shows at one of its ends.

    Attributes:
        u: (N,) ranks in [0, 1], float64; `Ranks.of` makes them.
        name: of the quantity.

    Raises:
        TypeError, ValueError: u is no float64 tensor (N,) with values in [0, 1].
    """

    u: Tensor
    name: str = ""

    def __post_init__(self) -> None:
        u = self.u
        if not isinstance(u, Tensor) or u.dtype != torch.float64:
            kind = u.dtype if isinstance(u, Tensor) else type(u).__name__
            raise TypeError(f"ranks must be a tensor of torch.float64, got {kind}")
        if u.ndim != 1 or len(u) < 1 or not bool(((u >= 0) & (u <= 1)).all()):
            raise ValueError(f"ranks must be (N,) values in [0, 1], got shape {tuple(u.shape)}")

    @classmethod
    def of(
        cls,
        truth: Tensor,
        drawn: Tensor,
        generator: torch.Generator,
        weights: Tensor | None = None,
        name: str = "",
    ) -> Ranks:
        """Ranks of `truth` (N,) among `drawn` (N, L), jittered by the generator.

        Weighted draws keep their weights (N, L), which sum to 1 for each simulation: with
        L_eff = 1 / sum w^2 effective draws,

            u = (L_eff sum_{T_l < T*} w_l + U (1 + L_eff sum_{T_l = T*} w_l)) / (L_eff + 1).

        Resampling to equal weights would add noise of its own. Exactly uniform for equal weights
        alone; else as L_eff grows.
        """
        jitter = torch.rand(truth.shape, generator=generator, dtype=torch.float64)
        return cls(rank(truth, drawn, jitter, weights), name)

    def __repr__(self) -> str:
        named = f"{self.name!r}, " if self.name else ""
        return f"Ranks({named}N={len(self)}, D={self.distance:.3f}, p={self.p_value:.2g})"

    def __len__(self) -> int:
        return len(self.u)

    @property
    def distance(self) -> float:
        """D = sup |F_N(u) - u|, Kolmogorov and Smirnov's distance to uniform."""
        u, n = self.u.sort().values, len(self)
        steps = torch.arange(n + 1, dtype=torch.float64) / n
        return float(torch.maximum(steps[1:] - u, u - steps[:-1]).max())

    @property
    def scores(self) -> Tensor:
        """z = Phi^-1(u), (N,): N(0, 1) if the draws are exact."""
        return torch.special.ndtri(self._inner)

    @property
    def _inner(self) -> Tensor:
        """u without its ends, that one value in 1e9 does not decide."""
        return self.u.clamp(1e-9, 1 - 1e-9)

    @property
    def mean(self) -> tuple[float, float]:
        """The mean rank, 1/2 if the draws are exact, and its standard error."""
        n = len(self)
        spread = float(self.u.std()) if n > 1 else math.sqrt(1 / 12)
        return float(self.u.mean()), spread / math.sqrt(n)

    @cached_property
    def p_values(self) -> dict[str, float]:
        """Of each of `TESTS`, two-sided and exact."""
        from scipy import special, stats

        n, z = len(self), self.scores

        def chi_square(value: Tensor, degrees: int) -> float:
            total = float(value.sum())
            tails = special.chdtr(degrees, total), special.chdtrc(degrees, total)
            return min(1.0, 2 * float(min(tails)))

        return {
            "shape": float(stats.kstwo.sf(self.distance, n)),
            "shift": math.erfc(abs(float(z.sum())) / math.sqrt(2 * n)),
            "width": chi_square(z.square(), n),
            "low": chi_square(-2 * self._inner.log(), 2 * n),
            "high": chi_square(-2 * torch.log1p(-self._inner), 2 * n),
        }

    @property
    def p_value(self) -> float:
        """Of the five tests together: five times the least, at most 1 (Bonferroni)."""
        return min(1.0, len(TESTS) * min(self.p_values.values()))

    def plot(self, ax: Axes | None = None, level: float = 0.05, seed: int = 0) -> Axes:
        """Draw F_N(u) - u and the band that holds all of it with probability 1 - level.

        Paper: Sailynoja et al. 2022, Graphical Test for Discrete Uniformity and its Applications
        in Goodness-of-Fit Evaluation and Multiple Sample Comparison,
        https://arxiv.org/abs/2103.10522
        """
        from matplotlib.figure import Figure

        if ax is None:
            ax = Figure(figsize=(4, 3), dpi=150, layout="constrained").subplots()
        grid, low, high = band(len(self), level, seed)
        shown: Any = grid.numpy()
        ax.fill_between(shown, (low - grid).numpy(), (high - grid).numpy(), color="#dbe6f2", lw=0)
        ax.axhline(0, color="#888888", lw=0.7)
        points = torch.cat([grid, self.u]).sort().values
        count = torch.searchsorted(self.u.sort().values, points, right=True).double()
        curve = count / len(self) - points
        ax.step(points.numpy(), curve.numpy(), where="post", color="#1f4e79", lw=1.2)
        ax.set_xlim(0, 1)
        ax.set_title(f"{self.name}  p = {self.p_value:.2g}".strip(), fontsize=8)
        ax.tick_params(labelsize=7)
        return ax


def rank(truth: Tensor, drawn: Tensor, jitter: Tensor, weights: Tensor | None = None) -> Tensor:
    """u (N, ...) of truth (N, ...) among drawn (N, L, ...), float64; see `Ranks.of`.

    Args:
        jitter: uniform in [0, 1), (N, ...).
        weights: (N, L), or None where all draws count alike.
    """
    if drawn.shape[:1] + drawn.shape[2:] != truth.shape or jitter.shape != truth.shape:
        raise ValueError(
            f"draws must be (N, L, ...) and jitter (N, ...) for truths {tuple(truth.shape)}, got "
            f"{tuple(drawn.shape)} and {tuple(jitter.shape)}"
        )
    below, equal = drawn < truth[:, None], drawn == truth[:, None]
    if weights is None:
        count = float(drawn.shape[1])
        return (below.sum(1) + jitter * (1 + equal.sum(1))) / (count + 1)
    if weights.shape != drawn.shape[:2]:
        raise ValueError(f"weights must be {tuple(drawn.shape[:2])}, got {tuple(weights.shape)}")
    own = weights.double().reshape(*weights.shape, *[1] * (drawn.ndim - 2))
    worth = 1 / own.square().sum(1)
    u = (worth * (own * below).sum(1) + jitter * (1 + worth * (own * equal).sum(1))) / (worth + 1)
    return u.clamp(0, 1)  # weights sum to 1 up to rounding


def reached(level: float, n: int) -> float:
    """The distance D that ranks of N simulations with exact draws exceed with probability `level`.

    Of Kolmogorov's exact law; about 1.95 / sqrt(N) for level 1e-3.
    """
    from scipy import stats

    whole(n, "n")
    return float(stats.kstwo.isf(between(level, "level", 1e-12, 1 - 1e-12), n))


@cache
def band(n: int, level: float = 0.05, seed: int = 0, points: int = 100) -> tuple[Tensor, ...]:
    """A grid of u (points,), and the bounds (low, high) between which the empirical distribution
    of n uniform ranks stays on all of it with probability 1 - level.

    Binomial quantiles, their level chosen by 2000 simulated sets of ranks.
    """
    from scipy import stats

    whole(n, "n")
    between(level, "level", 1e-4, 0.5)
    grid = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1]
    generator = torch.Generator().manual_seed(seed)
    least = []
    for _ in range(10):
        u = torch.rand(200, n, generator=generator, dtype=torch.float64).sort(1).values
        count = torch.searchsorted(u, grid.expand(200, -1).contiguous(), right=True).numpy()
        below = stats.binom.cdf(count, n, grid.numpy())
        above = stats.binom.sf(count - 1, n, grid.numpy())
        least.append(torch.from_numpy(2 * below.clip(max=above)).amin(1))
    # A hair below: the chosen value is one that curves attain, and those are to stay inside.
    chosen = float(torch.cat(least).quantile(level)) * (1 - 1e-9)
    low = torch.from_numpy(stats.binom.ppf(chosen / 2, n, grid.numpy())) / n
    high = torch.from_numpy(stats.binom.isf(chosen / 2, n, grid.numpy())) / n
    return grid, low, high
