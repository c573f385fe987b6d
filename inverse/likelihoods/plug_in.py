"""The plug-in likelihood: p(y | x0) evaluated at the denoised image (covariance zero)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import ForwardModel, IndependentNoise, Observation

from ..checks import flag
from .likelihood import Likelihood, Moments


@final
class PlugIn(Likelihood):
    """log p_sigma(y | x) ~ log p(y | E[x0 | x]), for any differentiable forward model.

    Exact as sigma -> 0; overconfident wherever Cov[x0 | x] is not small beside the measurement's
    own uncertainty: there the shift d = Cov[x0 | x] grad log p(y | x0) would leap over the images
    that explain y. For an `Observation` with independent noise it therefore ends where the
    likelihood along it is largest, by its slope and curvature at E[x0 | x],

        shift = min(1, t) d,     t = <grad, d> / (d^T J^T W J d),

    with J the derivative of the operator and W the curvature of the noise. The paper has no such
    bound; `bounded` = False leaves it out. Other models have none.

    Costs one gradient of the model, one vector-Jacobian product, and for the bound one evaluation
    and one derivative of the operator. The shift of a model that is not differentiable raises
    TypeError; its density is there.

    Paper: Chung et al., "Diffusion Posterior Sampling", 2023, https://arxiv.org/abs/2209.14687
    """

    needs_covariance = True
    weighs_with_covariance = False

    def __init__(self, model: ForwardModel, y: Tensor, bounded: bool = True) -> None:
        self.model, self.y = model, y
        self.bounded = flag(bounded, "bounded") and independent(model)

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
        if not self.bounded:
            return d
        assert isinstance(self.model, Observation)
        return to_the_top(self.model, self.y, x0.detach(), u.detach(), d.detach()) * d

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.model.log_likelihood(self.y, moments.x0)


def independent(model: object) -> bool:
    """Whether the curvature of log p(y | x0) along a direction is known: see `to_the_top`."""
    return isinstance(model, Observation) and isinstance(model.noise, IndependentNoise)


@torch.no_grad()
def to_the_top(
    model: Observation, y: Tensor, x0: Tensor, u: Tensor, d: Tensor, most: float | Tensor = 1.0
) -> Tensor:
    """min(1, most * t), (B, 1, ..., 1), with log p(y | x0 + t d) at the top of its parabola at t.

    The parabola has the slope <u, d> and the curvature d^T J^T W J d that log p has at x0.
    """
    slope = (u.conj() * d).real.reshape(len(d), -1).sum(1) * most
    curvature = model.curvature(y, x0, d)
    free = curvature <= slope
    t = torch.where(free, 1, slope / torch.where(free, 1, curvature)).clamp(min=0)
    return t.reshape(-1, *[1] * (d.ndim - 1))
