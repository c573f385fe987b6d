"""Quantisation: Gaussian noise, then rounding to the steps of a converter."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, check_positive
from .noise import IndependentNoise, check_possible, standard_normal
from .parameter import PerEntry
from .poisson import is_multiple
from .quadrature import legendre
from .special import hazard, log_ndtr, normal_log_prob

# Terms either side of a sum over levels; 9 sigma lie inside, at strides that leave it exact.
_LEVELS = 24


@final
class Quantised(IndependentNoise):
    """y = step * round((z + sigma * eps) / step): a converter that records multiples of `step`.

        P(y | z) = Phi((y + step / 2 - z) / sigma) - Phi((y - step / 2 - z) / sigma),

    exact for every z and in either tail, a probability. log p is concave in z, and its own
    curvature is what `gaussian` takes: the information may vanish in the middle of a step.

    Mean, variance and information are sums over the levels within 9 sigma, every k-th where there
    are more than 49: exact to 1e-9. For sigma above 1.5 steps they are z, sigma^2 + step^2 / 12 and
    nearly the inverse of that. Cost: log p 8 terms for each entry, the sums 49 times as much.

    Args:
        step: distance of neighbouring levels, in the unit of y, a positive number.
        sigma: noise standard deviation before rounding, a positive number, or one for each entry.

    Raises:
        TypeError: a parameter is no real number (or tensor).
        ValueError: it is not positive; at use, y is no multiple of the step.

    Paper: Widrow, Kollar and Liu, Statistical theory of quantization,
    https://doi.org/10.1109/19.492748
    """

    neutral = 0.0

    def __init__(self, step: float, sigma: float | Tensor) -> None:
        self.step = check_positive("step", step)
        self._sigma = PerEntry("sigma", sigma)
        nodes, weights = legendre(8)
        self._nodes, self._log_weights = Constant(nodes), Constant((weights / 2).log())

    def _bin(self, u: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log P(e in u +- step / (2 sigma)), e ~ N(0, 1), and mean and variance of such e."""
        delta = self.step / sigma
        narrow = delta < 1
        fine = self._narrow_bin(u, torch.where(narrow, delta, 1))
        coarse = _wide_bin(u, torch.where(narrow, 1, delta))
        log_p, mean, variance = (
            torch.where(narrow, a, b) for a, b in zip(fine, coarse, strict=True)
        )
        return log_p, mean, variance

    def _narrow_bin(self, u: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # The integral of phi by quadrature: a difference of Phi would cancel. phi(u) is taken out
        # because in the far tail its logarithm is large.
        offset = 0.5 * delta * self._nodes.like(u).reshape(-1, *[1] * u.ndim)
        terms = -offset * (u + 0.5 * offset) + self._log_weights.like(u).reshape(-1, *[1] * u.ndim)
        weights = terms.softmax(0)
        mean = (weights * offset).sum(0)
        variance = (weights * (offset - mean).square()).sum(0)
        return normal_log_prob(u) + delta.log() + terms.logsumexp(0), u + mean, variance

    def _log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        sigma = self._sigma.like(z)
        return self._bin((y - z) / sigma, sigma)[0]

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        sigma = self._sigma.like(z)
        return self._bin((y - z) / sigma, sigma)[1] / sigma

    def curvature(self, y: Tensor, z: Tensor) -> Tensor:
        sigma = self._sigma.like(z)
        # Rounding alone leaves [0, 1].
        return (1 - self._bin((y - z) / sigma, sigma)[2]).clamp(0, 1) / sigma.square()

    def _expect(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E[y] - z, E[(y - z)^2] and E[score^2]."""
        sigma = self._sigma.like(z)
        stride = ((9 * sigma / self.step + 1) / _LEVELS).ceil()
        offsets = torch.arange(-_LEVELS, _LEVELS + 1, dtype=z.dtype, device=z.device)
        level = (z / self.step).round() + stride * offsets.reshape(-1, *[1] * z.ndim)
        error = self.step * level - z
        log_p, mean, _ = self._bin(error / sigma, sigma)
        p = stride * log_p.exp()
        first, second = (p * error).sum(0), (p * error.square()).sum(0)
        return first, second, (p * (mean / sigma).square()).sum(0)

    def mean(self, z: Tensor) -> Tensor:
        return z + self._expect(z)[0]

    def variance(self, z: Tensor) -> Tensor:
        first, second, _ = self._expect(z)
        return (second - first.square()).clamp(min=0)

    def information(self, z: Tensor) -> Tensor:
        return self._expect(z)[2]

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        noisy = z + self._sigma.like(z) * standard_normal(z, generator)
        return self.step * (noisy / self.step).round()

    def check_recorded(self, y: Tensor) -> Tensor:
        super().check_recorded(y)
        expected = f"multiples of the step {self.step:g}"
        check_possible("y", y, is_multiple(y, y.new_tensor(self.step)), expected)
        return y


def _wide_bin(u: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log P(|e - u| < delta / 2) and the moments of such e, from differences of log Phi."""
    # By symmetry the bin lies below 0, where log Phi keeps its precision.
    right, left = 0.5 * delta - u.abs(), -0.5 * delta - u.abs()
    log_right, log_left = log_ndtr(right), log_ndtr(left)
    ratio = (log_left - log_right).exp()
    inside = -torch.expm1(log_left - log_right)
    at_right, at_left = hazard(right) / inside, hazard(left) * ratio / inside
    mean = at_right - at_left
    variance = 1 - right * at_right + left * at_left - mean.square()
    return log_right + inside.log(), u.sign() * mean, variance.clamp(0, 1)
