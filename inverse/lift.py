"""How forward models are seen at every noise level: the default rule, and joint measurements."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from forward_models import (
    ForwardModel,
    IndependentNoise,
    LinearGaussian,
    Observation,
    Operator,
    Stack,
    TimeDependent,
)

from .likelihoods import Exact, GaussianLift, Likelihood, LinearisedLift, PlugIn, Tweedie

Model = ForwardModel | TimeDependent
Lift = Callable[[Model, Tensor], Likelihood]
"""Turns a forward model and its measurement into a likelihood at every noise level."""


def linearisable(model: Model) -> bool:
    """Whether a model can be expanded as linear and Gaussian around an image."""
    independent = isinstance(model, Observation) and isinstance(model.noise, IndependentNoise)
    return independent and model.differentiable  # type: ignore[union-attr]


def default_lift(model: Model, y: Tensor) -> Likelihood:
    """Exact where p_sigma(y | x) is given, Tweedie's covariance where A is linear and the noise
    Gaussian, or where the model can be expanded as that, else plug-in."""
    if isinstance(model, TimeDependent):
        return Exact(model, y)
    if isinstance(model, LinearGaussian):
        return GaussianLift(model, y, Tweedie())
    if isinstance(model, Observation) and linearisable(model):
        return LinearisedLift(model, y)
    return PlugIn(model, y)


def joint(factors: tuple[tuple[Model, Tensor], ...]) -> tuple[tuple[Model, Tensor], ...]:
    """The factors with all linear-Gaussian ones stacked into one."""
    linear = [(m, y) for m, y in factors if isinstance(m, LinearGaussian)]
    if len(linear) < 2:
        return factors
    others = tuple((m, y) for m, y in factors if not isinstance(m, LinearGaussian))
    batch = max(y.shape[0] for _, y in linear)
    flat = [y.expand(batch, *y.shape[1:]).flatten(1) for _, y in linear]
    noise = [
        torch.as_tensor(m.sigma, dtype=torch.float64).expand(y.shape[1:]).flatten()
        for m, y in linear
    ]
    shape = next(s for s in (event_shape_of(m, y) for m, y in linear) if s is not None)
    operator = Stack([m.operator for m, _ in linear], event_shape=shape)
    return ((LinearGaussian(operator, torch.cat(noise)), torch.cat(flat, 1)), *others)


def event_shape_of(model: Model, y: Tensor) -> tuple[int, ...] | None:
    operator = getattr(model, "operator", None)
    if model.event_shape is None and isinstance(operator, Operator):
        if isinstance(model, Observation) and model.noise.added_axes:
            return None
        return operator.input_shape(tuple(y.shape[1:]))
    return model.event_shape
