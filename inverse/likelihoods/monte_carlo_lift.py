"""The Monte-Carlo lift: p(x0 | x) taken as an isotropic Gaussian and averaged over by draws."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import ForwardModel

from ..checks import flag, positive, whole
from .likelihood import Likelihood, Moments
from .smoothed import Objective, ascent, check_model, safe_step, smoothed


@final
class MonteCarloLift(Likelihood):
    """log p_sigma(y | x) ~ log (1/K) sum_k p(y | D + r z_k),  D = E[x0 | x],  z_k ~ N(0, I):

        shift = Cov[x0 | x] u,   u = grad_D of the above,   r = sigma s / sqrt(sigma^2 + s^2).

    The mean is unbiased for the likelihood under p(x0 | x) ~ N(D, r^2 I), which is the true one if
    the prior is N(m, s^2 I); its logarithm is low by about Var / (2 K) of the relative error, which
    grows with the number of values that y determines: few draws among many values see little more
    than D. So the shift is kept from leaping over the images that explain y: where
    log p(y | D + shift) in that average is lower than at D, it ends at the top of the parabola
    along it. Where K is large the bound is idle for linear-Gaussian models.

    The draws are a function of (seed, sigma), the same for all samples: the posterior stays a
    deterministic function of (x, sigma).

    Cost: one vector-Jacobian product; K evaluations of the model and their gradient, and K more for
    the bound (rarely, up to 13 K).

    Args:
        model, y: any differentiable forward model and its measurement.
        scale: s, standard deviation of one value of x0, data units.
        draws: K; 10 in the published comparisons.
        seed: of the draws.
        bounded: False for the published shift, without the bound.
    Raises:
        TypeError: a time-dependent model; when shifted, a black box, of which the density is there.
        ValueError: numbers out of range.

    Paper: Song et al., "Loss-Guided Diffusion Models for Plug-and-Play Controllable Generation",
    2023, https://proceedings.mlr.press/v202/song23k.html
    """

    needs_covariance = True
    weighs_with_covariance = False

    def __init__(
        self,
        model: ForwardModel,
        y: Tensor,
        *,
        scale: float,
        draws: int = 10,
        seed: int = 0,
        bounded: bool = True,
    ) -> None:
        check_model(model, "MonteCarloLift", differentiable=False)
        self.model, self.y = model, y
        self.scale, self.draws = positive(scale, "scale"), whole(draws, "draws")
        self.seed, self.bounded = seed, flag(bounded, "bounded")

    def shift(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[0]

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self._objective(moments)(moments.x0)

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        check_model(self.model, "the shift of MonteCarloLift")
        f = self._objective(moments)
        value, u = ascent(f, moments.x0)
        d = moments.covariance(u)
        if self.bounded:
            d = safe_step(f, moments.x0, value, u, d) * d
        return d, value

    def _objective(self, moments: Moments) -> Objective:
        s = torch.as_tensor(self.scale, dtype=moments.sigma.dtype, device=moments.sigma.device)
        spread = moments.sigma * s / torch.hypot(moments.sigma, s)
        return smoothed(self.model, self.y, moments, spread, self.draws, self.seed)
