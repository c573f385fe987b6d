"""Best of n: at each step several candidates, of which the one that explains y best goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from ..checks import whole
from .particle_method import ParticleMethod, State, weighed
from .transition import nothing_before, remember, reverse_process, step
from .walk import Walk


@final
class BestOf(ParticleMethod):
    """Stochastic control guidance: n candidate noises a step, chosen by what they explain of y.

    With x'_j ~ p(x' | x), j = 1 ... n, and g(x) = p_sigma(y | x) as the posterior's lift has it,

        greedy:  x' = the x'_j of largest g; never exact, it favours images that fit y too well.
                 As published under `PlugIn`, whose g is p(y | D), D the denoised image;
        else:    x'_j with probability g(x'_j) / sum_j g(x'_j), the particle's weight times
                 mean_j g(x'_j) / g(x): asymptotically exact in the number of particles. Here
                 p(y | D) is far too sure of D at large noise levels: a few particles would take
                 all the weight before their images mean anything.

    Greedy particles do not look at each other, have equal weights, and give no evidence. Nothing
    is differentiated but what the density of a lift takes: none does for black boxes. n network
    calls a step and particle once guidance has begun, 1 before.

    Args:
        levels, resample_below: see ParticleMethod.
        candidates: n.
        begin: share of the steps that go by before candidates are compared.
        greedy: whether the best candidate is taken.
        eta, order: see `reverse_process`.

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
        self.reverse = reverse_process(self.levels, eta, order)
        if not 0 <= begin <= 1:
            raise ValueError(f"begin must lie in [0, 1], got {begin}")
        self.candidates, self.begin = whole(candidates, "candidates"), float(begin)
        self.greedy = bool(greedy)

    @property
    def _first(self) -> int:
        """The first step that compares candidates."""
        return math.ceil(self.begin * (len(self.levels) - 1))

    def calls_before(self, k: int) -> int:
        steps = min(k, len(self.levels) - 2)  # the last one takes what is denoised
        return 1 + steps + (self.candidates - 1) * max(0, steps - self._first)

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        zero = x.new_zeros(len(x))
        x0 = walk.denoise(x, sigma)
        before = nothing_before(self.reverse, x)
        start = {"x": x, "x0": x0, "before": before, "log_w": zero, "log_g": zero}
        if self.greedy:
            start["log_evidence"] = zero[: walk.groups] + math.nan
        return start

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        x, x0, log_w = state["x"], state["x0"], state["log_w"]
        mean, c, _ = step(self.reverse, k, x, x0, state["before"])
        if c == 0:
            gained = walk.log_likelihood(x0) - state["log_g"]
            return {"x": x0, "log_w": log_w if self.greedy else weighed(log_w, gained)}
        sigma_next, before = float(self.levels[k + 1]), remember(x0, state["before"])
        if k < self._first:
            x_next = mean + c * z
            return {"x": x_next, "x0": walk.denoise(x_next, sigma_next), "before": before}
        shape = tuple(x.shape[1:])
        noises = [z, *(walk.noise(j, k + 1, shape) for j in range(1, self.candidates))]
        tried = torch.stack([mean + c * eps for eps in noises], 1)
        looks = [walk.weigh(t, sigma_next) for t in tried.unbind(1)]
        denoised, log_g = (torch.stack(column, 1) for column in zip(*looks, strict=True))
        if not bool(torch.isfinite(denoised).all()):
            return {"x": denoised.sum(1)}  # not finite either, and stopped for that
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
            "before": before,
            "log_w": log_w,
            "log_g": torch.zeros_like(log_w) if self.greedy else log_g[rows, chosen],
        }
