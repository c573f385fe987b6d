"""Poisson noise of transmitted photons: low-dose CT."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import check_finite, check_number
from .continued import Continued
from .noise import check_possible
from .parameter import PerEntry
from .poisson import check_counts, poisson_counts
from .special import poisson_log_prob


@final
class Transmission(Continued):
    """y ~ Poisson(I0 exp(-z) + background): photons that pass an object with line integrals z.

    With r = I0 exp(-z) and rate = r + background: E[y] = Var[y] = rate, information r^2 / rate.

    z are line integrals of attenuation, without unit ((1/mm) * mm); for images in Hounsfield units
    write `Observation(tomography @ attenuation_operator(), Transmission(I0))`. y are counts. Exact
    for z >= floor, continued below; see `Continued`. Cost: a few logarithms for each ray. A
    Gaussian approximation in the log domain is `log_transmission`.

    Args:
        I0: expected counts without an object, a positive number, or one for each ray.
        background: expected counts of scatter and dark current, likewise, may be zero.
        floor: the least z at which log p is exact, at most 0; no object amplifies, and exp(-z)
            would overflow.

    Raises:
        TypeError: a parameter is no real number or tensor.
        ValueError: it is not positive, or floor is; at use, y is no count 0, 1, 2, ...; in a
            simulation, z is below the floor.

    Paper: Elbakri and Fessler, Statistical image reconstruction for polyenergetic X-ray computed
    tomography, https://doi.org/10.1109/42.993128
    """

    def __init__(
        self, I0: float | Tensor, background: float | Tensor = 0.0, *, floor: float = -1.0
    ) -> None:
        self._I0 = PerEntry("I0", I0)
        self._background = PerEntry("background", background, zero=True)
        self.floor = check_number("floor", floor)
        if not -50 <= self.floor <= 0:
            raise ValueError(f"floor must be between -50 and 0, got {self.floor:g}")

    def _log_primary(self, z: Tensor) -> Tensor:
        """log r: unlike r it does not underflow behind a thick object."""
        return self._I0.like(z).log() - z

    def _primary(self, z: Tensor) -> Tensor:
        return self._I0.like(z) * (-z).exp()

    def _share(self, z: Tensor) -> Tensor:
        """r / rate."""
        return (self._log_primary(z) - self._background.like(z).log()).sigmoid()

    def _floor(self, z: Tensor) -> Tensor:
        return torch.full((), self.floor, dtype=z.dtype, device=z.device)

    def _exact_log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        background = self._background.like(z)
        log_rate = torch.logaddexp(self._log_primary(z), background.log())
        return poisson_log_prob(y.round(), self._primary(z) + background, log_rate)

    def _exact_score(self, y: Tensor, z: Tensor) -> Tensor:
        return self._primary(z) - y * self._share(z)

    def _exact_information(self, z: Tensor) -> Tensor:
        return self._primary(z) * self._share(z)

    def _exact_variance(self, z: Tensor) -> Tensor:
        return self._primary(z) + self._background.like(z)

    def mean(self, z: Tensor) -> Tensor:
        return self._exact_variance(z)

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return poisson_counts(self._exact_variance(z), generator)

    def check_clean(self, z: Tensor) -> Tensor:
        check_finite("the clean measurement", z)
        expected = f"line integrals of at least {self.floor:g}: no object amplifies"
        check_possible("the clean measurement", z, z >= self.floor, expected)
        return z

    def check_recorded(self, y: Tensor) -> Tensor:
        check_counts(y, y.new_ones(()))
        return y
