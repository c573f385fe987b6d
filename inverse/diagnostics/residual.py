"""Do samples fit their measurement as the truth would? The residual chi^2 and its law.

With c(y, x) the mean square of y - E[y | x] in units of its variance and y~ ~ p(y | x) drawn anew,

    u(x) = P(c(y~, x) >= c(y, x) | x)

is uniform for a draw x of the posterior p(x | y), whatever the noise: (x, y) and (x, y~) have one
law where y ~ p(y). Draws of one posterior share y, so their u depend on each other; twice the mean
of such u is a p-value however they depend.

Papers: Gelman et al., "Posterior predictive assessment of model fitness via realized
discrepancies", 1996, https://www.jstor.org/stable/24306036; Vovk & Wang,
"Combining p-values via averaging", 2020, https://doi.org/10.1093/biomet/asaa027
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forward_models import ForwardModel

from ..checks import whole
from .estimate import Estimate, axes_of, shares, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class ResidualChi2:
    """How samples fit their measurement, and how measurements of theirs would.

    Attributes:
        mean: the weighted mean of c(y, x), near 1; its error covers the choice of the samples, not
            the noise of y, which all of them share and whose law `simulated` is.
        values: c(y, x), (n,). weights: of the samples, (n,), of sum 1.
        simulated: c(y~, x) of measurements drawn at each sample, (n, R).
        misses: p-value of "no worse than the truth": small where samples miss y.
        overfits: p-value of "no better than the truth": small where samples follow its noise.
    """

    mean: Estimate
    values: Tensor
    weights: Tensor
    simulated: Tensor
    misses: float
    overfits: float

    @property
    def expected(self) -> Estimate:
        """The mean of what was simulated and the deviation that the noise of one y gives."""
        w = self.weights[:, None] / self.simulated.shape[1]
        mean = float((w * self.simulated).sum())
        return Estimate(mean, float((w * (self.simulated - mean).square()).sum().sqrt()))

    def __str__(self) -> str:
        return (
            f"chi2 {self.mean}, where noise gives {self.expected}; p = {self.misses:.2g} that the "
            f"samples miss y no more than the truth, {self.overfits:.2g} that they are no closer"
        )

    def plot(self, to: Axes | str | os.PathLike[str] | None = None) -> Axes:
        """The law of c(y~, x) and of the samples' c(y, x); on axes, or into a picture at a path."""
        axes = axes_of(to, (4, 2.8))
        both = torch.cat([self.simulated.flatten(), self.values])
        edges = torch.linspace(float(both.min()), float(both.max()), 41, dtype=both.dtype).tolist()
        each = self.weights.repeat_interleave(self.simulated.shape[1])
        axes.hist(self.simulated.flatten().numpy(), edges, density=True, weights=each.numpy(),
                  color="#9ecae1", label="noise")  # fmt: skip
        axes.hist(self.values.numpy(), edges, density=True, weights=self.weights.numpy(),
                  histtype="step", color="#d62728", label="samples")  # fmt: skip
        axes.set_xlabel("residual chi2 / measured values", fontsize=9)
        axes.set_yticks([])
        axes.set_title(f"{self.mean}", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        return written(axes, to)


@torch.no_grad()
def residual_chi2(
    x: Tensor,
    model: ForwardModel,
    y: Tensor,
    *,
    weights: Tensor | None = None,
    replicates: int = 200,
    batch: int = 32,
    seed: int = 0,
) -> ResidualChi2:
    """The residual chi^2 of samples, its error, and whether noise explains it.

    A good fit does not say that samples are of the posterior: those that keep to y and ignore the
    prior have it, too (`calibrate` tells). What fits too well or too ill is not of it, or the noise
    of y is not the model's.

    Args:
        x: (n, *event), draws of one posterior.
        model: of the measurement, with independent noise. y: (1, *measurement) or (*measurement).
        weights: (n,), of any scale; equal by default.
        replicates: R, measurements simulated at each sample; no p-value is below 2 / (R + 1).
        batch: samples at a time. seed: of the simulated noise.
    Costs no network call, and R + 1 evaluations of the forward model and R measurements a sample.
    Raises:
        TypeError, ValueError: no ForwardModel, or one without a residual (classes, correlated
            noise); a y or samples that do not fit it.
    """
    if not isinstance(model, ForwardModel):
        raise TypeError(
            f"model must be a forward_models.ForwardModel of clean images, got "
            f"{type(model).__name__}"
        )
    repeats, size = whole(replicates, "replicates"), whole(batch, "batch")
    w = shares(weights, len(x))
    y = model.check_measurement(y)
    if len(y) != 1:
        raise ValueError(f"y must be one measurement, shared by all samples; got {len(y)}")
    source = torch.Generator(x.device).manual_seed(seed)
    values, simulated = [], []
    for part in x.split(size):
        values.append(_squares(model, y, part))
        again = [_squares(model, model.simulate(part, source), part) for _ in range(repeats)]
        simulated.append(torch.stack(again, 1))
    c, noise = torch.cat(values), torch.cat(simulated)
    mean = float(w @ c)
    n = len(c)
    spread = (w * (c - mean)).square().sum()
    error = float((spread * n / (n - 1)).sqrt()) if n > 1 else float("nan")

    def p_value(beyond: Tensor) -> float:
        return min(1.0, 2 * float(w @ (1 + beyond.double().sum(1)) / (1 + repeats)))

    return ResidualChi2(
        Estimate(mean, error), c, w, noise,
        misses=p_value(noise >= c[:, None]), overfits=p_value(noise <= c[:, None]),
    )  # fmt: skip


def _squares(model: ForwardModel, y: Tensor, x: Tensor) -> Tensor:
    """c(y, x), (B,), in float64."""
    misfit = model.misfit(y, x)
    if misfit is None:
        raise TypeError(f"{type(model).__name__} has no residual in units of its noise: {model!r}")
    return misfit.double().cpu().square()
