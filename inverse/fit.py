"""How samples fit their measurements: figures of each sample, and of all."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, final

import torch
from torch import Tensor

from forward_models import ForwardModel

from .lift import Model

SHOWN = 8
"""Most figures that are printed one by one."""


@final
class PerSample(list[float]):
    """A figure of each sample: a list, of which more than 8 print as their median and range."""

    def __repr__(self) -> str:
        if len(self) <= SHOWN:
            return super().__repr__()
        low, middle, high = min(self), median(self), max(self)
        return f"[{len(self)} values: median {middle:.3g}, from {low:.3g} to {high:.3g}]"


@torch.no_grad()
def measurement_fit(
    x: Tensor,
    factors: Sequence[tuple[Model, Tensor]],
    batch: int = 32,
    weights: Tensor | None = None,
    measurements: int = 1,
) -> dict[str, Any]:
    """How samples x (n, *event) fit their measurements; see Samples. One entry per factor."""
    count = len(x) // measurements
    shares = [1 / count] * len(x) if weights is None else weights.tolist()
    residuals: list[PerSample] = []
    log_likelihoods: list[PerSample] = []
    for model, y in factors:
        rows = []
        for start in range(0, len(x), batch):
            part = x[start : start + batch]
            own = y if y.shape[0] == 1 else y[start : start + batch]
            if not isinstance(model, ForwardModel):
                continue
            misfit = model.misfit(own, part)
            kind = log_likelihoods if misfit is None else residuals
            rows.append(model.log_likelihood(own, part) if misfit is None else misfit)
        if rows:
            kind.append(PerSample(torch.cat(rows).tolist()))
    fit: dict[str, Any] = {}
    if residuals:
        fit["residual_sigma"] = residuals[0] if len(residuals) == 1 else residuals
        chi2: list[Any] = []
        for row in residuals:
            terms = [w * v**2 for w, v in zip(shares, row, strict=True)]
            sums = [sum(terms[i : i + count]) for i in range(0, len(x), count)]
            chi2.append(sums[0] if measurements == 1 else sums)
        fit["reduced_chi2"] = chi2[0] if len(chi2) == 1 else chi2
    if log_likelihoods:
        fit["log_likelihood"] = log_likelihoods[0] if len(log_likelihoods) == 1 else log_likelihoods
    return fit
