"""The kernel score (Stein) discrepancy: whether samples follow a law of which the score is known.

With s = grad log p and the inverse multiquadric kernel k(x, x') = q^(-1/2), q = c^2 + |x - x'|^2,

    u(x, x') = s(x).s(x') q^(-1/2) + (s(x) - s(x')).(x - x') q^(-3/2)
               + D q^(-3/2) - 3 |x - x'|^2 q^(-5/2)

has mean zero over x ~ p for every x', so that E u(x, x') >= 0 is zero for p alone. No draws of p
and no normalisation are needed: the score of any posterior serves.

It sees a wrong width at once, wrong weights of far modes hardly: use it beside distances to draws.

Papers: Liu, Lee and Jordan, "A Kernelized Stein Discrepancy for Goodness-of-fit Tests", 2016,
https://arxiv.org/abs/1602.03253; Gorham and Mackey, "Measuring Sample Quality with Kernels", 2017,
https://arxiv.org/abs/1703.01717 (this kernel)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from forward_models import LinearOperator
from priors import Prior
from priors.prior import event_size

from ..checks import positive, whole
from .estimate import (
    Draw,
    Estimate,
    Null,
    axes_of,
    draw_null,
    effective,
    flat,
    null_of,
    shares,
    written,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Score = Callable[[Tensor], Tensor]
LARGEST = 4096
"""Values of an image up to which the singular values of an operator are found."""


@dataclass(frozen=True)
class KernelDiscrepancy:
    """The kernel score discrepancy of a set of samples from a law.

    Attributes:
        squared: E u(x, x') over pairs of different samples, unbiased: zero in expectation for
            exact samples, may be negative. Its error covers the sampling of x.
        reported: (sum_ij w_i w_j u(x_i, x_j) / D)^(1/2), pairs of a sample with itself included,
            which is (1/n) (sum u / D)^(1/2) for equal weights; never zero, and comparable at equal
            n alone.
        width: c of the kernel, data units. sigma: the noise level of the comparison.
    """

    squared: Estimate
    reported: float
    width: float
    sigma: float

    def __str__(self) -> str:
        return f"squared kernel score discrepancy {self.squared} at sigma {self.sigma:.3g}"

    def plot(self, to: Axes | str | os.PathLike[str] | None = None) -> Axes:
        """The squared discrepancy beside its null; on axes, or into a picture at a path."""
        axes = axes_of(to, (4.5, 2.6))
        draw_null(axes, self.squared, "kernel score discrepancy, squared")
        return written(axes, to)


def kernel_discrepancy(
    x: Tensor,
    target: Prior,
    *,
    weights: Tensor | None = None,
    sigma: float | None = None,
    width: float = 1.0,
    null: Draw | Literal["bootstrap"] = "bootstrap",
    replicates: int = 500,
    seed: int = 0,
) -> KernelDiscrepancy:
    """The kernel score discrepancy of samples from a prior or posterior, by its score.

    The comparison is at a small noise level: seeded noise of that level is added to the samples,
    whose law is then p_sigma(x | y), and whose score the target has; so it is exact for exact
    scores at any level, and a posterior by an approximate lift nears its exact one as sigma falls.

    Args:
        x: (n, *event), data units, independent.
        target: any Prior; an `inverse.condition` posterior, or an exact one.
        weights: (n,), of any scale; equal by default.
        sigma: the noise level, data units; by default the target's smallest.
        width: c of the kernel, data units; `kernel_width` gives that of the "accuracy trap"
            problems. Small ones see small scales.
        null: "bootstrap", by random signs on the pairs of the samples themselves, which holds for
            large n; or a function that draws exact samples, (n, generator) -> (n, *event), of
            which sets are drawn as large as these are worth (1 / sum w^2).
        replicates: sets of the null. seed: of noise and null.

    Costs n network calls, or n (replicates + 1) with exact draws; O(n^2 D) operations and n^2
    values of memory.

    Raises:
        TypeError, ValueError: samples or weights that do not fit, all weight on one sample, numbers
        out of range.
    """
    level = target.sigma_range[0] if sigma is None else positive(sigma, "sigma")
    positive(width, "width")
    whole(replicates, "replicates")
    w = shares(weights, len(flat(x)))
    if int((w > 1e-9).sum()) < 2:
        raise ValueError("weights must give two samples or more a share: pairs are compared")
    source = torch.Generator().manual_seed(seed)
    u = _pairs(*_noised(x, target, level, source), width)
    signed = w @ u @ w
    diagonal = w.square() @ u.diagonal()
    value = float((signed - diagonal) / (1 - w.square().sum()))
    others = (u @ w - w * u.diagonal()) / (1 - w)
    error = 2 * float((w * (others - value)).square().sum().sqrt())
    if null == "bootstrap":
        signs = torch.randint(0, 2, (replicates, len(w)), generator=source).double() * 2 - 1
        turned = signs * w
        values = ((turned @ u) * turned).sum(1) - diagonal
        law = Null((values / (1 - w.square().sum())).sort().values, "random signs")
    else:
        assert callable(null)

        def figure(draws: Tensor) -> float:
            n = len(draws)
            pairs = _pairs(*_noised(draws, target, level, source), width)
            return float((pairs.sum() - pairs.diagonal().sum()) / (n * (n - 1)))

        law = null_of(null, figure, max(2, round(effective(w))), replicates, seed)
    reported = float((signed.clamp(min=0) / flat(x).shape[1]).sqrt())
    return KernelDiscrepancy(Estimate(value, error, law), reported, width, level)


def kernel_width(operator: LinearOperator, event_shape: tuple[int, ...]) -> float:
    """c = 1 / (median singular value of A + 1), the kernel's width in the "accuracy trap" problems.

    Args:
        operator: A, linear, of real images.
        event_shape: of its images, at most 4096 values, since A is built as a matrix.
    """
    size = event_size(event_shape)
    if size > LARGEST:
        raise ValueError(
            f"images of {size} values are too large for singular values (at most {LARGEST}); give "
            "the width itself"
        )
    columns = operator.apply(torch.eye(size, dtype=torch.float64).reshape(size, *event_shape))
    if columns.is_complex():
        columns = torch.view_as_real(columns.resolve_conj())
    return 1 / (float(torch.linalg.svdvals(columns.reshape(size, -1)).quantile(0.5)) + 1)


@torch.no_grad()
def _noised(
    x: Tensor, target: Prior, sigma: float, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Samples with noise of level sigma and the score there, (n, D) each, float64."""
    z = torch.randn(x.shape, generator=source, dtype=torch.float64).to(x)
    noised = x.detach() + sigma * z
    return flat(noised), flat(target.score(noised, sigma), "the score of the target")


def _pairs(x: Tensor, s: Tensor, c: float) -> Tensor:
    """u(x_i, x_j), (n, n)."""
    x = x - x.mean(0)
    norms, along = x.square().sum(1), (s * x).sum(1)
    r2 = (norms[:, None] + norms - 2 * x @ x.mT).clamp(min=0)
    r2.fill_diagonal_(0)
    q = c**2 + r2
    crossed = s @ x.mT
    drift = along[:, None] + along - crossed - crossed.mT  # (s - s').(x - x')
    root = q.rsqrt()
    return root * (s @ s.mT + (drift + x.shape[1] - 3 * r2 / q) / q)
