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
from .special import deviance, stirling_excess

# No window needs more terms, whatever the parameters.
_TERMS = 65
# Terms of a chunk of entries.
_CACHED = 2**16


@final
class PoissonGaussian(Continued):
    """y = gain * N + sigma * eps, N ~ Poisson((z + background) / gain): photons, then read-out.

        p(y | z) = sum over n of Poisson(n; rate) N(y; gain n, sigma^2)

    E[y] = z + background, Var[y] = gain (z + background) + sigma^2.

    With s = sigma / gain and n* the largest term, the terms are in proportion to Poisson(n; n*)
    exp(-(n - n*)^2 / (2 s^2)), of width w = (1 / s^2 + 1 / n*)^(-1/2). The sum runs over every k-th
    count, k = max(1, floor(0.8 w - 1)), from n* - 7.5 w on: what this leaves out, tails and the
    aliases of Poisson's summation formula at the frequencies j / k, is less than 1e-12 of the sum
    (for s -> infinity the first alias is exp(-n* (1 - cos(2 pi / k)))). Cost: min(15 s + 8, 65)
    terms for each entry, in chunks of bounded memory where no gradient is asked for; 0.3 s for
    256^2 entries on one core. `HeteroscedasticGaussian` costs one term.

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
        widest = self._sigma.largest / self._gain.least
        self._terms = math.ceil(min(15 * widest + 8, _TERMS))

    def _rate(self, z: Tensor) -> Tensor:
        return (z + self._background.like(z)) / self._gain.like(z)

    def _floor(self, z: Tensor) -> Tensor:
        return self.floor * self._gain.like(z) - self._background.like(z)

    def _sum(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(y | z) and E[n | y, z], a few entries at a time: their terms fit in a cache."""
        gain = self._gain.like(z)
        entries = torch.broadcast_tensors(y / gain, self._rate(z), self._sigma.like(z) / gain)
        size = _CACHED // self._terms
        chunks = zip(*(value.reshape(-1).split(size) for value in entries), strict=True)
        sums = [_sum_of_counts(c, rate, s, self._terms) for c, rate, s in chunks]
        log_p, expected = (torch.cat(v).reshape(entries[0].shape) for v in zip(*sums, strict=True))
        return log_p - gain.log(), expected

    def _slope(self, z: Tensor, expected: Tensor) -> Tensor:
        """(E[n | y, z] / rate - 1) / gain."""
        rate = self._rate(z)
        return (expected - rate) / (rate * self._gain.like(z))

    def _exact_log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        return self._sum(y, z)[0]

    def _exact_score(self, y: Tensor, z: Tensor) -> Tensor:
        return self._slope(z, self._sum(y, z)[1])

    def _value_and_slope(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        # One sum serves both.
        log_p, expected = self._sum(y, z)
        return log_p, self._slope(z.detach(), expected.detach())

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


def _sum_of_counts(counts: Tensor, rate: Tensor, s: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """log sum_n Poisson(n; rate) N(counts; n, s^2) and the mean of n under its terms; (K,) each.

    The probability of n at the rate is that at n0 times exp((n - n0) log(rate / n0)) and a factor
    without n, so that derivatives in the rate run through one logarithm for each entry.
    """
    # The window is a choice, through which no derivative runs.
    mode = _largest_term(counts.detach(), rate.detach(), s)
    width = (1 / s.square() + 1 / mode).rsqrt()
    stride = (0.8 * width - 1).floor().clamp(min=1)
    centre = mode.round()
    below = torch.minimum(((7.5 * width + 2) / stride).ceil(), (centre / stride).floor())
    offsets = torch.arange(terms, dtype=rate.dtype, device=rate.device)[:, None]
    n = centre + stride * (offsets - below)
    n0 = centre.clamp(min=1)
    difference = n - n0
    # The bound, below any n / n0 - 1 of the window, keeps 0 log 0 = 0.
    log_p = difference - n * (difference / n0).clamp(min=-0.999).log1p() - stirling_excess(n)
    log_terms = log_p - 0.5 * ((counts - n) / s).square() + difference * (rate / n0).log()
    largest = log_terms.detach().amax(0)
    weights = (log_terms - largest).exp()
    total = weights.sum(0)
    log_sum = largest + total.log() - deviance(n0, rate)
    log_sum = log_sum + (stride / s).log() - 0.5 * math.log(2 * math.pi)
    return log_sum, n0 + (weights * difference).sum(0) / total


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
