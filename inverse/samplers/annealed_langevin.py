"""Annealed Langevin dynamics: Langevin steps at falling noise levels, and how to choose both.

At a large level all modes are one, so their weights settle there; the smaller levels only sharpen.

Papers: Song and Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution",
2019, https://arxiv.org/abs/1907.05600; Song and Ermon, "Improved Techniques for Training
Score-Based Generative Models", 2020, https://arxiv.org/abs/2006.09011
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from priors import Prior, geometric

from ..checks import positive, whole
from .langevin import langevin_step
from .sampler import Noise, Past, Sampler


@final
class AnnealedLangevin(Sampler):
    """T Langevin steps at each noise level, their size in proportion to sigma_i^2:

        x' = x + a_i score(x, sigma_i) + sqrt(2 a_i) z,          a_i = c sigma_i^2

    With sigma_L the last positive level, c = eps / sigma_L^2 for the eps of the 2020 paper; the
    2019 paper writes a_i / 2 for this a_i, so there c = eps / (2 sigma_L^2) (0.1 with its
    constants). If the levels end at 0, the last step returns the denoised image, as the 2020 paper
    does. On a Gaussian of mean m_x and variance v_i at level sigma_i, mean m and variance s
    follow

        m' - m_x = (1 - a_i / v_i) (m - m_x),   s' = (1 - a_i / v_i)^2 s + 2 a_i

    exactly. The samples approach the prior as T grows and c falls; neither as levels alone are
    added. One network call a step: T for each positive level, and one for the denoising.

    Args:
        levels: see Sampler; `annealing_levels` follows the papers.
        steps_per_level: T.
        relative_step: c, in (0, 2), beyond which the steps diverge where p_sigma is narrowest; by
            default `annealing_step` for the mean ratio of the levels and T.
    """

    order = 1
    stationary = True

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        steps_per_level: int = 5,
        relative_step: float | None = None,
    ) -> None:
        super().__init__(levels)
        self.steps_per_level = whole(steps_per_level, "steps_per_level")
        if relative_step is None:
            held = self.levels[self.levels > 0]
            falls = max(len(held) - 1, 1)
            ratio = (float(held[0]) / float(held[-1])) ** (1 / falls)
            relative_step = annealing_step(max(ratio, 1.0), steps_per_level)
        self.relative_step = positive(relative_step, "relative_step")
        if relative_step >= 2:
            raise ValueError(f"relative_step must be below 2 for stability, got {relative_step}")

    @property
    def path(self) -> Tensor:
        held = self.levels[self.levels > 0]
        return torch.cat([
            held.repeat_interleave(self.steps_per_level), held[-1:], self.levels[self.levels == 0]
        ])  # fmt: skip

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        if sigma_next == 0:
            x0 = prior.denoise(x, sigma)
            return x0, x0
        score = prior.score(x, sigma)
        x_next = langevin_step(x, score, self.relative_step * sigma**2, eps())
        return x_next, x + sigma**2 * score


def annealing_levels(sigma_range: tuple[float, float], size: int, overlap: float = 0.5) -> Tensor:
    """Geometric levels between which samples stay at home, then 0 (technique 2).

    In D dimensions the noise of one level lies on a shell of radius sqrt(D) sigma, of thickness
    sigma / sqrt(2). The ratio gamma of the levels is the one at which the next level's three
    standard deviations hold the share `overlap` of this level's shell,

        Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma) = overlap.

    Args:
        sigma_range: (smallest, largest); the paper's largest is the largest distance between two
            data (technique 1, `largest_distance`), its smallest 0.01 for images in [0, 1].
        size: D, the number of values in an event, at least 5: below, wide shells always overlap.
        overlap: in (0, 0.99); the paper asks for about 0.5, its published levels have 0.57.
    """
    low, high = sigma_range
    if not 0 < low < high < math.inf:
        raise ValueError(f"sigma_range must be (low, high) with 0 < low < high, got {sigma_range}")
    if not 0 < overlap < 0.99:
        raise ValueError(f"overlap must lie in (0, 0.99), got {overlap}")
    if whole(size, "size") < 5:
        raise ValueError(f"this rule needs at least 5 values, got {size}; take priors.geometric")
    root = math.sqrt(2 * size)
    near, far = 1.0, (root + 4) / (root - 3)  # where the share is 0.997, and below 1e-4
    for _ in range(80):
        middle = (near + far) / 2
        shift = root * (middle - 1)
        held = _phi(shift + 3 * middle) - _phi(shift - 3 * middle)
        near, far = (middle, far) if held > overlap else (near, middle)
    return geometric(2 + round(math.log(high / low) / math.log(near)), sigma_range)


def annealing_step(ratio: float, steps: int) -> float:
    """c = a_i / sigma_i^2 for which T steps best bring the next level's variance (technique 4).

    Around one datum, s / sigma_i^2 goes from ratio^2 to

        r(c) = (1 - c)^(2 T) (ratio^2 - q) + q,          q = 2 c / (1 - (1 - c)^2),

    in T steps; c in (0, 1) is taken where r is nearest to 1.

    Args:
        ratio: gamma = sigma_{i-1} / sigma_i >= 1.
        steps: T.
    """
    if not 1 <= ratio < math.inf:
        raise ValueError(f"ratio must be a finite number >= 1, got {ratio!r}")
    c = torch.logspace(-6, 0, 60_001, dtype=torch.float64)[:-1]
    rest = 2 / (2 - c)
    r = (1 - c) ** (2 * whole(steps, "steps")) * (ratio**2 - rest) + rest
    return float(c[(r - 1).abs().argmin()])


def largest_distance(data: Tensor) -> float:
    """The largest distance between two of the data (N, *event), technique 1; costs N^2 D.

    Raises ValueError for fewer than two data.
    """
    if data.ndim < 2 or len(data) < 2:
        raise ValueError(f"data must have shape (N, *event) with N >= 2, got {tuple(data.shape)}")
    flat = data.flatten(1).double()
    return max(float(torch.cdist(part, flat).max()) for part in flat.split(256))


def _phi(value: float) -> float:
    """The standard normal distribution function."""
    return math.erfc(-value / math.sqrt(2)) / 2
