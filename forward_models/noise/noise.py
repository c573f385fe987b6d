"""Noise: how a recording y scatters around the clean measurement z = f(x0)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checks import Field, Shape, check_finite
from ..operator import Operator

if TYPE_CHECKING:
    from .linear_gaussian import LinearGaussian


def standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """eps with the shape, dtype and device of `like`; both parts of a complex one have variance 1.

    Drawn on the generator's device, so that a seed gives the same numbers everywhere.
    """
    real = torch.view_as_real(like) if like.is_complex() else like
    device = like.device if generator is None else generator.device
    eps = torch.randn(real.shape, generator=generator, dtype=real.dtype, device=device)
    eps = eps.to(like.device)
    return torch.view_as_complex(eps) if like.is_complex() else eps


class Noise(ABC):
    """p(y | z), the density of a recording y given the clean measurement z.

    Normalised in y and differentiable in z. Authors write the methods for z (B, *clean) and
    y (1 or B, *measurement); shapes, dtypes and devices are checked by `Observation`, which joins
    an operator and a noise. `IndependentNoise` is the usual case.

    Attributes:
        field: whether z is "real", "complex", or "any" of the two.
        recorded_field: the same of y, or "integer".
        differentiable: whether log p(y | z) has a useful gradient in z.
    """

    field: Field = "real"
    recorded_field: Field = "real"
    differentiable: bool = True

    @abstractmethod
    def log_prob(self, y: Tensor, z: Tensor, measured: Tensor | None = None) -> Tensor:
        """log p(y | z), (B,), over the entries that `measured` (broadcastable to y) keeps."""

    @abstractmethod
    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """y ~ p(y | z), (B, *measurement)."""

    @abstractmethod
    def mean(self, z: Tensor) -> Tensor:
        """E[y | z], (B, *measurement)."""

    @abstractmethod
    def variance(self, z: Tensor) -> Tensor:
        """Var[y_i | z], (B, *measurement); of the real and of the imaginary part if complex."""

    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw y ~ p(y | z), (B, *measurement); z is detached."""
        return self._sample(self.check_clean(z.detach()), generator)

    def linear_gaussian(
        self, operator: Operator, y: Tensor
    ) -> tuple[LinearGaussian, Tensor] | None:
        """The observation of y by this operator and noise as a LinearGaussian one, else None."""
        return None

    def recorded_shape(self, clean_shape: Shape) -> Shape:
        """Shape of one recording of a clean measurement of this shape."""
        return clean_shape

    def check_clean(self, z: Tensor) -> Tensor:
        """Return z if `sample` can start from it; else raise ValueError."""
        return z

    def check_recorded(self, y: Tensor) -> Tensor:
        """Return y (B, *measurement) if it can be a recording; else raise ValueError."""
        check_finite("y", y)
        return y


class IndependentNoise(Noise):
    """Noise whose entries are independent given z: log p(y | z) = sum_i log p(y_i | z_i).

    A Gaussian stand-in for the likelihood around a point, as a Gaussian lift needs, has the same
    slope there and the Fisher information for its precision; see `gaussian`.
    """

    @abstractmethod
    def _log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(y_i | z_i) of each entry, (B, *measurement)."""

    @abstractmethod
    def information(self, z: Tensor) -> Tensor:
        """Fisher information of z_i, E[(d log p(y_i | z_i) / dz_i)^2 | z], (B, *clean)."""

    def log_prob(self, y: Tensor, z: Tensor, measured: Tensor | None = None) -> Tensor:
        """log p(y | z), (B,), over the entries that `measured` (broadcastable to y) keeps.

        An entry that is left out has no influence, not even on the gradient.
        """
        if measured is None:
            terms = self._log_prob(y, z)
        else:
            # A possible value keeps 0 * inf out of the gradients of the entries left out.
            terms = self._log_prob(torch.where(measured, y, self.mean(z.detach())), z)
            terms = torch.where(measured, terms, torch.zeros_like(terms))
        return terms.reshape(len(terms), -1).sum(1)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """d log p(y | z) / dz, (B, *clean); by autograd where no closed form is known."""
        with torch.enable_grad():
            leaf = z if z.requires_grad else z.detach().requires_grad_()
            total = self._log_prob(y, leaf).sum()
            (result,) = torch.autograd.grad(total, leaf, create_graph=z.requires_grad)
        return result

    def gaussian(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """(m, S) so that N(m; z', diag S) stands for p(y | z') as a function of z' near z.

        S = 1 / information(z) and m = z + S score(y, z): the slope at z is exact and the curvature
        is that of the expected log-likelihood (Fisher scoring), so that it is never negative.
        For Gaussian noise m = y and S = sigma^2 wherever z is. Where y holds no information on z
        S is infinite and m = z.
        """
        information = self.information(z)
        known = information > 0
        one = torch.ones_like(information)
        variance = torch.where(known, 1 / torch.where(known, information, one), torch.inf)
        step = torch.where(known, variance, 0) * self.score(y, z)
        return z + step, variance
