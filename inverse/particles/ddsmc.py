"""DDSMC: propose a clean image that explains y, and noise it to the next level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ..posterior import Posterior
from .particle_method import ParticleMethod, State, weighed
from .spectral import Spectral, normal_log_density, not_spectral, spectral
from .transition import nothing_before, remember, reverse_process, step
from .walk import Walk


@final
class DecoupledDiffusion(ParticleMethod):
    """Decoupled diffusion: p(x0 | x) ~ N(D, rho^2 I), conditioned on y in closed form.

    The twist and the clean image that a step heads for are, in the basis of the SVD,

        g(x)           =  N(y_i; D_i, sigma_i^2 + rho^2),     sigma_i = sigma_y / s_i,
        p(x0_i | x, y) =  N(D_i + G (y_i - D_i), (1 - G) rho^2),    G = rho^2 / (rho^2 + sigma_i^2),

    and proposals are x' = kept x + (1 - kept) x0 + noise, with x0 drawn from the latter and as much
    noise as gives p(x' | x) where nothing is measured:

        q(x'_i | x) = N(m_i + f G (y_i - D_i), c^2 - f^2 G rho^2),    f = 1 - kept,

    with rho^2 at most (c / f)^2. Weights are p(x' | x) g(x') / (q(x' | x) g(x)), and p(y | D) takes
    the place of g at the end. Asymptotically exact in the number of particles and steps. Below the
    threshold of `Absorbed` likelihoods, whose density is g at the first level there, steps are
    neither guided nor weighed.

    One network call a step and particle, and no derivative of it.

    Args:
        levels, resample_below: see ParticleMethod.
        spread: s in rho^2 = sigma^2 s^2 / (sigma^2 + s^2) / 2; by default the prior's scale. The
            paper's rule is s = 1, for images of unit variance.
        eta, order: see `reverse_process`. The published eta = 1 is this one; below 1 it moves
            away from x by leaps (eta = 0 noises the image afresh), which keeps the prior's law only
            with images from a reverse run in place of D. That is not offered here.

    Raises ValueError, when run, for measurements that are not linear with white noise and an SVD.

    Paper: Ekstrom Kelvinius et al., "Solving Linear-Gaussian Bayesian Inverse Problems with
    Decoupled Diffusion Sequential Monte Carlo", 2025, https://arxiv.org/abs/2502.06379
    """

    absorbs = True

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        resample_below: float = 0.5,
        spread: float | None = None,
        eta: float = 1.0,
        order: int = 2,
    ) -> None:
        super().__init__(levels, resample_below)
        self.reverse = reverse_process(self.levels, eta, order)
        if spread is not None and not 0 < spread < math.inf:
            raise ValueError(f"spread must be positive, got {spread}")
        self.spread = None if spread is None else float(spread)

    def _refusal(self, posterior: Posterior, count: int) -> str | None:
        return not_spectral(posterior)

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        measured = walk.once(spectral, x)
        x0, log_g = self._look(walk, measured, x, sigma)
        before = nothing_before(self.reverse, x)
        return {"x": x, "x0": x0, "before": before, "log_w": log_g, "log_g": log_g}

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        x, x0, log_g, log_w = (state[name] for name in ("x", "x0", "log_g", "log_w"))
        sigma, sigma_next = float(self.levels[k]), float(self.levels[k + 1])
        measured = walk.once(spectral, x)
        mean, c, f = step(self.reverse, k, x, x0, state["before"])
        absorbed = walk.posterior.exact_at(sigma)
        if c == 0:
            found = self._density(measured, x0, 0.0)
            return {"x": x0, "log_w": log_w if absorbed else weighed(log_w, found - log_g)}
        before = remember(x0, state["before"])
        if absorbed:
            x_next = mean + c * z
            return {"x": x_next, "x0": walk.denoise(x_next, sigma_next), "before": before}
        rho2 = min(self._variance(walk, sigma), (c / f) ** 2)
        gain = rho2 / (rho2 + measured.sigma**2)
        drift = f * gain * (measured.y - measured.into(x0))
        variance = c**2 - f**2 * gain * rho2
        eps = measured.into(z)
        x_next = mean + c * z + measured.out(drift + (variance.sqrt() - c) * eps)
        moved = drift + variance.sqrt() * eps
        log_p = normal_log_density(moved, torch.full_like(variance, c**2))
        log_q = normal_log_density(variance.sqrt() * eps, variance)
        x0_next, log_g_next = self._look(walk, measured, x_next, sigma_next)
        log_w = weighed(log_w, log_p - log_q + log_g_next - log_g)
        return {"x": x_next, "x0": x0_next, "before": before,
                "log_w": log_w, "log_g": log_g_next}  # fmt: skip

    def _variance(self, walk: Walk, sigma: float) -> float:
        """rho^2."""
        s = walk.posterior.scale if self.spread is None else self.spread
        return sigma**2 * s**2 / (sigma**2 + s**2) / 2

    def _look(
        self, walk: Walk, measured: Spectral, x: Tensor, sigma: float
    ) -> tuple[Tensor, Tensor]:
        """D and log g."""
        if walk.posterior.exact_at(sigma):
            return walk.weigh(x, sigma)
        x0 = walk.denoise(x, sigma)
        return x0, self._density(measured, x0, self._variance(walk, sigma))

    def _density(self, measured: Spectral, x0: Tensor, variance: float) -> Tensor:
        """log N(y; A x0, sigma_y^2 + variance A A^T)."""
        at = measured.into(x0)
        return measured.log_density(at, measured.sigma**2 + variance) + measured.constant
