"""The decoder of a latent prior as an operator, which forward models of images follow."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import (
    ForwardModel,
    Gaussian,
    LinearGaussian,
    Observation,
    Operator,
    TimeDependent,
)
from priors import LatentPrior


@final
class Decoder(Operator):
    """f(z) = decode(z): latents (B, *event) to images (B, *image_shape) in the user's units.

    Cost: one call of the decoder; about two for `jvp`, three for `vjp`.

    Args:
        prior: the LatentPrior whose latents and autoencoder these are.
    """

    def __init__(self, prior: LatentPrior) -> None:
        self.prior = prior
        self.event_shape, self.event_ndim = prior.event_shape, len(prior.event_shape)
        self.measurement_shape = prior.image_shape
        self.measurement_ndim = len(prior.image_shape)

    def _apply(self, x: Tensor) -> Tensor:
        return self.prior.decode(x)


@final
class OfDecoded(ForwardModel):
    """p(y | decode(z)) for a forward model of images that is no operator and noise."""

    def __init__(self, model: ForwardModel, decoder: Decoder) -> None:
        self.model, self.decoder = model, decoder
        self.event_shape = decoder.event_shape
        self.measurement_shape = model.measurement_shape
        self.measurement_ndim = model.measurement_ndim
        self.measurement_field = model.measurement_field
        self.differentiable = model.differentiable

    def check_measurement(self, y: Tensor) -> Tensor:
        return self.model.check_measurement(y)

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        return self.model.log_likelihood(y, self.decoder.apply(x))

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            return self.model.simulate(self.decoder.apply(x), generator)


def after(model: ForwardModel | TimeDependent, decoder: Decoder) -> ForwardModel | TimeDependent:
    """The forward model of latents that `model` is of their images.

    Time-dependent models stay as they are: noise is on the latents, so they must be of latents.
    """
    if isinstance(model, TimeDependent):
        return model
    if isinstance(model, LinearGaussian):
        return Observation(model.operator @ decoder, Gaussian(model.sigma))
    if isinstance(model, Observation):
        return Observation(model.operator @ decoder, model.noise)
    return OfDecoded(model, decoder)
