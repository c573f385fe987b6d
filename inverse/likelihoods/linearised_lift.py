"""The linearised Gaussian lift: any observation, taken as linear and Gaussian near E[x0 | x]."""

from __future__ import annotations

from typing import final

from torch import Tensor

from forward_models import IndependentNoise, Observation

from .gaussian_lift import Tweedie, tweedie_shift
from .likelihood import Likelihood, Moments


@final
class LinearisedLift(Likelihood):
    """The Gaussian lift of y ~ p(y | f(x0)) with f and the noise expanded at D = E[x0 | x].

    With J the derivative of f at D, g = d log p(y | z) / dz at z = f(D), W > 0 the curvature of
    the noise there, and p(x0 | x) ~ N(D, C), C = Cov[x0 | x],

        shift = C J^T W^(1/2) (I + W^(1/2) J C J^T W^(1/2))^-1 W^(-1/2) g,

    which is the Tweedie lift of y' = W^(1/2) J x0 + N(0, I). Exact if the prior is Gaussian, f is
    linear and the noise Gaussian; otherwise as good as the expansion over the spread of p(x0 | x).
    An entry without information (W = 0, or not measured) has no influence.

    Costs one vector-Jacobian product of the network, and one derivative of f each way, an
    iteration; see `Tweedie` for how many.

    Raises TypeError for another forward model, and one that is not differentiable.

    Papers: Rozet et al., "Learning Diffusion Priors from Observations", 2024,
    https://arxiv.org/abs/2405.13712 (the lift); Foi et al., "Practical Poissonian-Gaussian noise
    modeling", 2008, https://doi.org/10.1109/TIP.2008.2001399 (noise as Gaussian of local variance)
    """

    needs_covariance = True

    def __init__(self, model: Observation, y: Tensor, covariance: Tweedie | None = None) -> None:
        if not isinstance(model, Observation) or not isinstance(model.noise, IndependentNoise):
            raise TypeError(
                f"LinearisedLift needs an Observation with independent noise, got "
                f"{type(model).__name__}; PlugIn serves any differentiable model"
            )
        if not model.differentiable:
            raise TypeError("LinearisedLift needs a differentiable operator and noise")
        self.model, self.y = model, y
        self.covariance = Tweedie() if covariance is None else covariance

    def shift(self, moments: Moments) -> Tensor:
        f, D = self.model.operator, moments.x0.detach()
        mean, variance = self.model.gaussian(self.y, D)
        # W^(1/2), and W^(-1/2) g = W^(1/2) (m - z) for the Gaussian stand-in N(m; z, 1 / W).
        root = variance.rsqrt()
        residual = root * (mean - f.apply(D))
        return tweedie_shift(
            moments,
            residual,
            lambda v: root * f.jvp(D, v),
            lambda u: f.vjp(D, (root * u).to(mean.dtype)),
            1.0,
            self.covariance,
        )

    def log_likelihood(self, moments: Moments) -> Tensor:
        """log p(y | D): that of the plug-in, without the spread of p(x0 | x)."""
        return self.model.log_likelihood(self.y, moments.x0)
