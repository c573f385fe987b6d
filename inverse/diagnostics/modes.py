"""How much of the mass each mode of a known mixture received, and how far that is from the truth.

With r_k(x) the probability that x belongs to component k of the exact posterior sum_k v_k N_k,

    v^_k = sum_i w_i r_k(x_i),      E[r_k(x)] = v_k at exact samples,
    total variation = 1/2 sum_k |v^_k - v_k|.

A distance between samples is dominated by wrong weights of far modes; this looks at these alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from priors import Mixture

from ..checks import whole
from .estimate import Estimate, axes_of, effective, flat, null_of, shares, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class ModeWeights:
    """Weights of the modes, found and true.

    Attributes:
        variation: the total variation, in [0, 1]; its error covers the sampling of x, to first
            order, for variations well above those of the null.
        found, errors: v^_k and its standard error, (K,).
        true: v_k, (K,).
    """

    variation: Estimate
    found: Tensor
    errors: Tensor
    true: Tensor

    @property
    def deviations(self) -> Tensor:
        """(v^_k - v_k) in standard errors of an exact sampler, (K,); 0 where neither has mass."""
        apart = self.found - self.true
        return torch.where(apart == 0, 0.0, apart / self.errors)

    def __str__(self) -> str:
        k = int((self.found - self.true).abs().argmax())
        return (
            f"total variation {self.variation}; farthest off mode {k}: {self.found[k]:.3g} ± "
            f"{self.errors[k]:.2g} for {self.true[k]:.3g}"
        )

    def plot(self, to: Axes | str | os.PathLike[str] | None = None) -> Axes:
        """True weights as bars, found ones as points; on axes, or into a picture at a path."""
        axes = axes_of(to, (0.22 * len(self.true) + 2, 2.8))
        at = torch.arange(len(self.true)).numpy()
        axes.bar(at, self.true.numpy(), color="#9ecae1", label="exact")
        axes.errorbar(at, self.found.numpy(), self.errors.numpy(), fmt="o", ms=3, color="#d62728",
                      capsize=2, clip_on=False, label="samples")  # fmt: skip
        axes.set_xlabel("mode", fontsize=9)
        axes.set_ylabel("weight", fontsize=9)
        axes.set_title(f"total variation {str(self.variation).partition(' (')[0]}", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        return written(axes, to)


def mode_weights(
    x: Tensor,
    truth: Mixture,
    *,
    weights: Tensor | None = None,
    replicates: int = 200,
    seed: int = 0,
) -> ModeWeights:
    """Mode-weight total variation between samples and a mixture whose components are its modes.

    Exact draws have it, too: its null is that of as many exact draws as the samples are worth.
    Errors of single modes are those of exact draws of the truth where they are larger, since a mode
    that no sample found has no spread to tell.

    Args:
        x: (n, *event), independent or exchangeable.
        truth: the exact posterior, such as `Mixture.condition` gives.
        weights: (n,), of any scale; equal by default.
        replicates: exact sets of the null. seed: of these.
    Raises:
        TypeError, ValueError: no Mixture; samples or weights that do not fit.
    """
    if not isinstance(truth, Mixture):
        raise TypeError(f"truth must be a priors.Mixture, got {type(truth).__name__}")
    samples, w = flat(x), shares(weights, len(x))
    r = _responsibilities(samples, truth)
    true = truth.weights.double().cpu()
    found = w @ r
    size = effective(w)
    source = torch.Generator().manual_seed(seed)
    n = max(2, round(size))
    reference = _responsibilities(flat(truth.sample(max(n, 2000), source)), truth)
    correction = len(w) / (len(w) - 1)
    influence = 0.5 * (r - found) @ (found - true).sign()
    error = (correction * (w * influence).square().sum()).sqrt()
    spread = (correction * (w[:, None] * (r - found)).square().sum(0)).sqrt()
    exact = reference.var(0).div(size).sqrt()

    def variation(draws: Tensor) -> float:
        return float((_responsibilities(flat(draws), truth).mean(0) - true).abs().sum() / 2)

    null = null_of(truth.sample, variation, n, whole(replicates, "replicates"), seed)
    value = float((found - true).abs().sum() / 2)
    return ModeWeights(
        Estimate(value, float(error), null), found, torch.maximum(spread, exact), true
    )


def _responsibilities(x: Tensor, truth: Mixture) -> Tensor:
    """r_k(x) for x (n, D) float64, (n, K)."""
    r = truth.responsibilities(x.reshape(-1, *truth.event_shape), 0.0)
    return r.double().cpu()
