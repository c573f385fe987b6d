"""The Gaussian lift: p(x0 | x) taken as a Gaussian, so that a linear measurement has a closed form.

With p(x0 | x) ~ N(D, C) and y = A x0 + N(0, S),

    p_sigma(y | x) = N(y; A D, S + A C A^T),
    shift = K A^T (S + A C A^T)^-1 (y - A D).

K = Cov[x0 | x] = sigma^2 J is the gradient through the denoiser ("with the Jacobian"); K = C is
the cheaper choice that treats the assumed covariance as the true one. **The covariance is the
method**: C = 0 is DPS with the true sigma_y, C isotropic is PiGDM (with the Jacobian) and the data
step of DiffPIR (without), C = Cov[x0 | x] is MMPS, which is exact for a Gaussian prior.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from forward_models import LinearGaussian

from .likelihood import Likelihood, Moments


@dataclass(frozen=True)
class Zero:
    """C = 0: the denoised image is taken for the truth."""


@dataclass(frozen=True)
class Isotropic:
    """C = c I with c = scale sigma^2 s^2 / (sigma^2 + s^2), s the prior's standard deviation.

    Exact if the prior is N(m, s^2 I) and scale = 1. With s = infinity, c = scale sigma^2.

    Papers: Song et al., "Pseudoinverse-Guided Diffusion Models", 2023,
    https://openreview.net/forum?id=9_gsMA8MRKQ; Zhu et al., "DiffPIR", 2023,
    https://arxiv.org/abs/2305.08995 (scale = 1 / lambda, s infinite)
    """

    s: float = math.inf
    scale: float = 1.0

    def variance(self, sigma: Tensor) -> Tensor:
        """c, shaped as sigma."""
        if math.isinf(self.s):
            return self.scale * sigma**2
        return self.scale * sigma**2 * self.s**2 / (sigma**2 + self.s**2)


@dataclass(frozen=True)
class Tweedie:
    """C = Cov[x0 | x] = sigma^2 J, by conjugate gradients; exact for Gaussian priors.

    Attributes:
        iterations: at most this many products with C. By default as many as the tolerance needs
            (at most 2000, then a warning) for covariances in closed form; for networks M where
            the measurement holds M <= 32 values, which is a full solve, and 3 for larger ones,
            which leaves the solve short of convergence where A C A^T is ill-conditioned.
        tolerance: relative residual at which a sample stops.

    Paper: Rozet et al., "Learning Diffusion Priors from Observations", 2024,
    https://arxiv.org/abs/2405.13712
    """

    iterations: int | None = None
    tolerance: float = 1e-6

    def budget(self, exact: bool, size: int) -> int:
        """How many products may be spent on a measurement of `size` values."""
        if exact:
            return self.iterations or 2000
        return self.iterations or (size if size <= 32 else 3)


def tweedie_shift(
    moments: Moments,
    residual: Tensor,
    apply: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    noise: Tensor | float,
    tweedie: Tweedie,
) -> Tensor:
    """C A^T v with (S + A C A^T) v = r, C = Cov[x0 | x], one product with C an iteration.

    A network's Jacobian is neither quite symmetric nor quite positive, so each iteration takes the
    step of least residual over all directions so far (GCR), which never makes the residual larger;
    for a covariance in closed form the last direction is enough. As v is a combination of
    directions p, and C A^T p is computed anyway, the shift C A^T v is gathered on the way.

    Paper: Eisenstat, Elman and Schultz, "Variational Iterative Methods for Nonsymmetric Systems of
    Linear Equations", 1983, https://doi.org/10.1137/0720023
    """
    axes = tuple(range(1, residual.ndim))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b.conj()).real.sum(axes, keepdim=True)

    def on_image(a: Tensor) -> Tensor:
        return a.reshape(-1, *[1] * (moments.x0.ndim - 1))

    budget = tweedie.budget(moments.exact, residual[0].numel())
    memory = 1 if moments.exact else budget
    past: list[tuple[Tensor, Tensor, Tensor]] = []
    shift = torch.zeros_like(moments.x0)
    r = residual
    target = tweedie.tolerance**2 * dot(r, r)
    for _ in range(budget):
        going = dot(r, r) > target
        if not bool(going.any()):
            break
        spread = moments.covariance(adjoint(r))
        q = noise * r + apply(spread)
        for q_past, spread_past, qq_past in past:
            overlap = dot(q, q_past) / qq_past
            q, spread = q - overlap * q_past, spread - on_image(overlap) * spread_past
        qq = dot(q, q).clamp(min=torch.finfo(target.dtype).tiny)
        step = torch.where(going, dot(r, q) / qq, 0)
        shift, r = shift + on_image(step) * spread, r - step * q
        past = [*past, (q, spread, qq)][-memory:]
    size = dot(residual, residual).clamp(min=torch.finfo(target.dtype).tiny)
    left = float((dot(r, r) / size).detach().max()) ** 0.5
    if moments.exact and tweedie.iterations is None and left > 100 * tweedie.tolerance:
        warnings.warn(
            f"the solve of the Tweedie lift left a relative residual of {left:.1e}; use "
            "float64, or a larger measurement sigma",
            RuntimeWarning,
            stacklevel=3,
        )
    return shift


@final
class GaussianLift(Likelihood):
    """log N(y; A D, S + A C A^T) for a LinearGaussian model; see the module's text.

    Args:
        model, y: a LinearGaussian forward model and its measurement.
        covariance: Zero(), Isotropic(...) or Tweedie(...).
        jacobian: K = Cov[x0 | x] if True, K = C if False (no gradient through the network).

    Cost beside the one network call: Zero and Isotropic with the Jacobian one vector-Jacobian
    product; Tweedie one per iteration (the shift is gathered from the iterations' own products);
    without the Jacobian none. A second solve is never needed.

    Raises:
        TypeError: another forward model. ValueError: Zero without the Jacobian (it never moves),
        Tweedie without it (its C is the Jacobian).
    """

    def __init__(
        self,
        model: LinearGaussian,
        y: Tensor,
        covariance: Zero | Isotropic | Tweedie,
        jacobian: bool = True,
    ) -> None:
        if not isinstance(model, LinearGaussian):
            raise TypeError(
                f"GaussianLift needs a LinearGaussian model, got {type(model).__name__}; "
                "PlugIn serves any differentiable one"
            )
        if not jacobian and not isinstance(covariance, Isotropic):
            raise ValueError(
                f"without the Jacobian the covariance must be Isotropic, got {covariance}: "
                "Zero would never move and Tweedie is the Jacobian"
            )
        self.model, self.y = model, y
        self.assumed, self.jacobian = covariance, jacobian
        self.needs_covariance = jacobian

    def shift(self, moments: Moments) -> Tensor:
        operator, residual = self.model.operator, self.model.residual(self.y, moments.x0)
        if isinstance(self.assumed, Tweedie):
            noise = self._noise(residual)
            return tweedie_shift(
                moments, residual, operator.apply, operator.adjoint, noise, self.assumed
            )
        if isinstance(self.assumed, Zero):
            u = operator.adjoint(residual / self._noise(residual))
            return moments.covariance(u)
        c = self.assumed.variance(moments.sigma)
        v = operator.solve(residual, c.flatten(), self._noise(residual))
        u = operator.adjoint(v)
        return moments.covariance(u) if self.jacobian else c * u

    def _noise(self, residual: Tensor) -> Tensor:
        """S, real, broadcastable to the residual."""
        real = residual.dtype.to_real()
        return torch.as_tensor(self.model.noise_variance, dtype=real, device=residual.device)

    def log_likelihood(self, moments: Moments) -> Tensor:
        """Costs M covariance products unless C = 0; refused above M = 4096, or for a complex y."""
        if isinstance(self.assumed, Zero):
            return self.model.log_likelihood(self.y, moments.x0)
        residual = self.model.residual(self.y, moments.x0)
        if residual.is_complex():
            raise TypeError("the log-likelihood of this lift is there for real measurements only")
        size = residual[0].numel()
        if size > 4096:
            raise ValueError(
                f"the log-likelihood of this lift needs a dense {size} x {size} covariance; "
                "at most 4096 measured values are allowed"
            )
        variance = self._noise(residual).expand(residual.shape[1:])
        measured = self.model.operator.measured
        kept = torch.ones(residual.shape[1:], dtype=torch.bool) if measured is None else measured
        kept = kept.expand(residual.shape[1:]).flatten().to(residual.device)
        columns = []
        for j in kept.nonzero().flatten().tolist():
            unit = torch.zeros_like(residual)
            unit.flatten(1)[:, j] = 1
            back = self.model.operator.adjoint(unit)
            if isinstance(self.assumed, Tweedie):
                back = moments.covariance(back)
            else:
                back = self.assumed.variance(moments.sigma) * back
            columns.append((self.model.operator(back) + variance * unit).flatten(1)[:, kept])
        dense = torch.stack(columns, 2)
        dense = (dense + dense.mT) / 2
        normal = torch.distributions.MultivariateNormal(
            torch.zeros_like(dense[..., 0]), covariance_matrix=dense
        )
        return normal.log_prob(residual.flatten(1)[:, kept])
