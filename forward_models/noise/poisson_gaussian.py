"""Photon noise and read-out noise together: cameras."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import check_finite, check_positive
from .continued import Continued
from .noise import check_possible, standard_normal
from .parameter import PerEntry
from .poisson import poisson_counts
from .special import deviance, normal_log_prob, poisson_log_prob

# Beyond this many counts either side a sum over every k-th count is as good as over all.
_TERMS = 96


@final
class PoissonGaussian(Continued):
    """y = gain * N + sigma * eps, N ~ Poisson((z + background) / gain): photons, then read-out.

        p(y | z) = sum over n of Poisson(n; rate) N(y; gain n, sigma^2)

    E[y] = z + background, Var[y] = gain (z + background) + sigma^2.

    The sum runs over a window around its largest term, which leaves out less than 1e-12 of it:
    n* +- min(8 sigma / gain + 2, 10 + sqrt(100 + 60 n*)), every count or, where that would be more
    than 96 either side, every k-th: so smooth a sum does not notice. Cost and memory: 16 sigma /
    gain + 5 terms for each entry, at most 193; `HeteroscedasticGaussian` costs one.

    The Fisher information has no closed form; `information` is its lower bound 1 / Var[y], exact
    for many counts and for sigma >> gain; another bound from above is that of the counts alone,
    1 / (gain (z + background)). Exact for an expected count of at least `floor`, continued below;
    see `Continued`.

    Args:
        gain: unit of y per count, a positive number, or one for each entry.
        sigma: standard deviation of the read-out in the unit of y, likewise.
        background: expected y at z = 0, likewise, may be zero.
        floor: the least expected count at which log p is exact.

    Raises:
        TypeError: a parameter is no real number or tensor.
        ValueError: it is not positive; in a simulation, z + background is negative.

    Paper: Foi et al., Practical Poissonian-Gaussian noise modeling and fitting for single-image
    raw-data, https://doi.org/10.1109/TIP.2008.2001399
    """

    def __init__(
        self,
        gain: float | Tensor,
        sigma: float | Tensor,
        background: float | Tensor = 0.0,
        *,
        floor: float = 1e-3,
    ) -> None:
        self._gain, self._sigma = PerEntry("gain", gain), PerEntry("sigma", sigma)
        self._background = PerEntry("background", background, zero=True)
        self.floor = check_positive("floor", floor)
        widest = 8 * self._sigma.largest / self._gain.least + 2
        self._half = math.ceil(min(widest, _TERMS))

    def _rate(self, z: Tensor) -> Tensor:
        return (z + self._background.like(z)) / self._gain.like(z)

    def _floor(self, z: Tensor) -> Tensor:
        return self.floor * self._gain.like(z) - self._background.like(z)

    def _window(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """n0, n - n0, the terms at rate n0, and log(rate / n0); windows on an axis in front.

        The Poisson probability at another rate is that at n0 times exp((n - n0) log(rate / n0)) and
        a factor without n, so that derivatives in z run through one logarithm for each entry.
        """
        gain, rate = self._gain.like(z), self._rate(z)
        s = self._sigma.like(z) / gain
        counts = y / gain
        # The window is a choice, through which no derivative runs.
        mode = _largest_term(counts, rate.detach(), s)
        half = torch.minimum(8 * s + 2, 10 + (100 + 60 * mode).sqrt())
        stride = (half / self._half).ceil()
        offsets = torch.arange(-self._half, self._half + 1, dtype=z.dtype, device=z.device)
        centre = mode.round()
        n = centre + stride * offsets.reshape(-1, *[1] * mode.ndim)
        reference = centre.clamp(min=1)
        terms = poisson_log_prob(n.clamp(min=0), reference) + normal_log_prob((counts - n) / s)
        terms = torch.where(n >= 0, terms + (stride / (s * gain)).log(), -torch.inf)
        return reference, n - reference, terms, (rate / reference).log()

    def _exact_log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        return self._value_and_slope(y, z)[0]

    def _exact_score(self, y: Tensor, z: Tensor) -> Tensor:
        reference, difference, terms, log_ratio = self._window(y, z)
        return self._slope(z, reference, difference, terms + difference * log_ratio)

    def _value_and_slope(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        # One window serves both.
        reference, difference, terms, log_ratio = self._window(y, z)
        terms = terms + difference * log_ratio
        value = terms.logsumexp(0) - deviance(reference, self._rate(z))
        return value, self._slope(z.detach(), reference, difference, terms.detach())

    def _slope(self, z: Tensor, reference: Tensor, difference: Tensor, terms: Tensor) -> Tensor:
        """(E[n | y, z] / rate - 1) / gain."""
        expected = (terms.softmax(0) * difference).sum(0) + reference
        rate = self._rate(z)
        return (expected - rate) / (rate * self._gain.like(z))

    def _exact_information(self, z: Tensor) -> Tensor:
        return 1 / self._exact_variance(z)

    def _exact_variance(self, z: Tensor) -> Tensor:
        photons = self._gain.like(z) * (z + self._background.like(z))
        return photons + self._sigma.like(z).square()

    def mean(self, z: Tensor) -> Tensor:
        return z + self._background.like(z)

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        counts = self._gain.like(z) * poisson_counts(self._rate(z), generator)
        return counts + self._sigma.like(z) * standard_normal(z, generator)

    def check_clean(self, z: Tensor) -> Tensor:
        check_finite("the clean measurement", z)
        least = "z + background >= 0: no negative number of photons is expected"
        check_possible("the clean measurement", z, self._rate(z) >= 0, least)
        return z


def _largest_term(counts: Tensor, rate: Tensor, s: Tensor) -> Tensor:
    """n with log(rate / n) + (counts - n) / s^2 = 0, to better than one count.

    With u = n / s^2 this is u + log u = log(rate / s^2) + counts / s^2; Newton's method.
    """
    square = s.square()
    # Below -40 the largest term is that of no count at all.
    k = ((rate / square).log() + counts / square).clamp(min=-40.0)
    u = torch.where(k > 1, k - k.clamp(min=1).log(), k.clamp(max=1).exp())
    for _ in range(5):
        u = u * (1 + k - u.log()) / (1 + u)
    return u * square
