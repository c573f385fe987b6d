"""Which posteriors a method can sample: each function says why not, or None."""

from __future__ import annotations

from forward_models import ForwardModel, LinearGaussian, TimeDependent

from ..lift import linearisable
from ..posterior import Posterior
from ..spectral import not_spectral
from ..splitting import Problem


def anything(posterior: Posterior) -> str | None:
    return None


def linear(posterior: Posterior) -> str | None:
    for model, _ in posterior.factors:
        if isinstance(model, LinearGaussian) and posterior.decoder is not None:
            return f"{type(model).__name__} follows a decoder, so it is not linear in the latents"
        if not isinstance(model, LinearGaussian | TimeDependent):
            return f"{type(model).__name__} is not linear with Gaussian noise"
    return None


def differentiable(posterior: Posterior) -> str | None:
    for model, _ in posterior.factors:
        if isinstance(model, ForwardModel) and not model.differentiable:
            return f"{type(model).__name__} is a black box: its likelihood has no gradient"
    return None


def gaussian(posterior: Posterior) -> str | None:
    why = differentiable(posterior)
    if why is not None:
        return why
    for model, _ in posterior.factors:
        if isinstance(model, ForwardModel) and not (
            isinstance(model, LinearGaussian) or linearisable(model)
        ):
            return (
                f"{type(model).__name__} cannot be expanded as a Gaussian: that takes a "
                "differentiable Observation with independent noise"
            )
    return None


def split(posterior: Posterior) -> str | None:
    """For splitting methods on differentiable forward models."""
    return differentiable(posterior) or measures_clean_images(posterior)


def split_linear(posterior: Posterior) -> str | None:
    """For splitting methods on linear-Gaussian forward models."""
    return linear(posterior) or measures_clean_images(posterior)


def measures_clean_images(posterior: Posterior) -> str | None:
    if all(isinstance(model, TimeDependent) for model, _ in posterior.factors):
        kinds = ", ".join(type(model).__name__ for model, _ in posterior.factors)
        return f"{kinds} is given at every noise level, which leaves no clean measurement to split"
    return None


def split_spectral(posterior: Posterior) -> str | None:
    """For splitting methods on one linear-Gaussian forward model with an SVD and white noise."""
    why = split_linear(posterior)
    if why is not None:
        return why
    measured = Problem(posterior).linear()
    return not_spectral(measured.model)


def clean(posterior: Posterior) -> str | None:
    """For methods that take draws of clean images."""
    if all(isinstance(model, TimeDependent) for model, _ in posterior.factors):
        kinds = ", ".join(type(model).__name__ for model, _ in posterior.factors)
        return f"{kinds} is given at every noise level, where no runs are needed"
    return None
