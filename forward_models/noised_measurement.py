"""A measurement that is noised along with the image."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from .checks import (
    Constant,
    Shape,
    check_dtype,
    check_finite,
    check_integer,
    check_shape,
    check_tensor,
)  # fmt: skip
from .forward_model import ForwardModel, TimeDependent, check_level
from .linear import LinearOperator
from .noise import CorrelatedGaussian, Gaussian, LinearGaussian
from .observation import Observation


@final
class NoisedMeasurement(TimeDependent):
    """y_sigma = y + sigma A eps, with the eps of x = x0 + sigma eps: linear at every noise level.

    If y = A x0 + n, then y_sigma = A x + n, so that

        log p_sigma(y_sigma | x) = log N(y_sigma; A x, S),     n ~ N(0, S),

    exact for the augmented model of (x, y_sigma), at every sigma, whatever the prior; at sigma = 0
    it is log p(y | x0).

    It is not p_sigma(y | x): the eps of the image is unknown, another is drawn in its place, and
    y_sigma moves with sigma. Many Langevin steps at falling levels, shorter than sigma_y^2 / |A|^2,
    end in p(x0 | y). Steps of a reverse SDE or ODE do not: they hold y to be fixed. Where sigma
    is far above sigma_y / |A|, fine steps of the ODE lose the spread of the measured directions and
    those of the SDE half its variance, and coarse steps diverge.

    This package has no Langevin sampler yet, and the methods of `inverse.sample` refuse this model.
    It serves a Langevin loop of your own, over the `score` of the posterior that
    `inverse.condition(prior, NoisedMeasurement(model), y)` gives; for any method of the package
    condition on the model itself.

    One eps is shared by all images and noise levels: it depends on the seed and the image's shape
    alone, never on the batch, the precision or the device. So the samples of one run share its
    error, which their mean does not average away; for independent ones pass eps for each sample.
    Entries that the operator does not measure stay no data. Cost: one product with A.

    Args:
        model: p(y | x0) of a linear operator A with Gaussian noise: a `LinearGaussian`, or an
            `Observation` with `Gaussian` or `CorrelatedGaussian` noise.
        seed: of the private generator that draws eps ~ N(0, I); a complex entry counts as two.
        eps: instead of drawing it, (*event), or (B, *event) with one for each of B images.

    Raises:
        TypeError: the model is of another kind, or eps is no float tensor.
        ValueError: eps is not finite or does not fit the operator's images; at the call, x does not
            have the shape of eps.

    Paper: Song et al. 2021, Score-based generative modeling through stochastic differential
    equations, https://arxiv.org/abs/2011.13456; Song, Shen, Xing and Ermon 2022, Solving inverse
    problems in medical imaging with score-based generative models,
    https://arxiv.org/abs/2111.08005
    """

    augmented = True

    def __init__(
        self,
        model: LinearGaussian | Observation,
        *,
        seed: int = 0,
        eps: Tensor | None = None,
    ) -> None:
        self.operator = _linear_operator(model)
        self.seed = check_integer("seed", seed, 0)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be less than 2^63, got {seed}")
        self.model, self.event_shape = model, model.event_shape
        self.eps = None if eps is None else self._check_eps(eps)
        self._noise: dict[Shape, Constant] = {}

    def _check_eps(self, eps: Tensor) -> Tensor:
        check_tensor("eps", eps)
        check_dtype("eps", eps, self.operator.event_field)
        check_finite("eps", eps)
        ndim = self.operator.event_ndim
        if self.event_shape is not None:
            ndim = len(self.event_shape)
        if ndim is not None and eps.ndim == ndim:
            eps = eps[None]
        self.operator.check_image(eps)
        return eps.detach().to(torch.promote_types(eps.dtype, torch.float64))

    def check_measurement(self, y: Tensor) -> Tensor:
        """Return y with its batch axis; raises as the measurement model does."""
        return self.model.check_measurement(y)

    def measurement(self, y: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
        """y_sigma for images like x: (1 or B, *measurement)."""
        y, level = self.check_measurement(y), check_level(sigma, x)
        noise = self._measured_noise(x).like(x)
        return y + level.reshape(-1, *[1] * (noise.ndim - 1)) * noise

    def log_likelihood(self, y: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.operator.check_image(x)
        return self.model.log_likelihood(self.measurement(y, x, sigma), x)

    def _measured_noise(self, x: Tensor) -> Constant:
        """A eps, (1 or B, *measurement) in double precision."""
        shape = tuple(x.shape[1:])
        if self.eps is not None and (
            self.eps.shape[1:] != shape or self.eps.shape[0] not in (1, x.shape[0])
        ):
            raise ValueError(
                f"x has shape {tuple(x.shape)}, eps {tuple(self.eps.shape)}; give one eps for all "
                "images or one for each, and take them through in one batch"
            )
        if shape not in self._noise:
            eps = self._draw(x) if self.eps is None else self.eps
            with torch.no_grad():
                self._noise[shape] = Constant(self.operator.apply(eps))
        return self._noise[shape]

    def _draw(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        parts = (2,) if x.is_complex() else ()
        shape = (1, *check_shape("the image", tuple(x.shape[1:])), *parts)
        eps = torch.randn(shape, generator=generator, dtype=torch.float64)
        return torch.view_as_complex(eps) if x.is_complex() else eps


def _linear_operator(model: ForwardModel) -> LinearOperator:
    """A of a model y = A x0 + n with Gaussian n; raises TypeError for any other."""
    if isinstance(model, LinearGaussian):
        return model.operator
    if (
        isinstance(model, Observation)
        and isinstance(model.operator, LinearOperator)
        and isinstance(model.noise, Gaussian | CorrelatedGaussian)
    ):
        return model.operator
    raise TypeError(
        f"model must be linear with Gaussian noise, got {type(model).__name__}; wrap an operator "
        "first: LinearGaussian(operator, sigma)"
    )
