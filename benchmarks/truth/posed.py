"""A problem whose posterior is known: what a sampler sees, and what its samples are judged by.

A sampler sees a prior (a denoiser and no more), a forward model and y. The judge has exact draws,
and where there are any the modes and the moments of the posterior.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

import inverse
from forward_models import ForwardModel
from inverse.diagnostics import Slices
from inverse.recipes import find
from priors import Gaussian, Mixture, Prior
from priors.prior import CovarianceProduct

Weighted = tuple[Tensor, Tensor | None]
"""Samples (n, *event) and their weights (n,), None where all count alike."""
Draw = Callable[[int, torch.Generator], Tensor]
Figures = Callable[[Tensor, Tensor], dict[str, float]]
TRUTH, SLICES = 2000, 500
"""Exact draws, and directions, of the sliced distance."""


class Modes(NamedTuple):
    """Probabilities (n, K) that samples belong to each mode, and the exact weights (K,)."""

    responsibilities: Callable[[Tensor], Tensor]
    weights: Tensor


class Other(NamedTuple):
    """A sampler that `inverse.methods()` does not name: (prior) -> samples, and facts of it."""

    run: Callable[[Prior], Weighted]
    facts: dict[str, str]


@dataclass(frozen=True)
class Posed:
    """One instance of a problem.

    Attributes:
        prior, model, y: what a sampler sees; y is (1, *measurement).
        exact: (n, generator) -> n draws of the posterior.
        modes: of the posterior, found when asked for; None where it has none.
        further: figures of weighted samples beside those that all problems have.
        others: samplers of this instance beside the named methods.
        without: named methods whose runs would take hours.
    """

    prior: Prior
    model: ForwardModel
    y: Tensor
    exact: Draw
    modes: Callable[[], Modes] | None = None
    further: Figures = lambda x, w: {}
    others: dict[str, Other] = field(default_factory=dict)
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Problems of one kind, by label: seed -> instance.

    Attributes:
        n: samples a method draws. seeds: 0 to this are run.
    """

    problems: dict[str, Callable[[int], Posed]]
    n: int
    seeds: int


class Judge:
    """Figures of weighted samples against the exact posterior.

    sw: mean over 500 directions of W1 to 2000 exact draws; coverage: share of these within the
    samples' central 90 % intervals, mean over coordinates; tv: total variation of the modes'
    weights; chi2: mean squared residual in units of the noise; ess: samples these are worth.
    """

    def __init__(self, posed: Posed, seed: int) -> None:
        self.posed, self.seed = posed, seed
        self.x = self.exact(TRUTH, stream=1)
        self.slices = Slices(self.x, projections=SLICES, seed=seed)
        self.modes = None if posed.modes is None else posed.modes()

    def exact(self, n: int, stream: int) -> Tensor:
        """n exact draws; streams are independent."""
        return self.posed.exact(n, torch.Generator().manual_seed(1000 * stream + self.seed))

    def __call__(self, x: Tensor, weights: Tensor | None) -> dict[str, float]:
        if not bool(torch.isfinite(x).all()):
            return {"sw": math.nan}
        x = x.double()
        w = x.new_full((len(x),), 1 / len(x)) if weights is None else weights.double()
        found = {
            "sw": float(self.slices.to(x, weights).w1.mean()),
            "coverage": self.coverage(x, w),
            "ess": float(1 / w.square().sum()),
        }
        if self.modes is not None:
            apart = w @ self.modes.responsibilities(x).double() - self.modes.weights.double()
            found["tv"] = float(apart.abs().sum() / 2)
        misfit = self.posed.model.misfit(self.posed.y.double(), x)
        if misfit is not None:
            found["chi2"] = float(w @ misfit.double().square())
        return found | self.posed.further(x, w)

    def coverage(self, x: Tensor, w: Tensor, level: float = 0.9) -> float:
        values, order = x.flatten(1).sort(0)
        below = w[order].cumsum(0)
        low, high = (
            values.gather(0, (below < mass).sum(0).clamp(max=len(x) - 1)[None])[0]
            for mass in ((1 - level) / 2, (1 + level) / 2)
        )
        truth = self.x.double().flatten(1)
        return float(((truth >= low) & (truth <= high)).double().mean())


def moments_of(truth: Gaussian | Mixture) -> Figures:
    """Errors of the samples' mean and variance, both 0 and 1 but for sampling where they are exact.

    mean_error: |mean - m| / tr(C)^(1/2), n^(-1/2) for n exact draws; variance: the samples' total
    variance (unbiased) / tr C.
    """
    mean, covariance = truth.moments()
    total = float(covariance.diagonal().sum())

    def figures(x: Tensor, w: Tensor) -> dict[str, float]:
        flat = x.flatten(1)
        centre = w @ flat
        variance = float((w @ (flat - centre).square()).sum()) / (1 - float(w.square().sum()))
        return {
            "mean_error": float((centre - mean.flatten()).norm()) / total**0.5,
            "variance": variance / total,
        }

    return figures


class Clock(Prior):
    """A prior that counts its network calls and products, and times them (processor seconds)."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.event_shape, self.sigma_range = prior.event_shape, prior.sigma_range
        self.scale, self.data_range = prior.scale, prior.data_range
        self.exact_covariance = prior.exact_covariance
        self.calls = self.products = 0
        self.seconds = 0.0

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self.prior.initial(eps, sigma)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws, as images would be at hand; optimal-covariance alone takes them."""
        return self.prior.sample(n, generator)  # type: ignore[attr-defined]

    def _timed(self, function: Callable[..., Any], *arguments: Tensor) -> Any:
        start = time.process_time()
        found = function(*arguments)
        self.seconds += time.process_time() - start
        return found

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self._timed(self.prior._denoise, x, sigma)

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        self.calls += 1
        x0, product = self._timed(self.prior._covariance, x, sigma)

        def counted(v: Tensor) -> Tensor:
            self.products += 1
            return self._timed(product, v)

        return x0, counted


def named(
    posed: Posed, name: str, n: int, calls: int, seed: int, **options: Any
) -> Callable[[Prior], Weighted] | None:
    """A method of `inverse.methods()` at about so many network calls; None if it cannot.

    "auto" takes as many steps."""
    if name in posed.without:
        return None
    posterior = inverse.condition(posed.prior, posed.model, posed.y)
    steps: int | None = calls
    if name != "auto":
        method = find(name)
        if method.refusal(posterior) is not None:
            return None
        steps = method.steps_within(posterior, calls)
    if steps is None:
        return None

    def run(prior: Prior) -> Weighted:
        seen = inverse.condition(prior, posed.model, posed.y)
        found = inverse.sample(seen, n, method=name, steps=steps, seed=seed, **options)
        return found.x, found.weights

    return run
