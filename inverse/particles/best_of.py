"""Best of n: at each step several candidates, of which the one that explains y best goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from .particle_method import ParticleMethod, State, Walk, weighed
from .transition import check_transition, transition


@final
class BestOf(ParticleMethod):
    """Stochastic control guidance: n candidate noises a step, chosen by log p(y | D(x')).

    x'_j ~ p(x' | x), j = 1 ... n, and g(x) = p(y | D(x)), the likelihood of the denoised image:

        greedy:  x' = the x'_j of largest g; never exact, it favours images that fit y too well;
        else:    x'_j with probability g(x'_j) / sum_j g(x'_j), the particle's weight times
                 mean_j g(x'_j) / g(x): asymptotically exact in the number of particles.

    Greedy particles do not look at each other, have equal weights, and give no evidence. Nothing
    is differentiated: any forward model will do. n network calls a step and particle once
    guidance has begun, 1 before.

    Args:
        levels, resample_below: see ParticleMethod.
        candidates: n.
        begin: share of the steps that go by before candidates are compared.
        greedy: whether the best candidate is taken.
        eta, order: see `transition`.

    Paper: Huang et al., "Symbolic Music Generation with Non-Differentiable Rule Guided Diffusion",
    2024, https://arxiv.org/abs/2402.14285
    """

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        resample_below: float = 0.5,
        candidates: int = 8,
        begin: float = 0.25,
        greedy: bool = True,
        eta: float = 1.0,
        order: int = 2,
    ) -> None:
        super().__init__(levels, resample_below)
        check_transition(eta, order)
        if isinstance(candidates, bool) or not isinstance(candidates, int) or candidates < 1:
            raise ValueError(f"candidates must be an integer >= 1, got {candidates!r}")
        if not 0 <= begin <= 1:
            raise ValueError(f"begin must lie in [0, 1], got {begin}")
        self.candidates, self.begin, self.greedy = candidates, float(begin), bool(greedy)
        self.eta, self.order = float(eta), order

    @property
    def _first(self) -> int:
        """The first step that compares candidates."""
        return math.ceil(self.begin * (len(self.levels) - 1))

    @property
    def network_calls(self) -> int:
        compared = max(0, len(self.levels) - 2 - self._first)
        return len(self.levels) - 1 + (self.candidates - 1) * compared

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        zero = x.new_zeros(len(x))
        x0 = walk.denoise(x, sigma)
        start = {"x": x, "x0": x0, "before": x0, "log_w": zero, "log_g": zero}
        if self.greedy:
            start["log_evidence"] = zero[: walk.groups] + math.nan
        return start

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        x, x0, log_w = state["x"], state["x0"], state["log_w"]
        mean, c, _ = transition(self.levels, k, x, x0, state["before"], self.eta, self.order)
        if c == 0:
            gained = walk.log_likelihood(x0) - state["log_g"]
            return {"x": x0, "log_w": log_w if self.greedy else weighed(log_w, gained)}
        sigma_next = float(self.levels[k + 1])
        if k < self._first:
            x_next = mean + c * z
            return {"x": x_next, "x0": walk.denoise(x_next, sigma_next), "before": x0}
        shape = tuple(x.shape[1:])
        noises = [z, *(walk.noise(j, k + 1, shape) for j in range(1, self.candidates))]
        tried = torch.stack([mean + c * eps for eps in noises], 1)
        denoised = torch.stack([walk.denoise(t, sigma_next) for t in tried.unbind(1)], 1)
        if not bool(torch.isfinite(denoised).all()):
            return {"x": denoised[:, 0]}
        log_g = torch.stack([walk.log_likelihood(d) for d in denoised.unbind(1)], 1)
        if self.greedy:
            chosen = log_g.argmax(1)
        else:
            u = torch.special.ndtr(walk.noise(self.candidates, k + 1, (1,)).double())
            edges = torch.softmax(log_g.double(), 1).cumsum(1)
            chosen = torch.searchsorted(edges, u.to(edges)).clamp(max=self.candidates - 1)[:, 0]
            mean_g = torch.logsumexp(log_g, 1) - math.log(self.candidates)
            log_w = weighed(log_w, mean_g - state["log_g"])
        rows = torch.arange(len(x), device=x.device)
        return {
            "x": tried[rows, chosen],
            "x0": denoised[rows, chosen],
            "before": x0,
            "log_w": log_w,
            "log_g": torch.zeros_like(log_w) if self.greedy else log_g[rows, chosen],
        }
