"""Plug-in likelihoods: p(y | x0) evaluated at the denoised image (covariance zero)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import ForwardModel, IndependentNoise, LinearGaussian, Observation
from priors import Schedule

from .likelihood import Likelihood, Moments


@final
class PlugIn(Likelihood):
    """log p_sigma(y | x) ~ log p(y | E[x0 | x]), for any differentiable forward model.

    Exact as sigma -> 0; overconfident wherever Cov[x0 | x] is not small beside the measurement's
    own uncertainty: there the shift d = Cov[x0 | x] grad log p(y | x0) would leap over the images
    that explain y. For an `Observation` with independent noise it therefore ends where the
    likelihood along it is largest, by its slope and curvature at E[x0 | x],

        shift = min(1, t) d,     t = <grad, d> / (d^T J^T W J d),

    with J the derivative of the operator and W the curvature of the noise.

    Costs one gradient of the model, one vector-Jacobian product, and for the bound one evaluation
    and one derivative of the operator. The shift of a model that is not differentiable raises
    TypeError; its density is there.

    Paper: Chung et al., "Diffusion Posterior Sampling", 2023, https://arxiv.org/abs/2209.14687
    """

    needs_covariance = True
    weighs_with_covariance = False

    def __init__(self, model: ForwardModel, y: Tensor) -> None:
        self.model, self.y = model, y

    def shift(self, moments: Moments) -> Tensor:
        if not self.model.differentiable:
            raise TypeError(
                f"{type(self.model).__name__} is a black box: log p(y | x0) has no gradient"
            )
        with torch.enable_grad():
            nested = moments.x0.requires_grad
            x0 = moments.x0 if nested else moments.x0.detach().requires_grad_()
            total = self.model.log_likelihood(self.y, x0).sum()
            (u,) = torch.autograd.grad(total, x0, create_graph=nested)
        d = moments.covariance(u)
        bounded = isinstance(self.model, Observation) and isinstance(
            self.model.noise, IndependentNoise
        )
        return self._step(x0.detach(), u.detach(), d.detach()) * d if bounded else d

    @torch.no_grad()
    def _step(self, x0: Tensor, u: Tensor, d: Tensor) -> Tensor:
        """min(1, t), (B, 1, ..., 1)."""
        assert isinstance(self.model, Observation)
        slope = (u.conj() * d).real.flatten(1).sum(1)
        curvature = self.model.curvature(self.y, x0, d)
        free = curvature <= slope
        t = torch.where(free, 1, slope / torch.where(free, 1, curvature)).clamp(min=0)
        return t.reshape(-1, *[1] * (d.ndim - 1))

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.model.log_likelihood(self.y, moments.x0)


@final
class NormalizedPlugIn(Likelihood):
    """The gradient of DPS as published: zeta grad |y - A D(x)|, one norm per sample, every step.

    The published update x_t' <- ancestral(x_t) - zeta grad_{x_t} |y - A D| follows a step of the
    ancestral sampler of `steps` steps uniform in the schedule's time. Written as a score in
    noise-level coordinates it is

        grad_x log p_sigma(y | x) = -weight grad_x |r|,     r = y - A D(x, sigma),
        weight = zeta / (alpha alpha' drop),    drop = sigma^2 - sigma sqrt(sigma'^2 - c^2),

    with sigma' the next level of that grid and c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2)
    the fresh noise; for eta = 1 the drop is sigma^2 - sigma'^2. Two bounds hold where the published
    constant, chosen for images of many pixels, would overshoot: the weight on r is at most
    1 / sigma_y^2 (that of the likelihood itself at D), and at most 1 / (|A|^2 drop), with which one
    step already reaches r = 0.

    Not a posterior score: no prior or noise level makes it exact. Costs one vector-Jacobian
    product a step.

    Args:
        model, y: a LinearGaussian forward model and its measurement.
        zeta: the published step size (0.3 to 1), for data that span [-1, 1].
        schedule: schedule of the grid, in units of `unit`.
        steps: number of steps of the grid.
        unit: half the width of the data range; zeta and the schedule are stated for unit 1.
        eta: of the ancestral sampler that walks the grid.
        bounded: False for the published step alone, without the two bounds.

    Paper: Chung et al., 2023, https://arxiv.org/abs/2209.14687
    """

    needs_covariance = True

    def __init__(
        self,
        model: LinearGaussian,
        y: Tensor,
        *,
        zeta: float,
        schedule: Schedule,
        steps: int,
        unit: float = 1.0,
        eta: float = 1.0,
        bounded: bool = True,
    ) -> None:
        if not isinstance(model, LinearGaussian):
            raise TypeError(
                f"NormalizedPlugIn needs a LinearGaussian model, got {type(model).__name__}; "
                "PlugIn serves any differentiable one"
            )
        if not zeta > 0 or steps < 1 or not unit > 0:
            raise ValueError(
                f"zeta, steps and unit must be positive, got {zeta}, {steps} and {unit}"
            )
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}")
        self.model, self.y = model, y
        self.zeta, self.schedule, self.steps, self.unit = zeta, schedule, steps, unit
        self.eta, self.bounded = eta, bounded
        self._operator_norm: float | None = None

    def shift(self, moments: Moments) -> Tensor:
        residual = self.model.residual(self.y, moments.x0)
        axes = tuple(range(1, residual.ndim))
        norm = residual.abs().square().sum(axes, keepdim=True).sqrt()
        norm = norm.clamp(min=torch.finfo(norm.dtype).tiny)
        decay, drop = (
            t.to(norm).reshape(-1, *[1] * len(axes)) for t in self._grid(moments.sigma.flatten())
        )
        weight = self.unit * self.zeta / (decay * drop * norm)
        if self.bounded:
            variance = torch.as_tensor(self.model.noise_variance).to(norm)
            steepest = 1 / (self._norm(moments) ** 2 * drop)
            weight = torch.minimum(torch.minimum(weight, steepest), 1 / variance)
        return moments.covariance(self.model.operator.adjoint(weight * residual))

    def _grid(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """alpha alpha' and the drop (data units) at the levels sigma (B,)."""
        level = sigma.double() / self.unit
        time = self.schedule.t(level)
        earlier = (time - 1 / self.steps).clamp(min=0)
        next_level = torch.where(earlier > 0, self.schedule.sigma(earlier), 0.0)
        decay = self.schedule.alpha(time) * self.schedule.alpha(earlier)
        fresh = self.eta * next_level / level * (level**2 - next_level**2).sqrt()
        kept = (next_level**2 - fresh**2).clamp(min=0).sqrt()
        return decay, (level**2 - level * kept) * self.unit**2

    def _norm(self, moments: Moments) -> float:
        if self._operator_norm is None:
            shape = tuple(moments.x.shape[1:])
            if not shape:  # of one number A is its own norm
                return float(self.model.operator.apply(torch.ones_like(moments.x[:1])).abs())
            self._operator_norm = self.model.operator.norm(shape, iterations=50, tolerance=1e-3)
        return self._operator_norm

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.model.log_likelihood(self.y, moments.x0)
