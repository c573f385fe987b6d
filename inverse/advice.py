"""Warnings of a run: what its figures say against its samples, and what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from forward_models import LinearGaussian
from priors import Gaussian, Prior

from .lift import Model
from .samplers import Sampler

MISFIT = (0.5, 2.0)
"""Residuals in units of the noise between which samples of many measured values should lie."""
ERRORS = 5.0
"""Standard errors beyond that which few measured values are granted."""
ESTATE = 0.02
"""Share of the particles below which too few count, or are ancestors of the last."""


def of_levels(sampler: Sampler, prior: Prior) -> list[str]:
    """Levels that start where the prior is not yet noise, or end where samples still are noisy."""
    first, last = float(sampler.path[0]), float(sampler.path[-1])
    said = []
    if first < prior.scale and not isinstance(prior, Gaussian):
        said.append(
            f"{type(sampler).__name__} starts at noise level {first:.3g}, below the prior's scale "
            f"{prior.scale:.3g}: its start, a Gaussian, shows in the samples; start at "
            f"{prior.sigma_range[1]:.3g}, the end of prior.sigma_range"
        )
    if last > 1.01 * prior.sigma_range[0]:
        said.append(
            f"the levels of {type(sampler).__name__} end at {last:.3g}: the samples hold noise of "
            "that standard deviation; end at 0 for clean ones"
        )
    return said


def of_misfit(
    diagnostics: dict[str, Any], factors: Sequence[tuple[Model, Tensor]], believed: bool = False
) -> list[str]:
    """Samples that miss y by far more than its noise, or by far less, unless y is believed."""
    chi2 = diagnostics.get("reduced_chi2")
    if chi2 is None:
        return []
    values = min(
        (m.count(y) if isinstance(m, LinearGaussian) else y[0].numel() for m, y in factors),
        default=1,
    )
    slack = ERRORS * math.sqrt(2 / max(values, 1))
    low, high = min(MISFIT[0] ** 2, 1 - slack), max(MISFIT[1] ** 2, 1 + slack)
    bad = [v for v in _numbers(chi2) if not (believed or low <= v) or not v <= high]
    if not bad:
        return []
    worst = max(bad, key=lambda v: abs(math.log(max(v, 1e-12))) if v == v else math.inf)
    if worst < low:
        return [
            f"the samples fit the measurement more closely than its noise allows "
            f"({math.sqrt(worst):.3g} of it, where 1 is expected): they follow its noise, or sigma "
            "is too large; "
            "check sigma and the units, or take another method"
        ]
    return [
        f"the samples miss the measurement by {math.sqrt(worst):.3g} of its noise, where 1 is "
        "expected; check sigma, the forward model and the units, or take more steps or another "
        "method"
    ]


def of_particles(diagnostics: dict[str, Any], count: int) -> list[str]:
    """Particles, `count` for each measurement, of which too few count."""
    said = []
    if count < 2 or "roots" not in diagnostics:
        return []
    roots = min(_numbers(diagnostics["roots"]))
    least = min(_numbers(diagnostics["least_effective_samples"]))
    if roots < max(2.0, ESTATE * count):
        said.append(
            f"all particles descend from {roots:.0f} of {count} at the start, so they hardly "
            "differ in what was decided early, and the evidence has no honest error"
        )
    if least < max(1.5, ESTATE * count):
        said.append(
            f"at its worst step the weights left {least:.2g} effective of {count} particles"
        )
    return [f"{'; '.join(said)}; take more particles (n), or more steps"] if said else []


def _numbers(value: Any) -> list[float]:
    if isinstance(value, list):
        return [v for one in value for v in _numbers(one)]
    return [float(value)]
