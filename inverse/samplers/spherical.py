"""Spherical guidance: the fresh noise of an ancestral step, turned towards the measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from priors import Prior
from priors.prior import event_size

from ..checks import between
from ..norms import norm_of
from .ancestral import fresh_and_kept
from .sampler import Noise, Past, Sampler


@final
class Spherical(Sampler):
    """Ancestral sampling of the prior, its noise on a sphere and turned along the guidance.

    For n values in an event, g the posterior's shift E[x0 | x, y] - E[x0 | x], along which the
    likelihood rises,

        mu = D + sqrt(sigma'^2 - c^2) (x - D) / sigma,    c = eta (sigma' / sigma)
                                                              sqrt(sigma^2 - sigma'^2),
        d  = c z + ratio (sqrt(n) c g / |g| - c z),        x' = mu + sqrt(n) c d / |d|,

    with D = E[x0 | x] of the prior alone. Only the direction of the guidance counts, so its scale
    needs no tuning, and x' stays where noise of level sigma' would put it; samples are no draws
    of the posterior. Without guidance, d = c z: weak order 1, with the exact second moments of
    Ancestral. A step to level 0 returns D, unguided. Network calls as one `denoise` of the
    posterior: one a step.

    Args:
        levels: see Sampler.
        eta: in (0, 1].
        ratio: in [0, 1], 0.1 to 0.2 in the paper; 1 leaves nothing to chance.

    Paper: Yang et al., "Guidance with Spherical Gaussian Constraint for Conditional Diffusion",
    2024, https://arxiv.org/abs/2402.03201
    """

    order = 1

    def __init__(
        self, levels: Tensor | Sequence[float], eta: float = 1.0, ratio: float = 0.1
    ) -> None:
        super().__init__(levels)
        if not 0 < eta <= 1:
            raise ValueError(f"eta must lie in (0, 1], got {eta}; without noise nothing can turn")
        self.eta, self.ratio = float(eta), between(ratio, "ratio", 0, 1)

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        x0, shift = prior.guided(x, sigma)
        fresh, kept = fresh_and_kept(self.eta, sigma, sigma_next)
        x_next = x0 + kept / sigma * (x - x0)
        if fresh == 0:
            return x_next, x0
        radius = math.sqrt(event_size(tuple(x.shape[1:])))
        z, guide = eps(), norm_of(shift)
        towards = torch.where(guide == 0, z, radius * shift / guide)
        direction = z + self.ratio * (towards - z)
        length = norm_of(direction)
        # Where noise and guidance cancel there is no direction to step in.
        on_sphere = torch.where(length == 0, direction, radius * direction / length)
        return x_next + fresh * on_sphere, x0
