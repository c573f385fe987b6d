"""The sigma-point lift: a nonlinear observation seen through the spread of x0 given x."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from forward_models import IndependentNoise, Observation

from ..checks import whole
from .likelihood import Cost, Likelihood, Moments
from .spectrum import random_signs

STEP = 3**0.5
"""How far the points are out, in standard deviations: a Gaussian's fourth moment is 3."""


@final
class SigmaPointLift(Likelihood):
    """The Gaussian lift of y ~ p(y | f(x0)) with the moments of f(x0) from points, not derivatives.

    With C = Cov[x0 | x] = sum_i l_i l_i^T, D = E[x0 | x], h^2 = 3 and, for each direction,
    a_i = (f(D + h l_i) - f(D - h l_i)) / 2h,  b_i = f(D + h l_i) + f(D - h l_i) - 2 f(D),

        E[f]      ~ z = f(D) + sum_i b_i / 2h^2,
        Cov[f]    ~ P = sum_i a_i a_i^T + (h^2 - 1) / 4h^4 sum_i b_i b_i^T,
        Cov[x0,f] ~ sum_i l_i a_i^T,

    and with g and W the slope and the curvature of the noise's log p(y | z), as in LinearisedLift,

        shift = Cov[x0, f] W^(1/2) (I + W^(1/2) P W^(1/2))^-1 W^(-1/2) g,
        log p_sigma(y | x) = log p(y | z) + 1/2 g^T P (I + W P)^-1 g - 1/2 log det(I + W P).

    Unlike the linearisation it sees the curvature of f, in the mean and in the spread: y = x^2 at
    D = 0 has slope 0 but spread. It needs no derivative of f, so that f may be a black box. Exact
    if the prior is Gaussian, f linear and the noise Gaussian; then the density is normalised, too,
    and always in the sense of LinearisedLift. Not a gradient of its density: the Kalman update of
    E[x0 | x], which stands for E[x0 | x, y].

    Of n values x0, at most `directions` are seen: the leading ones of C, by subspace iteration. The
    others count as without spread.

    Args:
        model: an Observation with independent noise; its operator may be a black box.
        y: the measurement.
        directions: R, how many directions at most.

    Costs, for n <= R, n products with the network's Jacobian and 2 n + 1 evaluations of f; else
    (iterations + 1) R products, with iterations = 2.

    Raises TypeError for another forward model, ValueError for no directions.

    Papers: Norgaard, Poulsen and Ravn, "New Developments in State Estimation for Nonlinear
    Systems", 2000, https://doi.org/10.1016/S0005-1098(00)00089-3 (these moments); Julier and
    Uhlmann, "Unscented Filtering and Nonlinear Estimation", 2004,
    https://doi.org/10.1109/JPROC.2003.823141
    """

    needs_covariance = True
    iterations = 2

    def __init__(self, model: Observation, y: Tensor, *, directions: int = 32) -> None:
        if not isinstance(model, Observation) or not isinstance(model.noise, IndependentNoise):
            raise TypeError(
                f"SigmaPointLift needs an Observation with independent noise, got "
                f"{type(model).__name__}; PlugIn serves any differentiable model"
            )
        if not model.noise.differentiable:
            raise TypeError(
                f"SigmaPointLift needs noise with a slope, which {type(model.noise).__name__} has "
                "not; its operator may be a black box"
            )
        self.model, self.y = model, model.check_measurement(y)
        self.directions = whole(directions, "directions")

    def shift(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[0]

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[1]

    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        roots, noise, f = self._roots(moments), self.model.noise, self.model.operator
        assert isinstance(noise, IndependentNoise)
        D = moments.x0
        points = torch.cat([D[None], D + STEP * roots, D - STEP * roots])
        clean = f.apply(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        centre, (up, down) = clean[0], clean[1:].chunk(2)
        a, b = (up - down) / (2 * STEP), up + down - 2 * centre
        z = centre + b.sum(0) / (2 * STEP**2)

        measured = None if f.measured is None else f.measured.to(z.device).expand(z.shape[1:])
        mean, variance = noise.gaussian(self.y, z, measured)
        root = variance.rsqrt()
        # W^(1/2) P W^(1/2) = F F^T; all that is solved is the smaller I + F^T F, which where the
        # spread is large beside the noise is beyond single precision.
        r = _real(root * (mean - z), 1).double()
        first = _real(root * a, 2).double()
        second = _real(root * b, 2).double() * (STEP**2 - 1) ** 0.5 / (2 * STEP**2)
        F = torch.cat([first, second]).movedim(0, 2)
        gram = torch.eye(F.shape[2], dtype=F.dtype, device=F.device) + F.mT @ F
        L = torch.linalg.cholesky(gram)
        v = r - (F @ torch.cholesky_solve(F.mT @ r[..., None], L))[..., 0]
        weights = torch.einsum("rbm,bm->rb", first, v).to(D)
        shift = torch.einsum("rb...,rb->b...", roots, weights)
        log_det = 2 * L.diagonal(dim1=1, dim2=2).log().sum(1)
        plug_in = noise.log_prob(self.y, z, measured)
        return shift, plug_in + (((r * (r - v)).sum(1) - log_det) / 2).to(plug_in)

    def _roots(self, moments: Moments) -> Tensor:
        """l_i, (R, B, *event), with sum l_i l_i^T = C, or its leading part."""
        x0 = moments.x0
        B, n = len(x0), x0[0].numel()
        rank = min(n, self.directions)
        if rank == n:
            basis = torch.eye(n, dtype=x0.dtype, device=x0.device).expand(B, n, n)
        else:
            basis = random_signs(rank, x0, n).mT.expand(B, n, rank)
            for _ in range(self.iterations):
                basis = torch.linalg.qr(self._products(moments, basis))[0]
        C = basis.mT @ self._products(moments, basis)
        values, vectors = torch.linalg.eigh((C + C.mT) / 2)
        roots = basis @ (vectors * values.clamp(min=0).sqrt()[:, None])
        return roots.movedim(2, 0).reshape(rank, *x0.shape)

    def _products(self, moments: Moments, basis: Tensor) -> Tensor:
        """C Q, (B, n, R), for Q (B, n, R)."""
        many = moments.covariances(basis.movedim(2, 0).reshape(-1, *moments.x0.shape))
        return many.reshape(*many.shape[:2], -1).movedim(0, 2)

    @property
    def cost(self) -> Cost:
        shape = self.model.event_shape or self.model.operator.input_shape(tuple(self.y.shape[1:]))
        n = self.directions + 1 if shape is None else math.prod(shape)
        rounds = 1 if n <= self.directions else self.iterations + 1
        return Cost(products=min(n, self.directions) * rounds)


def _real(z: Tensor, batch: int) -> Tensor:
    """Real coordinates of the values of z, whose first `batch` axes stay."""
    return (torch.view_as_real(z) if z.is_complex() else z).reshape(*z.shape[:batch], -1)
