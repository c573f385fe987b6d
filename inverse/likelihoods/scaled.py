"""A likelihood to a power: the guidance scale."""

from __future__ import annotations

from typing import final

from torch import Tensor

from ..checks import positive
from .likelihood import Cost, Likelihood, Moments


@final
class Scaled(Likelihood):
    """w log p_sigma(y | x) for a likelihood and a guidance scale w > 0.

    At sigma = 0 this is p(y | x0)^w, so w > 1 sharpens: fewer, more typical images of y. At other
    levels the power of a mean is not the mean of a power, so that for w != 1 no likelihood is
    exact; w = 1 changes nothing. Nor is it normalised in y then: densities, and the evidence that
    particles estimate, lack a factor that depends on w and sigma. Cost: that of the likelihood.

    Args:
        likelihood: any.
        scale: w; 1 to 10 in the paper.

    Paper: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
    https://arxiv.org/abs/2105.05233
    """

    def __init__(self, likelihood: Likelihood, scale: float) -> None:
        if not isinstance(likelihood, Likelihood):
            raise TypeError(f"likelihood must be a Likelihood, got {type(likelihood).__name__}")
        self.likelihood, self.scale = likelihood, positive(scale, "scale")
        self.needs_covariance = likelihood.needs_covariance

    def shift(self, moments: Moments) -> Tensor:
        return self.scale * self.likelihood.shift(moments)

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.scale * self.likelihood.log_likelihood(moments)

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        shift, value = self.likelihood.evaluate(moments)
        return self.scale * shift, self.scale * value

    @property
    def weighs_with_covariance(self) -> bool:
        return self.likelihood.weighs_with_covariance

    @property
    def cost(self) -> Cost:
        return self.likelihood.cost

    @property
    def density_cost(self) -> Cost:
        return self.likelihood.density_cost

    def needs_covariance_at(self, sigma: Tensor) -> bool:
        return self.likelihood.needs_covariance_at(sigma)

    def exact_at(self, sigma: float) -> bool:
        return self.scale == 1 and self.likelihood.exact_at(sigma)
