"""An observation: an operator and the noise of its recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .checks import Shape, check_batched
from .forward_model import ForwardModel, check_pair
from .noise import IndependentNoise, Noise
from .operator import Operator

if TYPE_CHECKING:
    from .noise import LinearGaussian


@final
class Observation(ForwardModel):
    """y ~ p(y | z), z = f(x0): what an instrument f with a given noise records of an image.

    log p(y | x0) = noise.log_prob(y, f(x0)), over the entries that f measures; exact. Entries of y
    outside `operator.measured` are no data: they enter no sum and are 0 in a simulated measurement.
    Cost: one evaluation of f.

    Args:
        operator: f, linear or not.
        noise: p(y | z).

    Raises:
        TypeError: other kinds of arguments.
        ValueError: f gives complex values and the noise is of real ones, or the other way; entries
            of f are unmeasured and the noise correlates entries.
    """

    def __init__(self, operator: Operator, noise: Noise) -> None:
        if not isinstance(operator, Operator):
            raise TypeError(
                f"operator must be an Operator, got {type(operator).__name__}; a matrix is wrapped "
                "by MatrixOperator, a function by from_simulator or from_function"
            )
        if not isinstance(noise, Noise):
            raise TypeError(f"noise must be a Noise, got {type(noise).__name__}")
        given, taken = operator.measurement_field, noise.field
        if given != taken and "any" not in (given, taken):
            raise ValueError(
                f"{type(operator).__name__} gives {given} values, {type(noise).__name__} noise is "
                f"of {taken} ones"
            )
        if operator.measured is not None and not isinstance(noise, IndependentNoise):
            raise ValueError(
                f"{type(noise).__name__} noise correlates the entries of y, but "
                f"{type(operator).__name__} leaves some unmeasured; drop them from the operator"
            )
        self.operator, self.noise = operator, noise
        self.differentiable = operator.differentiable and noise.differentiable
        self.measurement_field = noise.recorded_field
        self.event_shape = operator.event_shape
        if operator.measurement_shape is not None:
            self.measurement_shape = noise.recorded_shape(operator.measurement_shape)
            self.measurement_ndim = len(self.measurement_shape)
        elif operator.measurement_ndim is not None:
            self.measurement_ndim = len(noise.recorded_shape((1,) * operator.measurement_ndim))

    def _check_values(self, y: Tensor) -> Tensor:
        measured = self._measured(y)
        checked = self.noise.check_recorded(y if measured is None else y[:, measured])
        if measured is None:
            return checked
        return torch.where(measured, y, torch.zeros_like(y))

    def _measured(self, y: Tensor) -> Tensor | None:
        measured = self.operator.measured
        return None if measured is None else measured.to(y.device).expand(y.shape[1:])

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.check_measurement(y)
        z = self.operator.apply(x)
        self._check_against(y, z)
        return self.noise.log_prob(y, z, self._measured(y))

    def _check_against(self, y: Tensor, z: Tensor) -> None:
        shape = self.noise.recorded_shape(tuple(z.shape[1:]))
        if y.dtype == z.dtype and shape == tuple(z.shape[1:]):
            check_pair(y, z)
            return
        if y.is_floating_point() and y.dtype.to_real() != z.dtype.to_real():
            raise TypeError(f"y has dtype {y.dtype} but x predicts {z.dtype}; convert one of them")
        check_batched("y", y, shape, None)
        if y.shape[0] not in (1, z.shape[0]) or y.device != z.device:
            raise ValueError(
                f"y has {y.shape[0]} measurements on {y.device} for {z.shape[0]} images on "
                f"{z.device}"
            )

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw y ~ p(y | x0 = x), (B, *measurement), with noise from the given generator.

        Starts from `operator.record(x)`: the true instrument, where `apply` is a surrogate.
        """
        with torch.no_grad():
            y = self.noise.sample(self.operator.record(x), generator)
            measured = self._measured(y)
            return y if measured is None else torch.where(measured, y, torch.zeros_like(y))

    def gaussian(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(m, S): N(m; z, diag S) stands for p(y | z) around z = f(x); see `Noise.gaussian`.

        Unmeasured entries have m = z and S infinite.
        """
        if not isinstance(self.noise, IndependentNoise):
            raise TypeError(
                f"{type(self.noise).__name__} noise has no diagonal stand-in; see linear_gaussian"
            )
        y, z = self.check_measurement(y), self.operator.apply(x)
        self._check_against(y, z)
        mean, variance = self.noise.gaussian(y, z)
        measured = self._measured(mean)
        if measured is None:
            return mean, variance
        return torch.where(measured, mean, z), torch.where(measured, variance, torch.inf)

    def linear_gaussian(self, y: Tensor) -> tuple[LinearGaussian, Tensor] | None:
        """The same measurement as a LinearGaussian one, where it is exactly that; else None."""
        return self.noise.linear_gaussian(self.operator, y)

    def output_shape(self, event_shape: Shape) -> Shape:
        """Shape of a recording of an image of this shape."""
        return self.noise.recorded_shape(self.operator.output_shape(event_shape))
