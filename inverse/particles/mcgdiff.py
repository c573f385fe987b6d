"""MCGDiff: each singular direction is measured at the noise level that equals its own noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ..posterior import Posterior
from .particle_method import ParticleMethod, State
from .spectral import Spectral, not_spectral, spectral
from .transition import nothing_before, remember, reverse_process, step
from .walk import Walk


@final
class MCGDiff(ParticleMethod):
    """Noise absorption: y is a noisy image itself, direction by direction.

    In the basis of the SVD, y_i = x0_i + sigma_i eps with sigma_i = sigma_y / s_i. So y_i has the
    law of x_i at noise level sigma_i, and, with a_i the first level at or below sigma_i,

        p(y_i | x_a) = N(y_i; x_a,i, sigma_i^2 - a_i^2)

    is exact: once a_i is reached, y_i has done its work, and nothing guides direction i any more.
    Above it the twist takes the prior for flat,

        g_i(x) = N(y_i; x_i, v),    v = (sigma^2 - a_i^2) + (sigma_i^2 - a_i^2),

    and proposals are the optimal ones, p(x' | x) g'(x') normalised, whose weight is

        N(y_i; m_i(x), c^2 + v') / g_i(x),    m and c^2 the mean and variance of p(x' | x).

    Asymptotically exact in the number of particles and steps: beside the discretisation of the
    prior, the law of a noisy x must be that of x0 plus noise, which holds as steps grow. A
    direction with sigma_i below the smallest positive level is weighed by its p(y_i | x0) at the
    end, which many particles survive only where sigma_i is not much smaller.

    The published code ends with weights p(y | x0) / g instead, though y_i was absorbed at sigma_i:
    it uses the data twice. It widens v by a share kappa of sigma_i^2 because its levels must
    hit sigma_i; here any levels serve, and kappa = 0. One network call a step and particle.

    Args:
        levels, resample_below: see ParticleMethod.
        eta, order: see `reverse_process`.

    Under `Absorbed` likelihoods the same: it absorbs y as it is, at the level of each direction.

    Raises ValueError, when run, for measurements that are not linear with white noise and an SVD.

    Paper: Cardoso et al., "Monte Carlo guided Diffusion for Bayesian linear inverse problems",
    2024, https://arxiv.org/abs/2308.07983
    """

    absorbs = True

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        resample_below: float = 0.5,
        eta: float = 1.0,
        order: int = 2,
    ) -> None:
        super().__init__(levels, resample_below)
        self.reverse = reverse_process(self.levels, eta, order)

    def calls_before(self, k: int) -> int:
        return k

    def _refusal(self, posterior: Posterior, count: int) -> str | None:
        return not_spectral(posterior)

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        measured = walk.once(spectral, x)
        log_g = measured.log_density(measured.into(x), self._spread(measured, sigma))
        before = nothing_before(self.reverse, x)
        return {"x": x, "log_w": log_g + measured.constant, "before": before}

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        x, x0 = state["x"], walk.denoise(state["x"], float(self.levels[k]))
        sigma, sigma_next = float(self.levels[k]), float(self.levels[k + 1])
        measured = walk.once(spectral, x)
        mean, c, _ = step(self.reverse, k, x, x0, state["before"])
        guiding = measured.sigma < sigma
        v, v_next = self._spread(measured, sigma), self._spread(measured, sigma_next)
        # A direction that is absorbed has no say: infinite variances, of no gain and no weight.
        at, ahead = measured.into(x), measured.into(mean)
        gain = torch.where(guiding, c**2 / (c**2 + v_next), 0.0)
        pull = gain * (measured.y - ahead)
        noise = measured.into(c * z) * ((1 - gain).sqrt() - 1)
        gained = _terms(measured.y - ahead, c**2 + v_next) - _terms(measured.y - at, v)
        return {
            "x": mean + c * z + measured.out(pull + noise),
            "log_w": state["log_w"] + torch.where(guiding, gained, 0.0).sum(1),
            "x0": x0,
            "before": remember(x0, state["before"]),
        }

    def _spread(self, measured: Spectral, sigma: float) -> Tensor:
        """v of each direction at a level that is not below the one that absorbs it, (I,)."""
        # In float64: a level that equals sigma_i must leave no variance, not a negative one.
        rising, own = self.levels.flip(0).to(measured.sigma.device), measured.sigma.double()
        absorbs = rising[torch.searchsorted(rising, own, right=True) - 1]
        above = (sigma**2 - absorbs**2).clamp(min=0)
        return (above + own**2 - absorbs**2).to(measured.sigma)


def _terms(difference: Tensor, variance: Tensor) -> Tensor:
    """log N(difference; 0, variance) up to a constant, entry by entry."""
    return -0.5 * (difference.square() / variance + variance.log())
