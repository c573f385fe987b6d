"""A linear measurement with Gaussian noise: the forward model with closed forms."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from ..forward_model import ForwardModel, check_pair
from ..linear import LinearOperator
from .noise import standard_normal
from .parameter import standard_deviation


@final
class LinearGaussian(ForwardModel):
    """y = A x0 + sigma * eps, eps ~ N(0, I), on the entries that A measures.

    log p(y | x0) = -1/2 sum_i [ (y_i - (A x0)_i)^2 / sigma_i^2 + log(2 pi sigma_i^2) ], exact.

    Entries of y outside `operator.measured` are no data: they enter no sum, get no noise, and
    are 0 in a simulated measurement. A complex entry counts as two real ones: sigma is the standard
    deviation of its real part and of its imaginary part. Cost: one product with A.

    Args:
        operator: A.
        sigma: noise standard deviation in the unit of y, a positive number, or a tensor of the
            measurement's shape with one value per entry.

    Raises:
        TypeError: the operator is no LinearOperator, or sigma is no real number or tensor.
        ValueError: sigma is zero, negative or not finite somewhere, or its shape does not fit.

    Paper: Kaipio and Somersalo, Statistical and computational inverse problems,
    https://doi.org/10.1007/b138659
    """

    def __init__(self, operator: LinearOperator, sigma: float | Tensor) -> None:
        if not isinstance(operator, LinearOperator):
            raise TypeError(
                f"operator must be a LinearOperator, got {type(operator).__name__}; "
                "a matrix is wrapped by MatrixOperator(matrix)"
            )
        self.operator = operator
        self.event_shape = operator.event_shape
        self.measurement_shape = operator.measurement_shape
        self.measurement_ndim = operator.measurement_ndim
        self.measurement_field = operator.measurement_field
        self._sigma = standard_deviation(sigma)
        if self.measurement_shape is not None:
            self._sigma.check_shape(self.measurement_shape)
        self.sigma = self._sigma.value

    def linear_gaussian(self, y: Tensor) -> tuple[LinearGaussian, Tensor]:
        """Itself."""
        return self, y

    @property
    def noise_variance(self) -> float | Tensor:
        """sigma^2, a number or a tensor of the measurement's shape."""
        return self.sigma**2

    def _measured(self, y: Tensor) -> Tensor | None:
        measured = self.operator.measured
        return None if measured is None else measured.to(y.device).expand(y.shape[1:])

    def _particulars(self) -> dict[str, Any]:
        return {"operator": type(self.operator), "sigma": self.sigma}

    def _check_values(self, y: Tensor) -> Tensor:
        """Only entries that are measured are data; the others may be anything, and become 0."""
        self._sigma.check_shape(tuple(y.shape[1:]))
        measured = self._measured(y)
        return super()._check_values(y if measured is None else torch.where(measured, y, 0))

    def count(self, y: Tensor) -> int:
        """M, the real numbers that one measurement like y (B, *measurement) carries as data."""
        measured = self._measured(y)
        entries = y[0].numel() if measured is None else int(measured.sum())
        return entries * (2 if y.is_complex() else 1)

    def residual(self, y: Tensor, x: Tensor) -> Tensor:
        """y - A x on measured entries and 0 elsewhere, (B, *measurement)."""
        return self._residual(self.check_measurement(y), self.operator.apply(x))

    def _residual(self, y: Tensor, prediction: Tensor) -> Tensor:
        check_pair(y, prediction)
        difference = y - prediction
        measured = self._measured(y)
        return difference if measured is None else torch.where(measured, difference, 0)

    def misfit(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.check_measurement(y)
        prediction = self.operator.apply(x)
        scaled = self._residual(y, prediction) / self._sigma.like(prediction)
        return (scaled.abs().square().reshape(len(x), -1).sum(1) / self.count(y)).sqrt()

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.check_measurement(y)
        prediction = self.operator.apply(x)
        scaled = self._residual(y, prediction) / self._sigma.like(prediction)
        squares = scaled.abs().square() if scaled.is_complex() else scaled.square()
        return -0.5 * squares.reshape(len(squares), -1).sum(1) - self._log_normaliser(prediction)

    def _log_normaliser(self, y: Tensor) -> Tensor:
        """1/2 sum over the data of log(2 pi sigma_i^2), a scalar."""
        log_sigma = self._sigma.double.log().to(y.device)
        if log_sigma.ndim == 0:
            total = self.count(y) * log_sigma
        else:
            measured = self._measured(y)
            kept = log_sigma if measured is None else log_sigma[measured]
            total = kept.sum() * (2 if y.is_complex() else 1)
        return (total + 0.5 * self.count(y) * math.log(2 * math.pi)).to(y.dtype.to_real())

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw y ~ p(y | x0 = x), (B, *measurement), with noise from the given generator."""
        with torch.no_grad():
            clean = self.operator.apply(x)
            y = clean + self._sigma.like(clean) * standard_normal(clean, generator)
            measured = self._measured(clean)
            return y if measured is None else torch.where(measured, y, 0)
