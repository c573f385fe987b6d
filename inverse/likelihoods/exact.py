"""The likelihood of a time-dependent forward model: given, so nothing is approximated."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import TimeDependent

from .likelihood import Likelihood, Moments


@final
class Exact(Likelihood):
    """grad_x log p_sigma(y | x) of a forward model known at every noise level.

    Exact if the model is; costs one gradient through the model and none through the prior.

    Paper: Dhariwal and Nichol, "Diffusion Models Beat GANs", 2021, https://arxiv.org/abs/2105.05233
    """

    def __init__(self, model: TimeDependent, y: Tensor) -> None:
        if not isinstance(model, TimeDependent):
            raise TypeError(
                f"Exact needs a TimeDependent forward model, got {type(model).__name__}; "
                "for p(y | x0) choose GaussianLift or PlugIn"
            )
        self.model, self.y = model, y

    def shift(self, moments: Moments) -> Tensor:
        with torch.enable_grad():
            nested = moments.x.requires_grad
            x = moments.x if nested else moments.x.detach().requires_grad_()
            total = self.model.log_likelihood(self.y, x, moments.sigma.flatten()).sum()
            (gradient,) = torch.autograd.grad(total, x, create_graph=nested)
        return moments.sigma**2 * gradient

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.model.log_likelihood(self.y, moments.x, moments.sigma.flatten())
