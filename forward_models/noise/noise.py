"""Noise: how a recording y scatters around the clean measurement z = f(x0)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checks import Field, Shape, check_finite
from ..operator import Operator
from ..words import described
from .parameter import PerEntry

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


def check_possible(name: str, value: Tensor, possible: Tensor, expected: str) -> None:
    """Raise ValueError if `possible` is False somewhere: how often, and where first."""
    if bool(possible.all()):
        return
    bad = ~possible
    first = tuple(int(i) for i in bad.nonzero()[0])
    raise ValueError(
        f"{name} has {int(bad.sum())} impossible entries of {value.numel()}, the first at index "
        f"{first} ({value[first].item():g}); expected {expected}"
    )


class Noise(ABC):
    """p(y | z), the density of a recording y given the clean measurement z.

    Normalised in y and differentiable in z. Authors write the methods for z (B, *clean) and
    y (1 or B, *measurement); shapes, dtypes and devices are checked by `Observation`, which joins
    an operator and a noise. `IndependentNoise` is the usual case.

    Attributes:
        field: whether z is "real", "complex", or "any" of the two.
        recorded_field: the same of y, or "integer"; "any" means that of z.
        added_axes: the axes of one recording less those of one clean measurement.
        differentiable: whether log p(y | z) has a useful gradient in z.
    """

    field: Field = "real"
    recorded_field: Field = "real"
    added_axes: int = 0
    differentiable: bool = True

    def __repr__(self) -> str:
        parameters = [v for v in vars(self).values() if isinstance(v, PerEntry)]
        return described(self, **{p.name: p.value for p in parameters})

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
        """Draw y ~ p(y | z), (B, *measurement); z is detached.

        Raises ValueError if z is not what a clean measurement can be: how often, and where first.
        """
        return self._sample(self.check_clean(z.detach()), generator)

    def linear_gaussian(
        self, operator: Operator, y: Tensor
    ) -> tuple[LinearGaussian, Tensor] | None:
        """The observation of y by this operator and noise as a LinearGaussian one, else None."""
        return None

    def check_shape(self, clean_shape: Shape) -> None:
        """Raise ValueError if a parameter does not fit a clean measurement of this shape."""
        for value in vars(self).values():
            if isinstance(value, PerEntry):
                value.check_shape(clean_shape)

    def recorded_shape(self, clean_shape: Shape) -> Shape:
        """Shape of one recording of a clean measurement of this shape."""
        return clean_shape

    def check_clean(self, z: Tensor) -> Tensor:
        """Return z if `sample` can start from it; else raise ValueError."""
        check_finite("the clean measurement", z)
        return z

    def check_recorded(self, y: Tensor) -> Tensor:
        """Return y (B, *measurement) if it can be a recording; else raise ValueError."""
        check_finite("y", y)
        return y


class IndependentNoise(Noise):
    """Noise whose entries are independent given z: log p(y | z) = sum_i log p(y_i | z_i).

    A Gaussian stand-in for the likelihood around a point, as a Gaussian lift needs, has the same
    slope there and, unless said otherwise, the Fisher information for its precision; see
    `gaussian`.

    Attributes:
        neutral: a number that z and y can both be: it stands in for entries that carry no data.
    """

    neutral: float = 1.0

    @abstractmethod
    def _log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(y_i | z_i) of each entry, (B, *measurement)."""

    @abstractmethod
    def information(self, z: Tensor) -> Tensor:
        """Fisher information of z_i, E[(d log p(y_i | z_i) / dz_i)^2 | z], (B, *clean).

        Of a complex z_i the mean over its two parts, E[|d log p / dz_i|^2 | z] / 2.
        """

    def log_prob(self, y: Tensor, z: Tensor, measured: Tensor | None = None) -> Tensor:
        """log p(y | z), (B,), over the entries that `measured` (broadcastable to y) keeps.

        An entry that is left out has no influence, not even on the gradient.
        """
        if measured is None:
            terms = self._log_prob(y, z)
        else:
            terms = self._log_prob(self._filled(y, measured), self._filled(z, measured))
            terms = torch.where(measured, terms, torch.zeros_like(terms))
        return terms.reshape(len(terms), -1).sum(1)

    def _filled(self, value: Tensor, measured: Tensor) -> Tensor:
        # A possible value keeps 0 * inf out of the gradients of the entries left out.
        return torch.where(measured, value, torch.full_like(value, self.neutral))

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """d log p(y | z) / dz, (B, *clean); by autograd where no closed form is known."""
        with torch.enable_grad():
            leaf = z if z.requires_grad else z.detach().requires_grad_()
            total = self._log_prob(y, leaf).sum()
            (result,) = torch.autograd.grad(total, leaf, create_graph=z.requires_grad)
        return result

    def curvature(self, y: Tensor, z: Tensor) -> Tensor:
        """What `gaussian` takes for -d^2 log p(y | z) / dz^2, never negative, (B, *clean).

        By default its expectation, information(z): Fisher scoring.
        """
        return self.information(z)

    def gaussian(
        self, y: Tensor, z: Tensor, measured: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(m, S) so that N(m; z', diag S) stands for p(y | z') as a function of z' near z.

        S = 1 / curvature(y, z) and m = z + S score(y, z), so that the slope at z is exact. For
        Gaussian noise m = y and S = sigma^2 wherever z is. Where y holds no information on z, or is
        not measured, S is infinite and m = z.
        """
        if measured is not None:
            y, z0 = self._filled(y, measured), self._filled(z, measured)
        else:
            z0 = z
        curvature = self.curvature(y, z0)
        # Below this its inverse is infinite in the precision of z.
        known = curvature > 1 / torch.finfo(curvature.dtype).max
        if measured is not None:
            known = known & measured
        variance = torch.where(known, 1 / torch.where(known, curvature, 1), torch.inf)
        step = torch.where(known, variance, 0) * self.score(y, z0)
        return z + step, variance
