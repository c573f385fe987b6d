"""The twisted diffusion sampler, and the bootstrap filter: its proposals without guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from .particle_method import ParticleMethod, State, Walk, weighed


@final
class TwistedFilter(ParticleMethod):
    """Ancestral steps, guided by the twist and weighed by what the guidance got wrong.

        p(x' | x) = N(x'; m(D), c^2 I),    m(D) = D + sqrt(sigma'^2 - c^2) (x - D) / sigma
        q(x' | x) = N(x'; m(D + shift), c^2 I),    c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2)

    The last step returns the prior's denoised image D, and p(y | D) takes the twist's place. Below
    the threshold of `Absorbed` likelihoods (`Likelihood.exact_at`) steps are neither guided nor
    weighed: from there the prior alone carries the particles to the posterior.

    Asymptotically exact in the number of particles, up to the discretisation of the prior's
    reverse process. One network call, and the likelihood's products, a step and particle.

    Args:
        levels, resample_below: see ParticleMethod.
        eta: 1 is DDPM; must be positive, as weights need a transition density.
        guided: False proposes from the prior alone (the bootstrap filter).
        order: 2 extrapolates D as Multistep does; the transitions are then those of
            SDE-DPM-Solver++(2M), with a smaller error of the discretised prior.

    Papers: Wu et al., "Practical and Asymptotically Exact Conditional Sampling in Diffusion
    Models", 2023, https://arxiv.org/abs/2306.17775; Gordon et al., "Novel Approach to
    Nonlinear/Non-Gaussian Bayesian State Estimation", 1993, https://doi.org/10.1049/ip-f-2.1993.0015
    """

    absorbs = True

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        resample_below: float = 0.5,
        eta: float = 1.0,
        guided: bool = True,
        order: int = 2,
    ) -> None:
        super().__init__(levels, resample_below)
        if not 0 < eta <= 1:
            raise ValueError(f"eta must lie in (0, 1], got {eta}")
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order}")
        self.eta, self.guided, self.order = float(eta), guided, order

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        seen = walk.look(x, sigma)
        return {"x": x, "log_w": seen.log_g, "log_g": seen.log_g,
                "x0": seen.x0, "before": seen.x0, "shift": seen.shift}  # fmt: skip

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        x, x0, log_g, log_w = (state[name] for name in ("x", "x0", "log_g", "log_w"))
        sigma, sigma_next = float(self.levels[k]), float(self.levels[k + 1])
        absorbed = walk.posterior.exact_at(sigma)
        if sigma_next == 0:
            last = 0 if absorbed else walk.log_likelihood(x0) - log_g
            return {"x": x0, "log_w": weighed(log_w, torch.as_tensor(last))}
        c = self.eta * sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
        kept = math.sqrt(max(sigma_next**2 - c**2, 0.0)) / sigma
        ahead = x0
        if self.order == 2 and k > 0:
            sigma_before = float(self.levels[k - 1])
            ratio = math.log(sigma / sigma_next) / math.log(sigma_before / sigma)
            ahead = x0 + ratio / 2 * (x0 - state["before"])
        guided = self.guided and not absorbed
        drift = (1 - kept) * state["shift"] if guided else torch.zeros_like(x)
        x_next = ahead + kept * (x - ahead) + drift + c * z
        if absorbed:
            return {"x": x_next, "x0": walk.denoise(x_next, sigma_next), "before": x0}
        # log p - log q of two Gaussians that differ in their mean alone.
        step = -(drift * z / c + (drift / c).square() / 2).flatten(1).sum(1)
        seen = walk.look(x_next, sigma_next)
        log_w = weighed(log_w, step + seen.log_g - log_g)
        return {"x": x_next, "log_w": log_w, "log_g": seen.log_g,
                "x0": seen.x0, "before": x0, "shift": seen.shift}  # fmt: skip
