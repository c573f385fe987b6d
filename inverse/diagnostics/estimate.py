"""A figure with its standard error, and what it would be were the claim it tests true."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[[int, torch.Generator], Tensor]
"""Exact draws (n, *event) of a law, independent of each other, such as `Mixture.sample`."""


@dataclass(frozen=True)
class Null:
    """What a figure came to on simulated sets for which the claim holds.

    Attributes:
        values: (R,), float64, in increasing order.
        of: what these sets are.
    """

    values: Tensor
    of: str = "exact sets"

    def __repr__(self) -> str:
        return f"Null({len(self.values)} {self.of}, median {self.median:.4g})"

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def quantile(self, level: float) -> float:
        """The value that a share `level` of the sets stays below; R limits how far out."""
        if not 0 <= level <= 1:
            raise ValueError(f"level must lie in [0, 1], got {level!r}")
        return float(self.values.quantile(level))

    def p_value(self, value: float) -> float:
        """(1 + number of sets at or above `value`) / (R + 1): never below 1 / (R + 1)."""
        return (1 + int((self.values >= value).sum())) / (len(self.values) + 1)


@dataclass(frozen=True)
class Estimate:
    """A figure, its standard error, and its null where one was simulated.

    Attributes:
        value: the figure.
        error: one standard error; which chances it covers, the function that made it says.
        null: see `Null`.
    """

    value: float
    error: float
    null: Null | None = None

    @property
    def p_value(self) -> float | None:
        """Chance of a value as large were the claim true; None without a null."""
        return None if self.null is None else self.null.p_value(self.value)

    def __str__(self) -> str:
        shown = f"{self.value:.4g} ± {self.error:.2g}"
        if self.null is None:
            return shown
        return f"{shown} ({self.null.of}: {self.null.median:.3g}, p = {self.p_value:.2g})"


def flat(x: Tensor, name: str = "x") -> Tensor:
    """Samples (n, *event) as (n, D) in float64; refused unless there are two, all finite."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating tensor (n, *event), got {kind}")
    if x.ndim < 1 or x.shape[0] < 2 or x.numel() == 0:
        raise ValueError(f"{name} must hold at least two samples, got shape {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x.reshape(len(x), -1)).all(1)).sum())
        raise ValueError(f"{name} must be finite; {bad} of {len(x)} samples are not")
    return x.detach().double().cpu().reshape(len(x), -1)


def shares(weights: Tensor | None, count: int, name: str = "weights") -> Tensor:
    """Weights (n,), >= 0, divided by their sum, float64; equal ones for None."""
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        kind = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise TypeError(f"{name} must be a floating tensor (n,), got {kind}")
    w = weights.detach().double().cpu()
    if tuple(w.shape) != (count,):
        raise ValueError(f"{name} must have shape ({count},), got {tuple(w.shape)}")
    bad = ~torch.isfinite(w) | (w < 0)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"{name} must be finite and >= 0; {int(bad.sum())} of {count} are not, the first is "
            f"{float(w[first])} at {first} (of log weights, give the softmax)"
        )
    if float(w.max()) <= 0:
        raise ValueError(f"{name} must not all be 0; all {count} are")
    w = w / w.max()
    return w / w.sum()


def effective(w: Tensor) -> float:
    """How many equal weights these, which add up to 1, are worth: 1 / sum w^2."""
    # Rounding of weights that are all alike may give more than there are.
    return min(float(1 / w.square().sum()), float(len(w)))


def null_of(draw: Draw, figure: Callable[[Tensor], float], n: int, times: int, seed: int) -> Null:
    """The null of a figure of n exact draws, over `times` sets."""
    source = torch.Generator().manual_seed(seed)
    values = [figure(draw(n, source)) for _ in range(times)]
    return Null(torch.tensor(values, dtype=torch.float64).sort().values)


def axes_of(to: Axes | str | os.PathLike[str] | None, size: tuple[float, float]) -> Axes:
    """The given axes, or new ones of a figure that belongs to no window."""
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    if isinstance(to, Axes):
        return to
    if to is not None and not isinstance(to, str | os.PathLike):
        raise TypeError(f"to must be axes or the path of a picture, got {type(to).__name__}")
    if to is not None and os.path.isdir(to):
        raise ValueError(f"to must be the path of a picture, got the folder {os.fspath(to)}")
    axes = Figure(figsize=size, dpi=150, layout="constrained").subplots()
    axes.tick_params(labelsize=8, length=3, colors="#555555")
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
    return axes


def written(axes: Axes, to: Axes | str | os.PathLike[str] | None) -> Axes:
    """The axes, saved as a picture where `to` is a path."""
    if isinstance(to, str | os.PathLike):
        # No date and no version inside: the same figures give the same bytes.
        axes.figure.savefig(to, metadata={"Software": None})  # type: ignore[union-attr]
    return axes


def draw_null(axes: Axes, estimate: Estimate, label: str) -> None:
    """A histogram of the null and the figure as a line across it."""
    if estimate.null is not None:
        axes.hist(estimate.null.values.numpy(), bins=30, color="#9ecae1", label=estimate.null.of)
    axes.axvline(estimate.value, color="#d62728", lw=1.5, label=str(estimate).partition(" (")[0])
    axes.axvspan(
        estimate.value - estimate.error,
        estimate.value + estimate.error,
        color="#d62728",
        alpha=0.15,
    )
    if estimate.null is None:
        axes.set_xlim(min(0.0, estimate.value - 2 * estimate.error),
                      estimate.value + 2 * estimate.error + 1e-12)  # fmt: skip
    axes.set_xlabel(label, fontsize=9)
    axes.set_yticks([])
    axes.legend(fontsize=7, frameon=False)
