"""D-Flow: the noise of a probability-flow ODE, by L-BFGS, held to the norm that noise has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from priors import Flow, Prior

from ..checks import positive, whole
from .initial_noise import InitialNoise
from .misfit import Misfit
from .optimisers import LBFGS


@final
class DFlow(InitialNoise):
    """min over z of -log p(y | F(z)) - penalty log chi_d(|z|), with F a flow's ODE and

        log chi_d(r) = (d - 1) log r - r^2 / 2 + constant,

    the density of the norm of d normal numbers: z keeps to a shell of radius sqrt(d), and no point
    of the shell is preferred. With penalty 1 likelihood and norm count as Bayes' rule would have
    them. In the time of a flow u = t x0 + (1 - t) w eps, which is t x at sigma = w (1 - t) / t, the
    ODE and its steps, by the midpoint rule, are

        du / dt = v(u, t) = D(x, sigma) - w (x - D(x, sigma)) / sigma,
        u' = u + h v(u + h / 2 v(u, t), t + h / 2),               h = t' - t.

    Starts from sqrt(blend) z_y + sqrt(1 - blend) eps, with z_y the end of the same steps upwards
    from `Misfit.estimate`.

    The paper adds a weight times log chi_d to a square error without sigma_y; 0.01 beside
    |y - A F(z)|^2 at range [-1, 1], as a re-implementation has it, is penalty 2 at sigma_y = 0.05.
    Another change: a line search that backtracks, in place of one with Wolfe's conditions, so that
    every sample costs the same.

    2 K network calls (4 K with `recompute`) and 2 K vector-Jacobian products a step for K steps of
    the map, and 2 K calls for z_y.

    Args:
        levels, steps, recompute: see `InitialNoise`; `flow_levels` are those of the paper.
        unit: w, half the width of the data range, or the scale of data without one.
        penalty: see above; 0 leaves z free.
        blend: share of z_y in the start; 0 starts from noise alone.
        memory: of the optimiser.

    Paper: Ben-Hamu et al., "D-Flow: Differentiating through Flows for Controlled Generation", 2024,
    https://arxiv.org/abs/2402.14017
    """

    def __init__(
        self,
        levels: Tensor | Sequence[float],
        steps: int,
        unit: float = 1.0,
        penalty: float = 1.0,
        blend: float = 0.1,
        memory: int = 10,
        recompute: bool = True,
    ) -> None:
        super().__init__(levels, steps, recompute)
        if not 0 <= penalty < math.inf:
            raise ValueError(f"penalty must be finite and >= 0, got {penalty}")
        if not 0 <= blend <= 1:
            raise ValueError(f"blend must lie in [0, 1], got {blend}")
        self.unit = positive(unit, "unit")
        self.penalty, self.blend = float(penalty), float(blend)
        self.optimiser = LBFGS(memory)

    @property
    def map_calls(self) -> int:
        return 2 * (len(self.levels) - 1)

    @property
    def network_calls(self) -> int:
        return super().network_calls + (self.map_calls if self.blend > 0 else 0)

    def _advance(self, prior: Prior, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        w = self.unit

        def velocity(u: Tensor, t: float) -> Tensor:
            x, level = u / t, w * (1 - t) / t
            x0 = prior.denoise(x, level)
            return x0 - w / level * (x - x0)

        t, t_next = 1 / (1 + sigma / w), 1 / (1 + sigma_next / w)
        u, h = t * x, t_next - t
        return (u + h * velocity(u + h / 2 * velocity(u, t), t + h / 2)) / t_next

    def _start(self, misfit: Misfit, eps: Tensor) -> Tensor:
        if self.blend == 0:
            return eps
        x, prior = misfit.estimate, misfit.posterior.prior
        upwards = [misfit.posterior.sigma_range[0], *reversed(self.levels[:-1].tolist())]
        for sigma, sigma_next in pairwise(upwards):
            x = self._advance(prior, x, sigma, sigma_next)
        centre, spread = self._first(prior, eps)
        return math.sqrt(self.blend) * (x - centre) / spread + math.sqrt(1 - self.blend) * eps

    def _loss(self, misfit: Misfit, x: Tensor, z: Tensor) -> Tensor:
        square = z.square().reshape(len(z), -1).sum(1)
        log_chi = (z[0].numel() - 1) / 2 * square.log() - square / 2
        return -misfit.log_likelihood(x) - self.penalty * log_chi


def flow_levels(steps: int, high: float, unit: float = 1.0) -> Tensor:
    """(steps + 1,) the levels of equal steps in a flow's time, from `high` to 0."""
    start = float(Flow().t(high / unit))
    times = torch.linspace(start, 0, whole(steps, "the steps of the map") + 1, dtype=torch.float64)
    return Flow().sigma(times) * unit
