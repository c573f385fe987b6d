"""The twisted diffusion sampler, and the bootstrap filter: its proposals without guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ..samplers import Sampler
from .particle_method import ParticleMethod, State, weighed
from .transition import nothing_before, remember, reverse_process, step
from .walk import Look, Walk


@final
class TwistedFilter(ParticleMethod):
    """A sampler's steps, guided by the twist and weighed by what the guidance got wrong.

        p(x' | x) = N(x'; m(x, D), c^2 I)             the step under the prior, D = E[x0 | x]
        q(x' | x) = N(x'; m(x, D) + f shift, c^2 I)   the step under the posterior of the twist

    with f shift what the twist's shift of D adds to m; for ancestral steps (order 1)

        m(x, D) = D + k (x - D),    k = sqrt(sigma'^2 - c^2) / sigma,    f = 1 - k,
        c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2).

    The last step returns the prior's denoised image D, and p(y | D) takes the twist's place. Below
    the threshold of `Absorbed` likelihoods (`Likelihood.exact_at`) steps are neither guided nor
    weighed: from there the prior alone carries the particles to the posterior.

    Asymptotically exact in the number of particles, up to the discretisation of the prior's
    reverse process. One network call, and the likelihood's products, a step and particle.

    Args:
        levels, resample_below: see ParticleMethod.
        eta: 1 is DDPM; must be positive, as weights need a transition density.
        guided: False proposes from the prior alone (the bootstrap filter), which takes no more of
            a likelihood than its density: black boxes will do.
        order: 2 extrapolates D as Multistep does; the transitions are then those of
            SDE-DPM-Solver++(2M), with a smaller error of the discretised prior.
        proposal: in place of eta and order, any sampler over the same levels whose steps are
            Gaussian with fresh noise: Ancestral, Multistep, EulerMaruyama. Its error under the
            prior alone is that of the discretised prior.

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
        proposal: Sampler | None = None,
    ) -> None:
        super().__init__(levels, resample_below)
        self.reverse = reverse_process(self.levels, eta, order, proposal)
        self.guided = bool(guided)

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        seen = self._look(walk, x, sigma)
        return {"x": x, "log_w": seen.log_g, "log_g": seen.log_g, "x0": seen.x0,
                "before": nothing_before(self.reverse, x), "shift": seen.shift}  # fmt: skip

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        x, x0, log_g, log_w = (state[name] for name in ("x", "x0", "log_g", "log_w"))
        sigma, sigma_next = float(self.levels[k]), float(self.levels[k + 1])
        absorbed = walk.posterior.exact_at(sigma)
        if sigma_next == 0:
            last = 0 if absorbed else walk.log_likelihood(x0) - log_g
            return {"x": x0, "log_w": weighed(log_w, torch.as_tensor(last))}
        mean, c, pull = step(self.reverse, k, x, x0, state["before"])
        before = remember(x0, state["before"])
        if absorbed:
            x_next = mean + c * z
            return {"x": x_next, "x0": walk.denoise(x_next, sigma_next), "before": before}
        drift = pull * state["shift"]
        x_next = mean + drift + c * z
        # log p - log q of two Gaussians that differ in their mean alone.
        log_ratio = -(drift * z / c + (drift / c).square() / 2).flatten(1).sum(1)
        seen = self._look(walk, x_next, sigma_next)
        log_w = weighed(log_w, log_ratio + seen.log_g - log_g)
        return {"x": x_next, "log_w": log_w, "log_g": seen.log_g,
                "x0": seen.x0, "before": before, "shift": seen.shift}  # fmt: skip

    def _look(self, walk: Walk, x: Tensor, sigma: float) -> Look:
        """Unguided, the twist alone: a black box has no shift."""
        if self.guided:
            return walk.look(x, sigma)
        x0, log_g = walk.weigh(x, sigma)
        return Look(x0, torch.zeros_like(x0), log_g)
