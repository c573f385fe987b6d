"""How methods see several kinds of forward model at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from forward_models import LinearGaussian, TimeDependent
from priors import Prior

from ..lift import Lift, Model
from ..likelihoods import Exact, Likelihood, PlugIn


def lift_of(linear: Callable[[LinearGaussian, Tensor], Likelihood]) -> Lift:
    """Exact for time-dependent models, `linear` for linear-Gaussian ones, else plug-in."""

    def lift(model: Model, y: Tensor) -> Likelihood:
        if isinstance(model, TimeDependent):
            return Exact(model, y)
        if isinstance(model, LinearGaussian):
            return linear(model, y)
        return PlugIn(model, y)

    return lift


def unit(prior: Prior) -> float:
    """Half the width of the data range: the unit in which papers state their constants."""
    if prior.data_range is None:
        return 1.0
    return (prior.data_range[1] - prior.data_range[0]) / 2
