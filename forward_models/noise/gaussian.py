"""Gaussian noise around any measurement, independent or correlated."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..affine import linear_part
from ..checks import Constant, Field, Shape, check_dtype, check_finite, check_tensor
from ..linear import LinearOperator, MatrixOperator
from ..operator import Operator
from .linear_gaussian import LinearGaussian
from .noise import IndependentNoise, Noise, standard_normal
from .parameter import standard_deviation


@final
class Gaussian(IndependentNoise):
    """y = z + sigma * eps, eps ~ N(0, I), real or complex; information 1 / sigma^2.

    A complex entry counts as two real ones: sigma is the standard deviation of its real part and
    of its imaginary part. Over a linear or affine operator an observation is exactly
    `LinearGaussian`. Exact for every z; y and z in any one unit. Cost: a few operations for each
    entry.

    Args:
        sigma: standard deviation in the unit of y, a positive number, or a tensor of the
            measurement's shape with one value per entry.

    Raises:
        TypeError: sigma is no real number or tensor.
        ValueError: sigma is zero, negative or not finite somewhere.

    Paper: Kaipio and Somersalo, Statistical and computational inverse problems,
    https://doi.org/10.1007/b138659
    """

    field: Field = "any"
    recorded_field: Field = "any"

    def __init__(self, sigma: float | Tensor) -> None:
        self._sigma = standard_deviation(sigma)
        self.sigma = self._sigma.value

    def _log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        sigma = self._sigma.like(z)
        scaled = (y - z) / sigma
        squares = scaled.abs().square() if scaled.is_complex() else scaled.square()
        parts = 2 if z.is_complex() else 1
        return -0.5 * squares - parts * (sigma.log() + 0.5 * math.log(2 * math.pi))

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return z + self._sigma.like(z) * standard_normal(z, generator)

    def mean(self, z: Tensor) -> Tensor:
        return z

    def variance(self, z: Tensor) -> Tensor:
        return self._sigma.like(z).square().expand(z.shape)

    def information(self, z: Tensor) -> Tensor:
        return (1 / self._sigma.like(z).square()).expand(z.shape)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        return (y - z) / self._sigma.like(z).square()

    def linear_gaussian(
        self, operator: Operator, y: Tensor
    ) -> tuple[LinearGaussian, Tensor] | None:
        linear = linear_part(operator)
        if linear is None:
            return None
        return LinearGaussian(linear, self.sigma), _centred(operator, linear, y)


@final
class CorrelatedGaussian(Noise):
    """y = z + L eps, L L^T = covariance, over all M entries of a real measurement.

    log p(y | z) = -1/2 [ |W (y - z)|^2 + log det covariance + M log(2 pi) ],   W = L^-1,

    exact. Over a linear operator A an observation of y is exactly `LinearGaussian` with the
    operator W A, the measurement W y and sigma = 1: whitening; an affine one likewise. Cost
    O(M^2) a measurement, O(M^3) once.

    Args:
        covariance: (M, M), symmetric positive definite, in the squared unit of y; the entries of a
            measurement in row-major order.

    Raises:
        TypeError: the covariance is no real tensor.
        ValueError: it is not square, symmetric or positive definite, or has NaN; over an operator,
            a measurement without M entries.

    Paper: Kaipio and Somersalo, Statistical and computational inverse problems,
    https://doi.org/10.1007/b138659
    """

    def __init__(self, covariance: Tensor) -> None:
        check_tensor("covariance", covariance)
        check_dtype("covariance", covariance, "real")
        if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
            raise ValueError(f"covariance has shape {tuple(covariance.shape)}, expected (M, M)")
        check_finite("covariance", covariance)
        double = covariance.detach().double()
        if not torch.allclose(double, double.T, rtol=1e-5, atol=1e-8 * float(double.abs().max())):
            raise ValueError("covariance is not symmetric")
        factor, failed = torch.linalg.cholesky_ex((double + double.T) / 2)
        if int(failed):
            raise ValueError(
                f"covariance is not positive definite: its leading minor of order {int(failed)} "
                "is not; add a small multiple of the identity"
            )
        identity = torch.eye(len(factor), dtype=torch.float64, device=factor.device)
        self._factor = Constant(factor)
        self._whitener = Constant(torch.linalg.solve_triangular(factor, identity, upper=False))
        self._log_det = float(2 * factor.diagonal().log().sum())

    @property
    def size(self) -> int:
        """M, the entries of one measurement."""
        return len(self._factor.value)

    def check_shape(self, clean_shape: Shape) -> None:
        entries = math.prod(clean_shape)
        if entries != self.size:
            raise ValueError(
                f"a measurement {tuple(clean_shape)} has {entries} entries, the covariance is of "
                f"{self.size}"
            )

    def _flat(self, value: Tensor) -> Tensor:
        self.check_shape(tuple(value.shape[1:]))
        return value.flatten(1)

    def log_prob(self, y: Tensor, z: Tensor, measured: Tensor | None = None) -> Tensor:
        if measured is not None:
            raise ValueError("correlated noise has no density for a part of the measurement")
        white = self._flat(y - z) @ self._whitener.like(z).mT
        normaliser = 0.5 * (self._log_det + self.size * math.log(2 * math.pi))
        return -0.5 * white.square().sum(1) - normaliser

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        eps = standard_normal(self._flat(z), generator)
        return z + (eps @ self._factor.like(z).mT).reshape(z.shape)

    def mean(self, z: Tensor) -> Tensor:
        return z

    def variance(self, z: Tensor) -> Tensor:
        rows = self._factor.like(z).square().sum(1)
        self._flat(z)
        return rows.reshape(z.shape[1:]).expand(z.shape)

    def linear_gaussian(
        self, operator: Operator, y: Tensor
    ) -> tuple[LinearGaussian, Tensor] | None:
        linear = linear_part(operator)
        if linear is None:
            return None
        whiten = MatrixOperator(self._whitener.value, event_shape=tuple(y.shape[1:]))
        return LinearGaussian(whiten @ linear, 1.0), whiten(_centred(operator, linear, y))


def _centred(operator: Operator, linear: LinearOperator, y: Tensor) -> Tensor:
    """y - f(0): the measurement that is linear in the image."""
    if operator is linear:
        return y
    shape = linear.input_shape(tuple(y.shape[1:]))
    dtype = y.dtype.to_real() if operator.event_field == "real" else y.dtype
    return y - operator.apply(torch.zeros(1, *shape, dtype=dtype, device=y.device))
