"""Training-free guidance: a loss at the denoised image moves x0, with or without the Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from forward_models import ForwardModel

from ..checks import flag, whole
from ..norms import norm_of
from .likelihood import Cost, Likelihood, Moments
from .smoothed import Objective, ascent, check_model, safe_step, smoothed

Weight = Callable[[Tensor], Tensor]
"""A strength that follows the noise level: sigma -> weight, of one shape, data units."""


def constant(value: float) -> Weight:
    """The same weight at every noise level."""
    return lambda sigma: torch.full_like(sigma, value)


@final
class TrainingFree(Likelihood):
    """Guidance by the gradient of log f at D = E[x0 | x], f = p(y | x0) or exp(-L) for any loss L:

        f~(z) = (1/K) sum_k f(z + r z_k),                          r = spread(sigma), z_k ~ N(0, I)
        shift = rho Cov[x0 | x] grad log f~(D)                     variance guidance, rho(sigma)
              + N steps delta <- delta + mu grad log f~(D + delta) mean guidance, mu(sigma)

    which is the superset of the methods that train nothing. Variance guidance is a posterior score,
    rho sigma^2 grad_x log f~(D(x)), through the network; mean guidance leaves the network alone.
    With the guidance of one kind, or r = 0, the others follow: rho alone is DPS or, with draws,
    LGD; mu alone MPGD, without any network gradient; both the forward and the backward guidance of
    universal guidance. With `relative` rho is the length of variance guidance in units of |x - D|,
    as FreeDoM has it.

    Not a posterior score except for mu = 0, rho = 1, where it is the Monte-Carlo lift with a spread
    of the caller's choice. A step that would lower f~, as constants chosen for another loss may,
    ends at the top of the parabola along it, and so does the sum of both kinds; `relative` steps
    are taken as they are.

    The draws are a function of (seed, sigma), the same for all samples. `log_likelihood` is
    log f~(D), unnormalised in y where f comes from a loss.

    Cost: one vector-Jacobian product if rho is given, else none; K evaluations of f and its
    gradient for each kind of guidance and iteration, and K for each bound.

    Args:
        model, y: any differentiable forward model and its measurement; `Energy` for a loss.
        rho, mu, spread: weights; None leaves that part out. mu and r in data units.
        iterations: N.
        draws, seed: K and the seed of the draws.
        relative: see above.
        bounded: False to take all steps as they are, as the papers do.
    Raises:
        TypeError: a time-dependent model, or a black box. ValueError: neither rho nor mu.

    Papers: Ye et al., "TFG: Unified Training-Free Guidance for Diffusion Models", 2024,
    https://arxiv.org/abs/2409.15761; He et al., "Manifold Preserving Guided Diffusion", 2024,
    https://arxiv.org/abs/2311.16424; Yu et al., "FreeDoM", 2023, https://arxiv.org/abs/2303.09833;
    Bansal et al., "Universal Guidance for Diffusion Models", 2023, https://arxiv.org/abs/2302.07121
    """

    weighs_with_covariance = False

    def __init__(
        self,
        model: ForwardModel,
        y: Tensor,
        *,
        rho: Weight | None = None,
        mu: Weight | None = None,
        spread: Weight | None = None,
        iterations: int = 1,
        draws: int = 4,
        seed: int = 0,
        relative: bool = False,
        bounded: bool = True,
    ) -> None:
        check_model(model, "TrainingFree")
        if rho is None and mu is None:
            raise ValueError("give rho (variance guidance), mu (mean guidance) or both")
        self.model, self.y = model, y
        self.rho, self.mu, self.spread = rho, mu, spread
        self.iterations, self.draws = whole(iterations, "iterations"), whole(draws, "draws")
        self.seed, self.relative = seed, relative
        self.bounded = flag(bounded, "bounded")
        self.needs_covariance = rho is not None

    @property
    def cost(self) -> Cost:
        return Cost(products=0 if self.rho is None else 1)

    def shift(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[0]

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self._objective(moments)(moments.x0)

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        f, D = self._objective(moments), moments.x0
        log_f, u = ascent(f, D)
        shift = torch.zeros_like(D)
        if self.rho is not None:
            shift = self._variance_guidance(moments, f, log_f, u)
        if self.mu is not None:
            mu, z, value, gradient = self.mu(moments.sigma), D, log_f, u
            for k in range(self.iterations):
                if k > 0:
                    value, gradient = ascent(f, z)
                step = mu * gradient
                z = z + self._safe(f, z, value, gradient, step)
            shift = shift + (z - D)
            if self.rho is not None and not self.relative:
                shift = self._safe(f, D, log_f, u, shift)
        return shift, log_f

    def _variance_guidance(
        self, moments: Moments, f: Objective, log_f: Tensor, u: Tensor
    ) -> Tensor:
        assert self.rho is not None
        d = moments.covariance(u)
        rho = self.rho(moments.sigma)
        if not self.relative:
            return self._safe(f, moments.x0, log_f, u, rho * d)
        length = norm_of(d).clamp(min=torch.finfo(d.dtype).tiny)
        return rho * norm_of(moments.x - moments.x0) * d / length

    def _safe(self, f: Objective, z: Tensor, value: Tensor, gradient: Tensor, d: Tensor) -> Tensor:
        """d, or as much of it as does not lower f."""
        return safe_step(f, z, value, gradient, d) * d if self.bounded else d

    def _objective(self, moments: Moments) -> Objective:
        spread = torch.zeros_like(moments.sigma)
        if self.spread is not None:
            spread = self.spread(moments.sigma)
        return smoothed(self.model, self.y, moments, spread, self.draws, self.seed)
