"""The plug-in likelihood with one norm per sample in place of the noise: DPS as published."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import ForwardModel, Gaussian, LinearGaussian, Observation, Poisson
from priors import Schedule

from ..checks import between, flag, positive, whole
from ..norms import norm_of
from .likelihood import Likelihood, Moments
from .plug_in import to_the_top
from .smoothed import ascent


@final
class NormalizedPlugIn(Likelihood):
    """The gradient of DPS as published: zeta grad |y - f(D(x))|, one norm per sample, every step.

    The published update x_t' <- ancestral(x_t) - zeta grad_{x_t} |r| with r = y - f(D) follows a
    step of the ancestral sampler of `steps` steps uniform in the schedule's time. Written as a
    score in noise-level coordinates it is

        grad_x log p_sigma(y | x) = -weight grad_x |r|,
        weight = zeta / (alpha alpha' drop),    drop = sigma^2 - sigma sqrt(sigma'^2 - c^2),

    with sigma' the next level of that grid and c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2)
    the fresh noise; for eta = 1 the drop is sigma^2 - sigma'^2. For Gaussian noise |r| is the plain
    norm, whatever sigma_y; for Poisson noise that of counts in units of their own spread,
    |r|^2 = sum_i (y_i - z_i)^2 / (2 gain y_i), with y_i at least one count.

    Two bounds, which the paper has not, hold where its constant, chosen for images of many pixels,
    would overshoot: the weight is at most that of log p(y | D) itself (for a linear model:
    1 / sigma_y^2 on r), and a step ends at the latest where |r| is least along it (for a linear
    model: 1 / (|A|^2 drop) on r, with which one step already reaches r = 0).

    Not a posterior score: no prior or noise level makes it exact. Costs one vector-Jacobian
    product a step, and one gradient of the model; for other than linear-Gaussian ones with the
    bounds one gradient, one evaluation and one derivative more.

    Args:
        model, y: a LinearGaussian forward model, or an Observation with a differentiable operator
            and Gaussian or Poisson noise, and its measurement.
        zeta: the published step size (0.3 to 1), for data that span [-1, 1].
        schedule: schedule of the grid, in units of `unit`.
        steps: number of steps of the grid.
        unit: half the width of the data range; zeta and the schedule are stated for unit 1.
        eta: of the ancestral sampler that walks the grid.
        bounded: False for the published step alone, without the two bounds.

    Raises TypeError for another forward model, ValueError for numbers out of range.

    Paper: Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", 2023,
    https://arxiv.org/abs/2209.14687
    """

    needs_covariance = True
    weighs_with_covariance = False

    def __init__(
        self,
        model: LinearGaussian | Observation,
        y: Tensor,
        *,
        zeta: float,
        schedule: Schedule,
        steps: int,
        unit: float = 1.0,
        eta: float = 1.0,
        bounded: bool = True,
    ) -> None:
        if not has_norm(model):
            raise TypeError(
                "NormalizedPlugIn needs a LinearGaussian model or a differentiable Observation "
                f"with Gaussian or Poisson noise, got {type(model).__name__}; PlugIn serves any "
                "differentiable one"
            )
        self.model, self.y, self.schedule = model, y, schedule
        self.zeta, self.unit = positive(zeta, "zeta"), positive(unit, "unit")
        self.steps, self.eta = whole(steps, "steps"), between(eta, "eta", 0, 1)
        self.bounded = flag(bounded, "bounded")
        self._operator_norm: float | None = None

    def shift(self, moments: Moments) -> Tensor:
        decay, drop = (
            t.to(moments.x0).reshape(-1, *[1] * (moments.x0.ndim - 1))
            for t in published_grid(
                moments.sigma.flatten(), self.schedule, self.steps, self.unit, self.eta
            )
        )
        weight = self.unit * self.zeta / (decay * drop)
        if isinstance(self.model, LinearGaussian):
            return moments.covariance(self._linear(self.model, moments, weight, drop))
        return self._curved(self.model, moments, weight, drop)

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.model.log_likelihood(self.y, moments.x0)

    def _linear(
        self, model: LinearGaussian, moments: Moments, weight: Tensor, drop: Tensor
    ) -> Tensor:
        """weight A^T r / |r|, weight / |r| held within the bounds."""
        residual = model.residual(self.y, moments.x0)

        def shaped(t: Tensor) -> Tensor:
            return t.reshape(-1, *[1] * (residual.ndim - 1))

        norm = norm_of(residual).clamp(min=torch.finfo(moments.x0.dtype).tiny)
        weight, drop = shaped(weight) / norm, shaped(drop)
        if self.bounded:
            variance = torch.as_tensor(model.noise_variance).to(norm)
            steepest = 1 / (self._norm(model, moments) ** 2 * drop)
            weight = torch.minimum(torch.minimum(weight, steepest), 1 / variance)
        return model.operator.adjoint(weight * residual)

    def _curved(self, model: Observation, moments: Moments, weight: Tensor, drop: Tensor) -> Tensor:
        """Cov[x0 | x] times weight grad_D -|r|, held within the bounds."""
        _, u = ascent(lambda z: -self._distance(model, z), moments.x0)
        u = weight * u
        if not self.bounded:
            return moments.covariance(u)
        _, own = ascent(lambda z: model.log_likelihood(self.y, z), moments.x0)
        u = u * (norm_of(own) / norm_of(u).clamp(min=torch.finfo(u.dtype).tiny)).clamp(max=1)
        d = moments.covariance(u)
        most = (moments.sigma**2 / drop).flatten()
        x0 = moments.x0.detach()
        return to_the_top(model, self.y, x0, own.detach(), d.detach(), most) * d

    def _distance(self, model: Observation, z: Tensor) -> Tensor:
        """|r| of each sample, (B,), of images z; no entry that is not measured counts."""
        clean = model.operator.apply(z)
        square = (self.y - model.noise.mean(clean)).abs().square()
        if isinstance(model.noise, Poisson):
            one = torch.ones_like(clean)
            gain = model.noise.variance(one) / model.noise.mean(one)
            square = square / (2 * gain * torch.maximum(self.y, gain))
        if model.operator.measured is not None:
            kept = model.operator.measured.to(z.device).expand(square.shape)
            square = torch.where(kept, square, torch.zeros_like(square))
        total = square.reshape(len(square), -1).sum(1)
        return total.clamp(min=torch.finfo(total.dtype).tiny).sqrt()

    def _norm(self, model: LinearGaussian, moments: Moments) -> float:
        if self._operator_norm is None:
            shape = tuple(moments.x.shape[1:])
            if not shape:  # of one number A is its own norm
                return float(model.operator.apply(torch.ones_like(moments.x[:1])).abs())
            self._operator_norm = model.operator.norm(shape, iterations=50, tolerance=1e-3)
        return self._operator_norm


def published_grid(
    sigma: Tensor, schedule: Schedule, steps: int, unit: float, eta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """alpha alpha' and the drop (data units) at the levels sigma (B,); see NormalizedPlugIn."""
    level = sigma.double() / unit
    time = schedule.t(level)
    earlier = (time - 1 / steps).clamp(min=0)
    next_level = torch.where(earlier > 0, schedule.sigma(earlier), 0.0)
    decay = schedule.alpha(time) * schedule.alpha(earlier)
    fresh = eta * next_level / level * (level**2 - next_level**2).sqrt()
    kept = (next_level**2 - fresh**2).clamp(min=0).sqrt()
    return decay, (level**2 - level * kept) * unit**2


def has_norm(model: ForwardModel) -> bool:
    """Whether the paper gives a norm of the residual for this model."""
    if isinstance(model, LinearGaussian):
        return True
    noisy = isinstance(model, Observation) and isinstance(model.noise, Gaussian | Poisson)
    return noisy and model.differentiable
