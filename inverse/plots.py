"""Pictures of scores and densities of two values: arrows over a map, and Bayes' rule in a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priors import Prior

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Extent = tuple[float, float, float, float]
"""(left, right, bottom, top) in data units."""

Function = Callable[[Tensor], Tensor]

RESOLUTION = 160
"""Points along the longer side of a map of density."""


def density(
    prior: Prior,
    sigma: float,
    *,
    extent: Extent | None = None,
    ax: Axes | None = None,
    cmap: str = "Blues",
) -> Axes:
    """Draw p_sigma, the density of x0 + sigma eps, of a prior over two values.

    For a posterior it is prior density times likelihood at level sigma, known up to a factor.
    The colour grows with the density; contours halve it six times.

    Args:
        prior: with event_shape (2,) and a `log_density` (Gaussian, Mixture, Empirical), or a
            posterior of such a prior. Costs no network call.
        sigma: noise level, data units; > 0, or 0 where the prior has a density there.
        extent: (left, right, bottom, top); by default three standard deviations around the mean.
        ax: where to draw; by default new axes of a figure that belongs to no window.
        cmap: a colour map of matplotlib, from no density to the largest.
    Returns:
        The axes; `ax.figure.savefig(path)` writes them.
    Raises:
        ValueError: events of another shape, or a prior without a density.
    """
    log_p = _log_density(prior, sigma)
    if log_p is None:
        raise ValueError(
            f"{type(prior).__name__} has no log_density; draw its score_field, or ask "
            "priors.log_prob for single points"
        )
    window = _window(prior, sigma, extent)
    axes = _axes(ax, window)
    _draw_density(axes, log_p, window, cmap)
    return axes


def score_field(
    prior: Prior,
    sigma: float,
    *,
    extent: Extent | None = None,
    arrows: int = 17,
    longest: float | None = None,
    ax: Axes | None = None,
    cmap: str = "Blues",
    color: str = "#1a1a1a",
) -> Axes:
    """Draw the score grad log p_sigma as arrows, over the density where that is known.

    Arrows start at their point. All are scaled alike, so that `longest` is as long as two arrows
    are apart; longer ones are cut to that.

    Args:
        prior: with event_shape (2,): any Prior, a posterior too. One network call in all.
        sigma: noise level, data units, > 0.
        extent, ax, cmap: as in `density`.
        arrows: how many along the longer side.
        longest: length of the score (1 / data unit) drawn longest; by default the 0.9 quantile.
        color: of the arrows.
    Returns:
        The axes.
    Raises:
        ValueError: events of another shape, sigma = 0, fewer than 2 arrows.
    """
    window = _window(prior, sigma, extent)
    log_p = _log_density(prior, sigma)
    axes = _axes(ax, window)
    if log_p is not None:
        _draw_density(axes, log_p, window, cmap)
    field = _field(prior, sigma, window, arrows)
    _draw_arrows(axes, field, longest or _longest(field), color)
    return axes


def bayes_rule(
    prior: Prior,
    posterior: Prior,
    sigmas: Sequence[float],
    *,
    extent: Extent | None = None,
    arrows: int = 13,
) -> Figure:
    """Draw Bayes' rule for scores: prior + likelihood = posterior, one row for each noise level.

        grad log p_sigma(x | y) = grad log p_sigma(x) + grad log p_sigma(y | x)

    The likelihood's score is the difference of the other two. Within a row all arrows have one
    scale, so that those of the first two columns add up to those of the third.

    Args:
        prior, posterior: over two values; the posterior from `inverse.condition`, or in closed
            form from the prior's own `condition`.
        sigmas: noise levels, data units, > 0; the first on top.
        extent, arrows: as in `score_field`, for all pictures.
    Returns:
        A figure that belongs to no window; `.savefig(path)` writes it.
    """
    from matplotlib.figure import Figure

    if len(sigmas) < 1:
        raise ValueError("give at least one noise level")
    window = _window(prior, float(max(sigmas)), extent)
    left, right, bottom, top = window
    side = 2.7
    height = side * (top - bottom) / (right - left)
    figure = Figure(
        figsize=(3 * side + 1.2, len(sigmas) * height + 0.75), dpi=150, layout="constrained"
    )
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(len(sigmas), 3, squeeze=False, sharex=True, sharey=True)
    titles = (
        r"prior   $\nabla \log p_\sigma(x)$",
        r"likelihood   $\nabla \log p_\sigma(y \mid x)$",
        r"posterior   $\nabla \log p_\sigma(x \mid y)$",
    )
    for row, sigma in zip(grid, sigmas, strict=True):
        before, after = _log_density(prior, sigma), _log_density(posterior, sigma)
        ratio = None
        if before is not None and after is not None:
            ratio = partial(_difference, after, before)
        points, of_prior = _field(prior, sigma, window, arrows)
        of_posterior = _field(posterior, sigma, window, arrows)[1]
        fields = (of_prior, of_posterior - of_prior, of_posterior)
        longest = max(_longest((points, field)) for field in fields)
        for axes, log_p, field, cmap in zip(
            row, (before, ratio, after), fields, ("Blues", "Oranges", "Greens"), strict=True
        ):
            _frame(axes, window)
            if log_p is not None:
                _draw_density(axes, log_p, window, cmap)
            _draw_arrows(axes, (points, field), longest, "#1a1a1a")
        for axes, sign in zip(row[1:], "+=", strict=True):
            axes.text(-0.06, 0.5, sign, transform=axes.transAxes, fontsize=15, ha="center",
                      va="center", color="#333333")  # fmt: skip
        row[0].set_ylabel(rf"$\sigma = {sigma:g}$", fontsize=12)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=11, pad=8)
    return figure


def _log_density(prior: Any, sigma: float) -> Function | None:
    """x -> log p_sigma(x), for a posterior up to a constant; None where it is not known."""
    kind = _dtype(prior)
    own = getattr(prior, "log_density", None)
    if own is not None:
        return lambda x: own(x.to(kind), sigma)
    inner = _log_density(prior.prior, sigma) if hasattr(prior, "factors") else None
    if inner is None:
        return None
    return lambda x: inner(x) + prior.log_likelihood(x.to(kind), sigma)


def _difference(f: Function, g: Function, x: Tensor) -> Tensor:
    return f(x) - g(x)


def _window(prior: Any, sigma: float, extent: Extent | None) -> Extent:
    """The extent, checked; by default around the prior's mean, or its data range."""
    if tuple(prior.event_shape) != (2,):
        raise ValueError(f"plots are of priors over (2,) values, got {tuple(prior.event_shape)}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be a finite number >= 0, got {sigma!r}")
    if extent is not None:
        left, right, bottom, top = extent
        if not (left < right and bottom < top and all(map(math.isfinite, extent))):
            raise ValueError(f"extent must be (left, right, bottom, top), got {extent}")
        return extent
    inner = prior.prior if hasattr(prior, "factors") else prior
    middle = torch.as_tensor(getattr(inner, "mean", (0.0, 0.0))).double().reshape(-1)
    if inner.data_range is not None:
        middle = torch.full((2,), sum(inner.data_range) / 2)
    reach = 3 * math.sqrt(inner.scale**2 + sigma**2)
    a, b = middle.tolist()
    return (a - reach, a + reach, b - reach, b + reach)


