"""The Gaussian lift: p(x0 | x) taken as a Gaussian, so that a linear measurement has a closed form.

With p(x0 | x) ~ N(D, C) and y = A x0 + N(0, S),

    p_sigma(y | x) = N(y; A D, S + A C A^T),
    shift = K A^T (S + A C A^T)^-1 (y - A D).

K = Cov[x0 | x] = sigma^2 dD/dx is the gradient through the denoiser ("with the Jacobian"); K = C is
the cheaper choice that treats the assumed covariance as the true one. **The covariance is the
method**:

    Zero             C = 0                                 DPS with the true sigma_y
    Isotropic        C = c I, c from one number            PiGDM; DiffPIR without the Jacobian
    Tabulated        C = c I, c the denoising error        optimal isotropic covariance
    FixedPrior       C of a Gaussian prior                 JFPS, without the Jacobian
    DiagonalTweedie  A C A^T by its row sums               TMPD, diagonal
    Tweedie          C = Cov[x0 | x]                       TMPD, MMPS: exact for a Gaussian prior
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from forward_models import LinearGaussian

from .covariance import AssumedCovariance
from .likelihood import Cost, Likelihood, Moments
from .linear_system import LinearSystem, Measured
from .solution import Solution


@final
class GaussianLift(Likelihood):
    """log N(y; A D, S + A C A^T) for a LinearGaussian model; see the module's text.

    The log density is normalised in y, complex measurements included. The shift is sigma^2 times
    its gradient where K = Cov[x0 | x] and C does not depend on x: always for Zero, Isotropic,
    Tabulated and FixedPrior with the Jacobian; for Tweedie on Gaussian priors, where C is the same
    everywhere, and elsewhere up to the derivative of C. DiagonalTweedie's may be cut short.

    Args:
        model, y: a LinearGaussian forward model and its measurement.
        covariance: C, one of the above.
        jacobian: K = Cov[x0 | x] if True, K = C if False (no gradient through the network); by
            default as the method was published: False for FixedPrior, else True.

    Cost beside the one network call: K A^T v one vector-Jacobian product if K = Cov[x0 | x], and
    what the covariance's solve takes; Tweedie gathers both at once. `evaluate` solves once.
    DiagonalTweedie takes one product with A more.

    Raises:
        TypeError: another forward model or covariance. ValueError: Zero without the Jacobian (it
        never moves), Tweedie without it (its C is the Jacobian); a y that does not fit.
    """

    def __init__(
        self,
        model: LinearGaussian,
        y: Tensor,
        covariance: AssumedCovariance,
        jacobian: bool | None = None,
    ) -> None:
        if not isinstance(model, LinearGaussian):
            raise TypeError(
                f"GaussianLift needs a LinearGaussian model, got {type(model).__name__}; "
                "PlugIn serves any differentiable one"
            )
        if not isinstance(covariance, AssumedCovariance):
            raise TypeError(
                "covariance must be Zero(), Isotropic(...), Tabulated(...), FixedPrior(...), "
                f"DiagonalTweedie() or Tweedie(...), got {covariance!r}"
            )
        self.jacobian = covariance.jacobian if jacobian is None else jacobian
        if not self.jacobian and not covariance.assumable:
            raise ValueError(
                f"without the Jacobian the covariance must be assumed, as Isotropic or FixedPrior "
                f"are, got {covariance}: Zero would never move, Tweedie's are the Jacobian"
            )
        self.model, self.assumed = model, covariance
        self.measured = Measured(model, y)
        self.y = self.measured.y
        self.needs_covariance = self.jacobian or covariance.needs_covariance

    @property
    def weighs_with_covariance(self) -> bool:
        return self.assumed.needs_covariance

    def shift(self, moments: Moments) -> Tensor:
        return self._shift(moments, self._solve(moments, density=False))

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self._solve(moments, density=True).log_density()

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        solution = self._solve(moments, density=True)
        return self._shift(moments, solution), solution.log_density()

    def _solve(self, moments: Moments, density: bool) -> Solution:
        r = self.measured.residual(moments.x0)
        return self.assumed.solve(moments, self.measured, r, density)

    def _shift(self, moments: Moments, solution: Solution) -> Tensor:
        if solution.pulled is not None and (self.assumed.gathers or not self.jacobian):
            return solution.pulled
        system = self.measured.system(solution.v)
        u = system.adjoint(solution.v)
        d = moments.covariance(u) if self.jacobian else self.assumed.product(moments, u)
        taken = self.assumed.taken(moments.sigma.flatten())
        return d if taken is None else d * no_further(system, solution, d, taken)

    @property
    def cost(self) -> Cost:
        solve = self.assumed.cost(self.measured.size)
        last = self.jacobian and not self.assumed.gathers
        return Cost(products=solve.products + (1 if last else 0))

    @property
    def density_cost(self) -> Cost:
        return self.assumed.density_cost(self.measured.size)


def no_further(system: LinearSystem, solution: Solution, d: Tensor, taken: Tensor) -> Tensor:
    """min(1, t / taken), (B, 1, ..., 1), where t v solves (S + A C A^T) v = r best, d = C A^T v.

    A step that takes the part `taken` (B,) of the shift d then ends where y - A x0 is least along
    it, in the norm of (S + A C A^T)^-1, at the latest: t = v^T r / v^T (S + A C A^T) v.
    """
    v = solution.v
    curvature = taken * (v * (system.noise * v + system.apply(d))).sum(1)
    slope = solution.quadratic
    t = torch.where(curvature > slope, slope / curvature, 1)
    return t.reshape(-1, *[1] * (d.ndim - 1))
