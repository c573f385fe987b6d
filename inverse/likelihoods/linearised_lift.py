"""The linearised Gaussian lift: any observation, taken as linear and Gaussian near E[x0 | x]."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import IndependentNoise, Observation

from .likelihood import Cost, Likelihood, Moments
from .linear_system import LinearSystem
from .solution import Solution
from .tweedie import Tweedie


@final
class LinearisedLift(Likelihood):
    """The Gaussian lift of y ~ p(y | f(x0)) with f and the noise expanded at D = E[x0 | x].

    With J the derivative of f at D, g = d log p(y | z) / dz at z = f(D), W >= 0 the curvature of
    the noise there, G = W^(1/2) J C J^T W^(1/2), C = Cov[x0 | x], and r = W^(-1/2) g,

        shift = C J^T W^(1/2) (I + G)^-1 r,
        log p_sigma(y | x) = log p(y | z) + 1/2 r^T G (I + G)^-1 r - 1/2 log det(I + G),

    which is the Tweedie lift of y' = W^(1/2) J x0 + N(0, I), and E[p(y | f(x0)) | x] with log p
    expanded to second order. Exact if the prior is Gaussian, f is linear and the noise Gaussian;
    otherwise as good as the expansion over the spread of p(x0 | x). The density is normalised in y
    where the noise is Gaussian, and as sigma -> 0; otherwise as far as g is Gaussian under
    p(y | z). An entry without information (W = 0, or not measured) has no influence.

    The shift is not quite sigma^2 times the density's gradient: that has the derivatives of J, W
    and C, too.

    Costs one vector-Jacobian product of the network, and one derivative of f each way, an
    iteration; see `Tweedie` for how many, and what the density adds.

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
        found, _ = self._solve(moments, density=False)
        assert found.pulled is not None
        return found.pulled

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[1]

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        found, r = self._solve(moments, density=True)
        assert found.pulled is not None
        assert found.log_det is not None
        plug_in = self.model.log_likelihood(self.y, moments.x0)
        return found.pulled, plug_in + (r.square().sum(1) - found.quadratic - found.log_det) / 2

    def _solve(self, moments: Moments, density: bool) -> tuple[Solution, Tensor]:
        f, D = self.model.operator, moments.x0
        mean, variance = self.model.gaussian(self.y, D)
        # W^(1/2), and W^(-1/2) g = W^(1/2) (m - z) for the Gaussian stand-in N(m; z, 1 / W).
        root = variance.rsqrt()
        residual = root * (mean - f.apply(D))

        def pack(y: Tensor) -> Tensor:
            return (torch.view_as_real(y) if y.is_complex() else y).reshape(len(y), -1)

        def unpack(u: Tensor) -> Tensor:
            if not residual.is_complex():
                return u.reshape(-1, *residual.shape[1:])
            return torch.view_as_complex(u.reshape(-1, *residual.shape[1:], 2).contiguous())

        def repeated(t: Tensor, count: int) -> Tensor:
            return t if len(t) == count else t.repeat(count // len(t), *[1] * (t.ndim - 1))

        def apply(x: Tensor) -> Tensor:
            return pack(repeated(root, len(x)) * f.jvp(repeated(D, len(x)), x))

        def adjoint(u: Tensor) -> Tensor:
            z = repeated(root, len(u)) * unpack(u)
            return f.vjp(repeated(D, len(u)), z.to(mean.dtype))

        r = pack(residual)
        system = LinearSystem(apply, adjoint, r.new_ones(1), r.shape[1])
        return self.covariance.solve_system(moments, system, r, density), r

    def _size(self) -> int:
        return self.y[0].numel() * (2 if self.y.is_complex() else 1)

    @property
    def cost(self) -> Cost:
        return self.covariance.cost(self._size())

    @property
    def density_cost(self) -> Cost:
        return self.covariance.density_cost(self._size())
