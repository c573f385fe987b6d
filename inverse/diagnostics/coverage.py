"""Expected coverage: how often the truth lies in the central intervals of the draws.

With u the rank of one true value among the draws of it, the central interval of level c holds it
where |u - 1/2| < c / 2, which happens with probability c, exactly, if the draws are exact: the
jitter of u stands for an interval's end between two draws. Values of one image are not independent,
so that the error is over simulations, of each of which the share of covered values is one number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = tuple(round(0.05 * k, 2) for k in range(1, 20))


@final
@dataclass(frozen=True, repr=False)
class Coverage:
    """The share of true values inside the intervals, at each of `LEVELS`.

    Attributes:
        shares: (N, levels): of each simulation, the share of its values inside; float64.
        name: of the values.
    """

    shares: Tensor
    name: str = ""

    def __post_init__(self) -> None:
        shares = self.shares
        if shares.ndim != 2 or len(shares) < 1 or shares.shape[1] != len(LEVELS):
            raise ValueError(
                f"shares must be (N, {len(LEVELS)}), one column a level, got {tuple(shares.shape)}"
            )

    @classmethod
    def of(cls, u: Tensor, name: str = "") -> Coverage:
        """From ranks u (N, M) of M values in each of N simulations; see `diagnostics.rank`."""
        return cls(inside(u), name)

    def __repr__(self) -> str:
        value, error = self.at(0.9)
        return f"Coverage({self.name!r}, N={len(self.shares)}, at .9: {value:.3f} +- {error:.3f})"

    @property
    def mean(self) -> Tensor:
        """(levels,): equal to the level if the draws are exact."""
        return self.shares.mean(0)

    @property
    def error(self) -> Tensor:
        """(levels,): its standard error, at least that of values that all move together would
        be with a smoothed count, so that it is never 0."""
        n = len(self.shares)
        p = (n * self.mean + 1) / (n + 2)
        spread = self.shares.std(0) if n > 1 else p.mul(1 - p).sqrt()
        return torch.maximum(spread / math.sqrt(n), (p * (1 - p)).sqrt() / (n + 2))

    def at(self, level: float) -> tuple[float, float]:
        """Coverage and its standard error at one of `LEVELS`."""
        if level not in LEVELS:
            raise ValueError(f"level must be one of {LEVELS}, got {level!r}")
        k = LEVELS.index(level)
        return float(self.mean[k]), float(self.error[k])

    def plot(self, ax: Axes | None = None, color: str = "#1f4e79") -> Axes:
        """Draw coverage over level with twice its standard error, beside the diagonal."""
        from matplotlib.figure import Figure

        if ax is None:
            ax = Figure(figsize=(4, 4), dpi=150, layout="constrained").subplots()
            ax.plot([0, 1], [0, 1], color="#888888", lw=0.7)
        mean, error = self.mean.tolist(), (2 * self.error).tolist()
        ax.errorbar(LEVELS, mean, yerr=error, color=color, lw=1.2, elinewidth=0.7, label=self.name)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_xlabel("level of the interval", fontsize=8)
        ax.set_ylabel("truths inside", fontsize=8)
        ax.tick_params(labelsize=7)
        return ax


def inside(u: Tensor) -> Tensor:
    """(N, levels): the share of ranks u (N, M) within each central interval."""
    if u.ndim != 2 or u.numel() < 1 or not bool(((u >= 0) & (u <= 1)).all()):
        raise ValueError(f"ranks must be (N, M) values in [0, 1], got shape {tuple(u.shape)}")
    apart = 2 * (u.double() - 0.5).abs()
    ordered = apart.sort(1).values
    levels = torch.tensor(LEVELS, dtype=torch.float64).to(u.device).expand(len(u), -1).contiguous()
    return torch.searchsorted(ordered, levels).double() / u.shape[1]
