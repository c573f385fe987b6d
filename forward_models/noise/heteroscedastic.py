"""The Gaussian approximation of photon and read-out noise."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import check_finite
from .continued import Continued
from .noise import check_possible, standard_normal
from .parameter import PerEntry
from .special import normal_log_prob


@final
class HeteroscedasticGaussian(Continued):
    """y = z + sqrt(gain z + sigma^2) eps, eps ~ N(0, 1): noise that grows with the signal.

    log p(y | z) = -(y - z)^2 / (2 v) - log(2 pi v) / 2,    v = gain z + sigma^2.

    A density of its own, exact for z >= 0 and continued below (see `Continued`); as a stand-in for
    `PoissonGaussian` it has the same mean and variance and the cost of one term: a few operations
    for each entry. Information 1 / v + gain^2 / (2 v^2).

    Args:
        gain: growth of the variance with z, in the unit of y, a positive number, or one for each
            entry.
        sigma: standard deviation at z = 0, in the unit of y, likewise.

    Raises:
        TypeError: a parameter is no real number or tensor.
        ValueError: it is not positive; in a simulation, z is negative.

    Paper: Foi et al., Practical Poissonian-Gaussian noise modeling and fitting for single-image
    raw-data, https://doi.org/10.1109/TIP.2008.2001399
    """

    def __init__(self, gain: float | Tensor, sigma: float | Tensor) -> None:
        self._gain, self._sigma = PerEntry("gain", gain), PerEntry("sigma", sigma)

    def _floor(self, z: Tensor) -> Tensor:
        return torch.zeros((), dtype=z.dtype, device=z.device)

    def _exact_variance(self, z: Tensor) -> Tensor:
        return self._gain.like(z) * z + self._sigma.like(z).square()

    def _exact_log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        v = self._exact_variance(z)
        return normal_log_prob((y - z) / v.sqrt()) - 0.5 * v.log()

    def _exact_score(self, y: Tensor, z: Tensor) -> Tensor:
        v = self._exact_variance(z)
        r = (y - z) / v
        return r + 0.5 * self._gain.like(z) * (r.square() - 1 / v)

    def _exact_information(self, z: Tensor) -> Tensor:
        v = self._exact_variance(z)
        return 1 / v + 0.5 * (self._gain.like(z) / v).square()

    def mean(self, z: Tensor) -> Tensor:
        return z

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return z + self._exact_variance(z).sqrt() * standard_normal(z, generator)

    def check_clean(self, z: Tensor) -> Tensor:
        check_finite("the clean measurement", z)
        check_possible("the clean measurement", z, z >= 0, "z >= 0: the variance grows from there")
        return z
