"""C = Cov[x0 | x] = sigma^2 dD/dx, by Tweedie's second formula, from products with the Jacobian."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from .covariance import AssumedCovariance
from .likelihood import Cost, Moments
from .linear_system import LinearSystem, Measured
from .solution import Solution, assembled, krylov, log_det
from .spectrum import DENSE, PROBES, STEPS


@final
@dataclass(frozen=True)
class Tweedie(AssumedCovariance):
    """C = Cov[x0 | x] = sigma^2 J, in full. Exact for Gaussian priors.

    A measurement of M <= `dense` values is solved exactly: A C A^T is assembled from M products,
    and gives shift and log density together (TMPD). A larger one is solved by Krylov iterations,
    one product each (MMPS). The shift is gathered from the iterations' own products, all on one
    graph, so that k iterations cost k products and not the k + 1 of a solve followed by a
    pull-back: three come to 1 forward and 3 backward passes, measured as 2.04 to 2.12 times one
    forward and one backward pass, with the answer of GMRES to rounding (benchmarks/mmps.py).

    The log density of a large measurement takes its quadratic form from that solve and its
    log-determinant from Lanczos quadrature with fixed vectors, for probes * steps products more. A
    solve cut short leaves the density too large, a quadrature cut short too small; the vectors add
    a random error of standard deviation sqrt(1 / (2 probes) sum_(i != j) L_ij^2), with
    L = log(I + G), common to all noise levels and samples.

    For priors with the covariance in closed form products are cheap: the solve runs to `tolerance`,
    and densities are exact up to 256 values.

    Attributes:
        iterations: at most this many products for a measurement of more than `dense` values; by
            default 3 for networks, which stops short of convergence where A C A^T is
            ill-conditioned, and 2000 for closed forms.
        tolerance: relative residual at which a sample stops; by default 1e-6, in double precision
            1e-10.
        dense: up to how many measured values A C A^T is assembled.
        probes, steps: of the quadrature.

    Papers: Rozet et al., "Learning Diffusion Priors from Observations", 2024,
    https://arxiv.org/abs/2405.13712; Boys et al., "Tweedie Moment Projected Diffusions for Inverse
    Problems", 2024, https://arxiv.org/abs/2310.06721
    """

    iterations: int | None = None
    tolerance: float | None = None
    dense: int = 32
    probes: int = 2
    steps: int = 4

    assumable = False
    needs_covariance = True
    gathers = True

    def solve(self, moments: Moments, measured: Measured, r: Tensor, density: bool) -> Solution:
        return self.solve_system(moments, measured.system(r), r, density)

    def solve_system(
        self, moments: Moments, system: LinearSystem, r: Tensor, density: bool
    ) -> Solution:
        """`solve` for a system that need not come from a linear model."""
        assemble = self.assembles(system.size) or (
            density and moments.exact and self.iterations is None and system.size <= DENSE
        )
        if assemble:
            return assembled(system, moments.covariances, r)
        default = 2000 if moments.exact else 3
        tolerance = self.tolerance or (1e-10 if r.dtype == torch.float64 else 1e-6)
        found = krylov(
            system,
            moments.covariance,
            r,
            self.iterations or default,
            tolerance,
            symmetric=moments.exact,
        )
        if moments.exact and self.iterations is None:
            _warn(found, tolerance)
        if not density:
            return found
        effort = (PROBES, STEPS) if moments.exact else (self.probes, self.steps)
        determinant = log_det(system, moments.covariance, r, *effort)
        return Solution(found.v, found.quadratic, found.pulled, determinant)

    def assembles(self, size: int) -> bool:
        """Whether A C A^T is assembled for M = size values."""
        return size <= self.dense and (self.iterations is None or self.iterations >= size)

    def cost(self, size: int) -> Cost:
        return Cost(products=size if self.assembles(size) else self.iterations or 3)

    def density_cost(self, size: int) -> Cost:
        return Cost(products=0 if self.assembles(size) else self.probes * min(self.steps, size))


def _warn(found: Solution, tolerance: float) -> None:
    assert found.left is not None
    left = float(found.left.detach().max())
    if left > 100 * tolerance:
        warnings.warn(
            f"the solve of the Tweedie lift left a relative residual of {left:.1e}; use "
            "float64, or a larger measurement sigma",
            RuntimeWarning,
            stacklevel=4,
        )


@final
@dataclass(frozen=True)
class DiagonalTweedie(AssumedCovariance):
    """A C A^T replaced by the diagonal matrix of its row sums, C = Cov[x0 | x].

        S + A C A^T ~ S + diag(max(A C A^T 1, 0)),     1 the vector of ones in R^M,

    one product for the row sums and one for K A^T v. The approximation is of A C A^T alone, which
    is treated as if the measured values were independent given x, with what they share added to
    their variance: it is exact where A C A^T is diagonal, the wider the more the values are
    correlated, and never below S. Row sums differ from one choice of basis or sign of y to another,
    and where correlations are negative they can cancel; a sum below 0 counts as 0.

    Of a dense A most sums cancel, and the shift would overshoot y by orders of magnitude. It is
    therefore cut, along itself, to where the sampler's next step takes y - A x0 to its least, by a
    product with A C A^T that is at hand:

        shift = min(1, t / taken) K A^T v,     t = v^T r / v^T (S + A C A^T) v,

    with taken = 1 - sigma'^2 / sigma^2 for a step from sigma to sigma' (1 where no levels are
    given). Where A C A^T is diagonal, or steps are fine, that cuts nothing. The density is left as
    it is.

    Attributes:
        levels: the noise levels that are walked, for `taken`.

    Paper: Boys et al., "Tweedie Moment Projected Diffusions for Inverse Problems", 2024,
    https://arxiv.org/abs/2310.06721 (the diagonal variant)
    """

    levels: tuple[float, ...] = field(default=(), repr=False)

    assumable = False
    needs_covariance = True

    def solve(self, moments: Moments, measured: Measured, r: Tensor, density: bool) -> Solution:
        system = measured.system(r)
        rows = system.apply(moments.covariance(system.adjoint(torch.ones_like(r))))
        total = system.noise + rows.clamp(min=0)
        v = r / total
        return Solution(v, (r * v).sum(1), log_det=total.log().sum(1) if density else None)

    def taken(self, sigma: Tensor) -> Tensor:
        levels = sigma.new_tensor((0.0, *self.levels))
        below = levels < (1 - 1e-5) * sigma[:, None]
        ahead = torch.where(below, levels, 0).amax(1)
        return 1 - (ahead / sigma) ** 2

    def cost(self, size: int) -> Cost:
        return Cost(products=1)
