"""Do samples fit their measurement as the truth would? The residual chi^2 and its law.

With c(y, x) the square of the model's misfit, near 1, and y~ ~ p(y | x) drawn anew,

    u(x) = P(c(y~, x) >= c(y, x) | x)

is uniform for a draw x of the posterior p(x | y), whatever the noise, over measurements y ~ p(y):
(x, y) and (x, y~) have one law. (Of discrete noise, it is no smaller in law.) Draws of one
posterior share y, so their u depend on each other; twice the mean of such u is a p-value however
they depend, and mostly a timid one.

Papers: Gelman et al., "Posterior predictive assessment of model fitness via realized
discrepancies", 1996, https://www.jstor.org/stable/24306036; Vovk & Wang,
"Combining p-values via averaging", 2020, https://doi.org/10.1093/biomet/asaa027
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forward_models import ForwardModel

from ..checks import whole
from ..randomness import check_seed
from .estimate import Estimate, axes_of, shares, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEVEL = 0.05
"""P-values up to this are said."""


@dataclass(frozen=True)
class ResidualChi2:
    """How samples fit their measurement, and how measurements of theirs would.

    Attributes:
        mean: the weighted mean of c(y, x), near 1; its error covers the choice of the samples, not
            the noise of y, which all of them share and whose law `simulated` is.
        values: c(y, x), (n,). weights: of the samples, (n,), of sum 1.
        simulated: c(y~, x) of measurements drawn at each sample, (n, R).
        misses: small where samples miss y. overfits: small where they follow its noise. Chances
            of as small a value, at most, were these draws of the posterior; with weights as n
            grows alone.
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

    @property
    def beyond(self) -> float:
        """The share of the samples whose c(y, x) lies above all R simulated.

        Of exact draws 1 / (R + 1) on average, and as large a share with a chance of at most
        1 / ((R + 1) share). It sees a part of the samples that misses y, which `misses` may not.
        """
        return float(self.weights @ (self.values > self.simulated.amax(1)).double())

    @property
    def words(self) -> str:
        """What the p-values and `beyond` say, each at .05."""
        chance = 1 / max((self.simulated.shape[1] + 1) * self.beyond, 1.0)
        if chance <= LEVEL:
            share = f"{100 * self.beyond:.0f} % of the samples"
            return f"{share} miss y by more than any noise drawn, p = {chance:.2g}"
        if self.misses <= LEVEL:
            return f"misses y, p = {self.misses:.2g}"
        if self.overfits <= LEVEL:
            return f"follows the noise of y, p = {self.overfits:.2g}"
        return (
            f"explained by noise, p = {self.misses:.2g} of missing y, {self.overfits:.2g} of "
            "following its noise"
        )

    def __str__(self) -> str:
        law = self.expected
        error = "" if math.isnan(self.mean.error) else f" ± {self.mean.error:.2g}"
        noise = f"{law.value:.3g}, varying by {law.error:.2g}"
        return f"chi2 {self.mean.value:.4g}{error} where noise gives {noise}: {self.words}"

    def plot(self, to: Axes | str | os.PathLike[str] | None = None) -> Axes:
        """The law of c(y~, x) and of the samples' c(y, x); on axes, or into a picture at a path."""
        axes = axes_of(to, (4, 2.8))
        heavy = self.weights > 1e-3 / len(self.weights)
        noise, values = self.simulated[heavy], self.values[heavy]
        # What lies far outside is drawn at the ends; all may be 0, where nothing is counted.
        low = max(float(torch.minimum(values.min(), noise.min())), 1e-3 * float(noise.mean()), 1e-9)
        high = max(float(torch.maximum(values.max(), noise.max())), 2 * low)
        edges = torch.logspace(math.log10(low / 1.05), math.log10(high * 1.05), 41).tolist()
        each = self.weights[heavy].repeat_interleave(noise.shape[1]) / noise.shape[1]
        axes.hist(noise.clamp(min=low).flatten().numpy(), edges, weights=each.numpy(),
                  color="#9ecae1", label="noise")  # fmt: skip
        axes.hist(values.clamp(min=low).numpy(), edges, weights=self.weights[heavy].numpy(),
                  histtype="step", color="#d62728", label="samples")  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("residual chi2 / measured values", fontsize=9)
        axes.set_yticks([])
        axes.set_title(str(self).partition(" where")[0], fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        return written(axes, to)


@torch.no_grad()
def residual_chi2(
    x: Tensor,
    model: ForwardModel,
    y: Tensor,
    *,
    weights: Tensor | None = None,
    replicates: int = 100,
    batch: int = 32,
    seed: int = 0,
) -> ResidualChi2:
    """The residual chi^2 of samples, its error, and whether noise explains it.

    A good fit does not say that samples are of the posterior: those that keep to y and ignore the
    prior have it, too (`calibrate` tells). P-values are of all samples together; where a part of
    them misses y, `beyond` shows it. What fits too well or too ill is not of the posterior, or the
    noise of y is not the model's, or the truth not of the prior.

    Args:
        x: (n, *event), n >= 1: draws of one posterior, independent for the error.
        model: of the measurement, with independent noise. y: (1, *measurement) or (*measurement).
        weights: (n,), of any scale; equal by default. See `effective_size` first.
        replicates: R, measurements simulated at each sample; no p-value is below 2 / (R + 1).
        batch: samples at a time, on which the simulated noise depends. seed: of this.
    Costs no network call, and 2 R + 1 evaluations of the operator a sample.
    Raises:
        TypeError, ValueError: no ForwardModel, or one without a residual (classes, correlated
            noise); a y or samples that do not fit it.
    """
    if not isinstance(model, ForwardModel):
        raise TypeError(
            f"model must be a forward_models.ForwardModel of clean images, got "
            f"{type(model).__name__}"
        )
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        hint = "; give its .x" if hasattr(x, "x") else ""
        raise TypeError(f"x must be a floating tensor (n, *event), got {kind}{hint}")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x must hold samples (n, *event), n >= 1, got shape {tuple(x.shape)}")
    event = model.event_shape
    if event is not None and tuple(x.shape[1:]) != tuple(event):
        shape = ", ".join(map(str, ("n", *event)))
        raise ValueError(f"x must be ({shape}), as the model is of, got {tuple(x.shape)}")
    bad = int((~x.isfinite().flatten(1).all(1)).sum())
    if bad:
        raise ValueError(f"x must be finite; {bad} of {len(x)} samples are not")
    repeats, size = whole(replicates, "replicates"), whole(batch, "batch")
    w = shares(weights, len(x))
    y = model.check_measurement(y)
    if len(y) != 1:
        raise ValueError(f"y must be one measurement, shared by all samples; got {len(y)}")
    source = torch.Generator(x.device).manual_seed(check_seed(seed))
    values, simulated = [], []
    for part in x.split(size):
        values.append(_squares(model, y, part))
        again = [_squares(model, model.simulate(part, source), part) for _ in range(repeats)]
        simulated.append(torch.stack(again, 1))
    c, noise = torch.cat(values), torch.cat(simulated)
    mean, spare = float(w @ c), 1 - float(w.square().sum())
    spread = float((w * (c - mean)).square().sum())
    error = math.sqrt(spread / spare) if spare > 1e-12 else math.nan

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
