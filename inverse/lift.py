"""How forward models are seen at every noise level: the default rule, and joint measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from forward_models import (
    ForwardModel,
    IndependentNoise,
    LinearGaussian,
    LinearOperator,
    Observation,
    Stack,
    TimeDependent,
)

from .image_shape import event_shape_of
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
    """The factors with all linear-Gaussian ones stacked into one.

    Where some are complex and others real, the stack is real: a complex value is two real ones,
    each with the noise variance of the value, as `LinearGaussian` has it.
    """
    linear = [(m, y) for m, y in factors if isinstance(m, LinearGaussian)]
    if len(linear) < 2:
        return factors
    others = tuple((m, y) for m, y in factors if not isinstance(m, LinearGaussian))
    shape = next(s for s in (event_shape_of(m, y) for m, y in linear) if s is not None)
    noise = [torch.as_tensor(m.sigma, dtype=torch.float64).expand(y.shape[1:]) for m, y in linear]
    operators, ys = [m.operator for m, _ in linear], [y for _, y in linear]
    if len({y.is_complex() for y in ys}) > 1:
        for k, y in enumerate(ys):
            if y.is_complex():
                operators[k] = InRealNumbers(operators[k], shape)
                noise[k] = noise[k][..., None].expand(*noise[k].shape, 2)
                ys[k] = torch.view_as_real(y.resolve_conj())
    batch = max(y.shape[0] for y in ys)
    flat = torch.cat([y.expand(batch, *y.shape[1:]).flatten(1) for y in ys], 1)
    sigma = torch.cat([s.flatten() for s in noise])
    return ((LinearGaussian(Stack(operators, event_shape=shape), sigma), flat), *others)


@final
class InRealNumbers(LinearOperator):
    """x -> (Re A x, Im A x) on a last axis of its own, for A from real images to complex values.

    Its adjoint, Re A^T (u + i v), is that of A over the real numbers, as A^T has it.
    """

    def __init__(self, base: LinearOperator, event_shape: tuple[int, ...]) -> None:
        self.base = base
        self.event_shape, self.event_ndim = event_shape, len(event_shape)
        self.measurement_shape = (*base.output_shape(event_shape), 2)
        self.measurement_ndim = len(self.measurement_shape)

    def _apply(self, x: Tensor) -> Tensor:
        return torch.view_as_real(self.base.apply(x).resolve_conj())

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.base.adjoint(torch.view_as_complex(y.contiguous()))

    def _normal(self, x: Tensor) -> Tensor:
        return self.base.normal.apply(x)

    @property
    def measured(self) -> Tensor | None:
        kept = self.base.measured
        return None if kept is None else kept[..., None]
