"""A linear measurement in the basis of its singular value decomposition."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from forward_models import LinearGaussian
from forward_models.linear import SVD

from .. import spectral as spectral_model
from ..lift import joint
from ..posterior import Posterior
from ..spectral import white_sigma
from .particle_method import own_lift


def not_linear(posterior: Posterior) -> str | None:
    """Why the measurements are not one real, linear-Gaussian one, or None."""
    for model, y in posterior.factors:
        if not isinstance(model, LinearGaussian):
            return f"{type(model).__name__} is not linear with Gaussian noise"
        if posterior.decoder is not None:
            return f"{type(model).__name__} follows a decoder, so it is not linear in the latents"
        if y.is_complex():
            return f"{type(model.operator).__name__} gives complex values; it takes real ones"
    return own_lift(posterior)


def not_spectral(posterior: Posterior) -> str | None:
    """Why the measurements are not one linear one with white noise and an SVD, or None."""
    why = not_linear(posterior)
    if why is not None:
        return why
    return spectral_model.not_spectral(linear_factor(posterior)[0])


def linear_factor(posterior: Posterior) -> tuple[LinearGaussian, Tensor]:
    """The one linear-Gaussian measurement; several are stacked."""
    model, y = joint(posterior.factors)[0]
    assert isinstance(model, LinearGaussian)
    return model, y


def normal_log_density(difference: Tensor, variance: Tensor) -> Tensor:
    """sum_i log N(difference_i; 0, variance_i), (B,), of (B, R) and (R,)."""
    terms = difference.square() / variance + (2 * math.pi * variance).log()
    return -0.5 * terms.sum(1)


@dataclass(frozen=True)
class Spectral:
    """y_i = (V^T x0)_i + sigma_i eps_i, sigma_i = sigma_y / s_i, for singular values s_i > 0.

    Attributes:
        svd: A = U diag(s) V^T.
        seen: (R,) where s > 0.
        y: (B or 1, I) U^T y / s there.
        sigma: (I,) sigma_i.
        constant: (B or 1,) log p(y | x0) less the sum over i of log N(y_i; (V^T x0)_i, sigma_i^2).
    """

    svd: SVD
    seen: Tensor
    y: Tensor
    sigma: Tensor
    constant: Tensor

    def into(self, x: Tensor) -> Tensor:
        """V^T x, (B, I)."""
        return self.svd.to_spectral_x(x)[:, self.seen]

    def out(self, z: Tensor) -> Tensor:
        """V z, (B, *event)."""
        whole = z.new_zeros(len(z), len(self.seen))
        whole[:, self.seen] = z
        return self.svd.from_spectral_x(whole)

    def log_density(self, z: Tensor, variance: Tensor) -> Tensor:
        """sum_i log N(y_i; z_i, variance_i), (B,)."""
        return normal_log_density(self.y - z, variance)


def spectral(posterior: Posterior, like: Tensor) -> Spectral:
    """The measurement of a posterior that is not `not_spectral`, in the precision of `like`."""
    model, y = linear_factor(posterior)
    svd, level = model.operator.svd, white_sigma(model)
    assert svd is not None
    assert level is not None
    s = svd.singular_values.to(like)
    seen = s > 0
    sigma = level / s[seen]
    coordinates = svd.to_spectral_y(y)[:, seen] / s[seen]
    zero = like.new_zeros(len(y), *posterior.event_shape)
    constant = model.log_likelihood(y, zero) - normal_log_density(coordinates, sigma**2)
    return Spectral(svd, seen, coordinates, sigma, constant)