def _axes(ax: Axes | None, window: Extent) -> Axes:
    if ax is None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.5, 4.5), dpi=150, layout="constrained")
        ax = figure.subplots()
    _frame(ax, window)
    return ax


def _frame(axes: Axes, window: Extent) -> None:
    axes.set_xlim(window[0], window[1])
    axes.set_ylim(window[2], window[3])
    axes.set_aspect("equal")
    axes.tick_params(labelsize=8, length=3, colors="#555555")
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")


def _grid(window: Extent, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cell centres (W,), (H,), and the points (H * W, 2); `count` along the longer side."""
    left, right, bottom, top = window
    cell = max(right - left, top - bottom) / count
    wide, high = (max(2, round(length / cell)) for length in (right - left, top - bottom))
    a = left + (right - left) * (torch.arange(wide, dtype=torch.float64) + 0.5) / wide
    b = bottom + (top - bottom) * (torch.arange(high, dtype=torch.float64) + 0.5) / high
    return a, b, torch.cartesian_prod(b, a).flip(1)


@torch.no_grad()
def _draw_density(axes: Axes, log_p: Function, window: Extent, cmap: str) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    a, b, points = _grid(window, RESOLUTION)
    values = log_p(points).double()
    p = (values - values.max()).exp().reshape(len(b), len(a)).cpu().numpy()
    # The palest two thirds of the map: dark arrows stay visible.
    shades = colormaps[cmap]([k / 30 for k in range(2, 21)])
    pale = LinearSegmentedColormap.from_list(cmap, ["#ffffff", *shades])
    axes.imshow(p, origin="lower", extent=window, cmap=pale, vmin=0, vmax=1, aspect="equal",
                interpolation="bilinear", zorder=0)  # fmt: skip
    lines = [2.0**-k for k in range(6, 0, -1)]
    axes.contour(a.numpy(), b.numpy(), p, levels=lines, colors=[colormaps[cmap](0.75)],
                 linewidths=0.5, alpha=0.6, zorder=1)  # fmt: skip


@torch.no_grad()
def _field(prior: Prior, sigma: float, window: Extent, arrows: int) -> tuple[Tensor, Tensor]:
    """Points (N, 2) and the score there."""
    if isinstance(arrows, bool) or not isinstance(arrows, int) or arrows < 2:
        raise ValueError(f"arrows must be an integer >= 2, got {arrows!r}")
    points = _grid(window, arrows)[2]
    return points, prior.score(points.to(_dtype(prior)), sigma).double().cpu()


def _dtype(prior: Any) -> torch.dtype:
    """That of the measurements of a posterior, else the prior's, else float32."""
    known = [y.dtype for _, y in getattr(prior, "factors", ()) if y.is_floating_point()]
    inner = getattr(prior, "prior", prior)
    return known[0] if known else getattr(inner, "dtype", torch.float32)


def _longest(field: tuple[Tensor, Tensor]) -> float:
    return max(float(field[1].norm(dim=1).quantile(0.9)), 1e-12)


def _draw_arrows(axes: Axes, field: tuple[Tensor, Tensor], longest: float, color: str) -> None:
    points, score = field
    gap = float(points[1, 0] - points[0, 0])
    length = score.norm(dim=1, keepdim=True).clamp(min=1e-300)
    drawn = score / length * (length / longest).clamp(max=1) * gap
    axes.quiver(
        *points.T.numpy(), *drawn.T.numpy(), angles="xy", scale_units="xy", scale=1, color=color,
        width=0.006, headwidth=3.6, headlength=4.2, headaxislength=3.8, minlength=0.3, zorder=2,
    )  # fmt: skip
