"""Multiplicative noise: errors in proportion to the signal."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import final

import torch
from torch import Tensor

from ..checks import check_finite, check_positive
from .continued import Continued
from .noise import check_possible, standard_normal
from .parameter import PerEntry
from .special import deviance, stirling_excess


class Multiplicative(Continued):
    """y = z g with a random factor g > 0 and z > 0; authors give the law of g.

    Exact for z >= floor (in the unit of z), continued below; see `Continued`.
    """

    def __init__(self, floor: float) -> None:
        self.floor = check_positive("floor", floor)

    @abstractmethod
    def _factor(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draws of g, like z."""

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return z * self._factor(z, generator)

    def _floor(self, z: Tensor) -> Tensor:
        return torch.full((), self.floor, dtype=z.dtype, device=z.device)

    def check_clean(self, z: Tensor) -> Tensor:
        check_finite("the clean measurement", z)
        expected = "z > 0: multiplicative noise scales positive signals"
        check_possible("the clean measurement", z, z > 0, expected)
        return z

    def check_recorded(self, y: Tensor) -> Tensor:
        check_finite("y", y)
        expected = "y > 0, as multiplicative noise gives; hide missing entries behind a mask"
        check_possible("y", y, y > 0, expected)
        return y


@final
class LogNormal(Multiplicative):
    """y = z exp(sigma eps), eps ~ N(0, 1): log y is Gaussian around log z; z is the median of y.

    With `unit_mean` y = z exp(sigma eps - sigma^2 / 2), and z is the mean of y. Information
    1 / (sigma z)^2; Var[y] = E[y]^2 (exp(sigma^2) - 1). y and z in any one unit. Cost: a few
    logarithms for each entry.

    Args:
        sigma: standard deviation of log y, without unit, a positive number, or one for each entry.
        unit_mean: whether the factor has mean 1, rather than median 1.
        floor: the least z at which log p is exact, in the unit of z.

    Raises:
        TypeError: sigma is no real number or tensor.
        ValueError: it is not positive; at use, y is not positive, or in a simulation z.

    Paper: Limpert, Stahel and Abbt, Log-normal distributions across the sciences,
    https://doi.org/10.1641/0006-3568(2001)051[0341:LNDATS]2.0.CO;2
    """

    def __init__(
        self, sigma: float | Tensor, *, unit_mean: bool = False, floor: float = 1e-3
    ) -> None:
        super().__init__(floor)
        self._sigma, self.unit_mean = PerEntry("sigma", sigma), unit_mean

    def _shift(self, z: Tensor) -> Tensor:
        """E[log g]."""
        sigma = self._sigma.like(z)
        return -0.5 * sigma.square() if self.unit_mean else torch.zeros_like(sigma)

    def _eps(self, y: Tensor, z: Tensor) -> Tensor:
        return ((y / z).log() - self._shift(z)) / self._sigma.like(z)

    def _exact_log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        normaliser = y.log() + self._sigma.like(z).log() + 0.5 * math.log(2 * math.pi)
        return -0.5 * self._eps(y, z).square() - normaliser

    def _exact_score(self, y: Tensor, z: Tensor) -> Tensor:
        return self._eps(y, z) / (self._sigma.like(z) * z)

    def _exact_information(self, z: Tensor) -> Tensor:
        return 1 / (self._sigma.like(z) * z).square()

    def mean(self, z: Tensor) -> Tensor:
        return z * (self._shift(z) + 0.5 * self._sigma.like(z).square()).exp()

    def _exact_variance(self, z: Tensor) -> Tensor:
        return self.mean(z).square() * self._sigma.like(z).square().expm1()

    def _factor(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return (self._shift(z) + self._sigma.like(z) * standard_normal(z, generator)).exp()


@final
class GammaSpeckle(Multiplicative):
    """y = z g, g ~ Gamma(L) / L: the speckle of a mean of L independent looks (radar, laser).

    E[y] = z, Var[y] = z^2 / L, information L / z^2; one look is exponential intensity noise. y and
    z are intensities in any one unit, not amplitudes. Cost: a few logarithms for each entry.

    Args:
        looks: L, a number of at least 1, not only whole ones, or one for each entry.
        floor: the least z at which log p is exact, in the unit of z.

    Raises:
        TypeError: looks is no real number or tensor.
        ValueError: it is below 1; at use, y is not positive, or in a simulation z.

    Paper: Goodman, Some fundamental properties of speckle, https://doi.org/10.1364/JOSA.66.001145
    """

    def __init__(self, looks: float | Tensor, *, floor: float = 1e-3) -> None:
        super().__init__(floor)
        self._looks = PerEntry("looks", looks)
        if self._looks.least < 1:
            raise ValueError(f"looks must be at least 1, got {self._looks.least:g}")

    def _exact_log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        # L^L / Gamma(L) grows like exp(L): paired with exp(-L g) g^L it does not cancel.
        looks = self._looks.like(z)
        log_normaliser = stirling_excess(looks) - looks.log()
        return -deviance(looks, looks * y / z) - y.log() - log_normaliser

    def _exact_score(self, y: Tensor, z: Tensor) -> Tensor:
        return self._looks.like(z) * (y - z) / z.square()

    def _exact_information(self, z: Tensor) -> Tensor:
        return self._looks.like(z) / z.square()

    def mean(self, z: Tensor) -> Tensor:
        return z

    def _exact_variance(self, z: Tensor) -> Tensor:
        return z.square() / self._looks.like(z)

    def _factor(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        device = z.device if generator is None else generator.device
        looks = self._looks.like(z).expand(z.shape)
        # torch.distributions draws from the global stream only.
        draws = torch._standard_gamma(looks.to(device), generator=generator).to(z.device)
        return draws / looks
