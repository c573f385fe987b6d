"""How methods see several kinds of forward model at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from forward_models import ForwardModel, LinearGaussian, TimeDependent
from priors import VP
from priors.grids import unit_of

from ..lift import Lift, Model
from ..likelihoods import Exact, Likelihood, PlugIn
from ..posterior import Posterior


def lift_of(linear: Callable[[LinearGaussian, Tensor], Likelihood]) -> Lift:
    """Exact for time-dependent models, `linear` for linear-Gaussian ones, else plug-in."""

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, TimeDependent):
            return Exact(model, y)
        if isinstance(model, LinearGaussian):
            return linear(model, y)
        return PlugIn(model, y)

    return lift


def clean(make: Callable[[ForwardModel, Tensor], Likelihood]) -> Lift:
    """Exact for time-dependent models, `make` for all models of clean images."""

    def lift(model: Model, y: Tensor) -> Likelihood:
        return Exact(model, y) if isinstance(model, TimeDependent) else make(model, y)

    return lift


def vp_levels(posterior: Posterior, steps: int) -> Tensor:
    """The levels of the VP schedule in which the papers count, for this prior's unit and range."""
    width, schedule = unit_of(posterior.prior), VP()
    low, high = (s / width for s in posterior.sigma_range)
    return schedule.levels(steps, (low, min(high, float(schedule.sigma(1.0))))) * width
