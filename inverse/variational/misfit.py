"""How badly an image explains the measurement, in the unit in which papers state their losses."""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
from torch import Tensor

from forward_models import IndependentNoise, LinearGaussian, Observation

from ..lift import Model, joint
from ..posterior import Posterior

SOLVES = 100
"""Most iterations of the solve behind `Misfit.estimate`, where it has no closed form."""


@final
class Misfit:
    """-log p(y | x0) of clean images, and the same in units that do not depend on the noise level.

        loss(x0) = -(n / w^2) log p(y | x0) / sum_i 1 / sigma_i^2

    for n unknown values, an image range of width 2 w, and noise variances sigma_i^2 (1 over the
    Fisher information, at `centre`, where noise depends on the image). For white noise that is

        loss(x0) = 1/2 |(y - A x0) / w|^2 n / m + constant,

    half the mean square residual of m data times n, whatever sigma is. Models without independent
    noise, such as classifiers, tell no variance: with them alone the loss is -log p(y | x0).

    Args:
        posterior: what was measured, with a row of y for all samples or one for each.
        like: (B, *event), whose batch, dtype and device the images will have.

    Attributes:
        centre: (B, *event) c, the centre of the prior.
    """

    def __init__(self, posterior: Posterior, like: Tensor) -> None:
        self.posterior = posterior
        self.centre = posterior.initial(torch.zeros_like(like), posterior.sigma_range[0])
        self._scale = _scale(posterior, self.centre)

    @cached_property
    def estimate(self) -> Tensor:
        """(B, *event) a first image, `centre` unless there are linear-Gaussian factors and no
        decoder; then, by one solve,

            c + A^T (A A^T + S / scale^2)^-1 (y - A c),

        the linear estimate for a white prior of the prior's scale, which is A^+ y without noise
        and does not divide by small singular values with it.
        """
        found = linear_factor(self.posterior)
        if found is None:
            return self.centre
        model, y = found
        A = model.operator
        residual = model.residual(y, self.centre[: len(y)])
        damping = model.noise_variance / self.posterior.prior.scale**2
        if isinstance(damping, Tensor):
            damping = damping.to(y.device, y.dtype.to_real())
        return self.centre + A.adjoint(A.solve(residual, 1.0, damping, max_iterations=SOLVES))

    def log_likelihood(self, x0: Tensor) -> Tensor:
        """log p(y | x0), (B,); NaN for images that are not finite, whatever their batch mates."""
        finite = torch.isfinite(x0).reshape(len(x0), -1).all(1)
        each = finite.reshape(-1, *[1] * (x0.ndim - 1))
        value = self.posterior.log_clean(torch.where(each, x0, self.centre))
        return torch.where(finite, value, torch.nan)

    def __call__(self, x0: Tensor) -> Tensor:
        """loss(x0), (B,)."""
        return -self._scale * self.log_likelihood(x0)


def linear_factor(posterior: Posterior) -> tuple[LinearGaussian, Tensor] | None:
    """The linear-Gaussian measurements of what is optimised, stacked; None if there are none."""
    if posterior.decoder is None:
        for model, y in joint(posterior.factors):
            if isinstance(model, LinearGaussian):
                return model, y
    return None


def _scale(posterior: Posterior, image: Tensor) -> Tensor:
    """(B,) what -log p is multiplied by."""
    size, width = image[0].numel(), 1.0
    decoder = posterior.decoder
    bounds = posterior.data_range if decoder is None else decoder.prior.image_range
    if bounds is not None:
        width = (bounds[1] - bounds[0]) / 2
    shown = image if decoder is None else decoder.apply(image)
    total = sum((_precision(m, y, shown) for m, y in posterior.factors), torch.zeros(1).to(image))
    known = total > 0
    return torch.where(known, size / width**2 / torch.where(known, total, 1), 1.0)


def _precision(model: Model, y: Tensor, image: Tensor) -> Tensor:
    """(B,) or (1,) sum over the data of 1 / sigma_i^2; 0 where the model knows of no variance."""
    if isinstance(model, LinearGaussian):
        each = torch.as_tensor(model.sigma, dtype=torch.float64).to(image.device) ** -2
        each = each.expand(1, *y.shape[1:])
    elif isinstance(model, Observation) and isinstance(model.noise, IndependentNoise):
        each = model.noise.information(model.operator.apply(image))
    else:
        return torch.zeros(1).to(image)
    kept = each.isfinite()
    if model.operator.measured is not None:
        kept = kept & model.operator.measured.to(image.device)
    parts = 2 if y.is_complex() else 1
    return parts * torch.where(kept, each, 0).reshape(len(each), -1).sum(1).to(image)
