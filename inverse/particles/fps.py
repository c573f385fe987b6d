"""FPS-SMC: the measurement is noised along with the image, and filtered level by level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from forward_models import LinearGaussian

from ..posterior import Posterior
from .particle_method import ParticleMethod, State
from .spectral import linear_factor, not_linear
from .transition import nothing_before, remember, reverse_process, step
from .walk import Walk


@final
class FilteringPosterior(ParticleMethod):
    """A path of noised measurements is drawn first, and is data for all particles of a group:

        y_sigma = y + sigma A eps,    y_sigma' = y + q (y_sigma - y) + sigma' sqrt(1 - q) A eps',

    q = (sigma' / sigma)^2, as the reverse process has it that knows y. Then particles filter it,

        q(x' | x)  ~  N(x'; m, c^2 I) N(y_sigma'; A x', S),     drawn by one solve, no SVD,
        weight      =  N(y_sigma'; A m, S + c^2 A A^T),

    with m and c the mean and standard deviation of the prior's p(x' | x).

    As published. Each y_sigma is taken for a measurement with fresh noise of covariance S, while
    all of them hold the one noise of y. So y counts once a level: where S is small beside
    c^2 A A^T this does no harm, and the filter is exact as S -> 0 and particles and steps grow;
    otherwise the samples are too narrow, and what they fit is the noise. There is no estimate of
    the evidence: it is NaN.

    One network call and two solves of S + c^2 A A^T a step and particle.

    Args:
        levels, resample_below: see ParticleMethod.
        eta, order: see `reverse_process`; 0.85 to 0.9 in the paper.

    Raises ValueError, when run, for measurements that are not real, linear and Gaussian.

    Paper: Dou and Song, "Diffusion Posterior Sampling for Linear Inverse Problem Solving: A
    Filtering Perspective", 2024, https://openreview.net/forum?id=tplXNcHZs1
    """

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
        return not_linear(posterior)

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        model, y = walk.once(_measurement, x)
        path = y + sigma * self._drawn(walk, model, 0)
        # x is N(centre, sigma^2 I), so all particles say the same of where the path starts.
        x = self._toward(walk, model, x, path, sigma, 0)
        unknown = x.new_full((walk.groups,), math.nan)
        before = nothing_before(self.reverse, x)
        return {"x": x, "before": before, "path": path, "log_w": x.new_zeros(len(x)),
                "log_evidence": unknown}  # fmt: skip

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        sigma, sigma_next = float(self.levels[k]), float(self.levels[k + 1])
        x, x0 = state["x"], walk.denoise(state["x"], sigma)
        if not bool(torch.isfinite(x0).all()):
            return {"x": x0}
        model, y = walk.once(_measurement, x)
        mean, c, _ = step(self.reverse, k, x, x0, state["before"])
        q = (sigma_next / sigma) ** 2
        fresh = sigma_next * math.sqrt(1 - q)
        path = y + q * (state["path"] - y) + fresh * self._drawn(walk, model, k + 1)
        r = model.residual(path, mean)
        log_w = state["log_w"] - (r * _solve(model, r, c)).flatten(1).sum(1) / 2
        x_next = mean + c * z
        if c > 0:
            x_next = self._toward(walk, model, x_next, path, c, k + 1)
        before = remember(x0, state["before"])
        return {"x": x_next, "log_w": log_w, "x0": x0, "before": before, "path": path}

    def _toward(
        self, walk: Walk, model: LinearGaussian, x: Tensor, y: Tensor, c: float, step: int
    ) -> Tensor:
        """x, drawn from N(m, c^2 I), turned into a draw from N(x; m, c^2 I) N(y; A x, S)."""
        eps = walk.noise(2, step, tuple(y.shape[1:]))
        missing = model.residual(y - torch.as_tensor(model.sigma).to(y) * eps, x)
        return x + c**2 * model.operator.adjoint(_solve(model, missing, c))

    def _drawn(self, walk: Walk, model: LinearGaussian, step: int) -> Tensor:
        """A eps, the same for all particles of a group."""
        return model.operator(walk.shared(walk.noise(1, step, walk.posterior.event_shape)))


def _solve(model: LinearGaussian, r: Tensor, c: float) -> Tensor:
    """(S + c^2 A A^T)^-1 r."""
    noise = torch.as_tensor(model.noise_variance).to(r)
    return model.operator.solve(r, c**2, noise)


def _measurement(posterior: Posterior, like: Tensor) -> tuple[LinearGaussian, Tensor]:
    model, y = linear_factor(posterior)
    return model, y.expand(len(like), *y.shape[1:]).to(like)
