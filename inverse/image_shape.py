"""Which images a measurement is of: what the operator, y and the prior say of it together."""

from __future__ import annotations

from torch import Tensor

from forward_models import (
    ForwardModel,
    LinearGaussian,
    LinearOperator,
    Observation,
    Operator,
    TimeDependent,
)
from priors import LatentPrior, Prior

Shape = tuple[int, ...]
AnyModel = ForwardModel | TimeDependent


def agreed(prior: Prior, model: AnyModel, y: Tensor) -> tuple[Prior, AnyModel]:
    """Prior and model, both of the images behind y (B, *measurement).

    A prior of any size is resized to them; a linear operator of any size becomes one of theirs, so
    that its closed forms are known. Raises ValueError where prior and model disagree.
    """
    shape = event_shape_of(model, y)
    if shape is None:
        return prior, model
    if isinstance(prior, LatentPrior) and isinstance(model, ForwardModel):
        if tuple(shape) != prior.image_shape:
            _check_fit(model, y, prior.image_shape)
            raise ValueError(
                f"prior and forward model disagree on the image: the prior's latents decode to "
                f"{prior.image_shape}, the forward model takes {tuple(shape)}"
            )
        return prior, _of_size(model, y, shape)
    stride = getattr(prior, "stride", 1)
    if not prior.accepts(shape):
        if not getattr(prior, "any_size", False):
            _check_fit(model, y, tuple(prior.event_shape))
        raise ValueError(
            f"prior and forward model disagree on the image: the prior takes "
            f"{tuple(prior.event_shape)}, the forward model {tuple(shape)}"
            + (f"; sides may be any multiples of {stride}" if stride > 1 else "")
            + ("; a time-dependent model is of latents" if isinstance(prior, LatentPrior) else "")
        )
    if tuple(shape) != tuple(prior.event_shape):
        prior = prior.resized(shape)
    return prior, _of_size(model, y, shape)


def event_shape_of(model: AnyModel, y: Tensor) -> Shape | None:
    """The shape of the image behind y (B, *measurement), None where these two leave it open."""
    operator = getattr(model, "operator", None)
    if model.event_shape is None and isinstance(operator, Operator):
        if isinstance(model, Observation) and model.noise.added_axes:
            return None
        return operator.input_shape(tuple(y.shape[1:]))
    return model.event_shape


def _of_size(model: AnyModel, y: Tensor, shape: Shape) -> AnyModel:
    """The model with an operator of images of this shape, where it is linear and makes y of them.

    An operator that leaves `output_shape` untold stays as it is, and one of single numbers, shape
    (), which have no size.
    """
    if not shape or not isinstance(model, LinearGaussian | Observation):
        return model
    operator = model.operator
    if not isinstance(operator, LinearOperator):
        return model
    if operator.output_shape(shape) != tuple(y.shape[1:]):
        return model
    sized = operator.sized(shape)
    if sized is operator:
        return model
    if isinstance(model, LinearGaussian):
        return LinearGaussian(sized, model.sigma)
    return Observation(sized, model.noise)


def _check_fit(model: AnyModel, y: Tensor, image: Shape) -> None:
    """Raise ValueError if an operator of images of any size does not make y of the prior's."""
    operator = getattr(model, "operator", None)
    if not isinstance(operator, Operator) or operator.event_shape is not None:
        return
    name = type(operator).__name__
    if operator.event_ndim not in (None, len(image)):
        raise ValueError(
            f"{name} takes images of {operator.event_ndim} axes, those of the prior are {image}"
        )
    try:
        made = operator.output_shape(image)
    except ValueError as error:
        raise ValueError(f"{name} does not fit the prior's images {image}: {error}") from error
    if made != tuple(y.shape[1:]):
        raise ValueError(
            f"y has shape {tuple(y.shape[1:])}, but {name} makes {made} of the prior's images "
            f"{image}"
        )
