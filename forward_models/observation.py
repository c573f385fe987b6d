"""An observation: an operator and the noise of its recording."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from .checks import Shape
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
            of f are unmeasured and the noise is not independent; a parameter of the noise does not
            have the shape of a measurement, here where that is known, else at use.
    """

    def __init__(self, operator: Operator, noise: Noise) -> None:
        if not isinstance(operator, Operator):
            raise TypeError(
                f"operator must be an Operator, got {type(operator).__name__}; a matrix is wrapped "
                "by MatrixOperator, a function by from_simulator or from_function"
            )
        if not isinstance(noise, Noise):
            advice = "; wrap it: Gaussian(0.1)" if isinstance(noise, Real | Tensor) else ""
            raise TypeError(f"noise must be a Noise, got {type(noise).__name__}{advice}")
        given, taken = operator.measurement_field, noise.field
        if given != taken and "any" not in (given, taken):
            raise ValueError(
                f"{type(operator).__name__} gives {given} values, {type(noise).__name__} noise is "
                f"of {taken} ones"
            )
        if operator.measured is not None and not isinstance(noise, IndependentNoise):
            raise ValueError(
                f"{type(noise).__name__} noise takes whole measurements, but "
                f"{type(operator).__name__} leaves entries unmeasured; drop them from the operator"
            )
        self.operator, self.noise = operator, noise
        self.differentiable = operator.differentiable and noise.differentiable
        self.measurement_field = noise.recorded_field
        if self.measurement_field == "any":
            self.measurement_field = given
        self.event_shape = operator.event_shape
        if operator.measurement_shape is not None:
            noise.check_shape(operator.measurement_shape)
            self.measurement_shape = noise.recorded_shape(operator.measurement_shape)
            self.measurement_ndim = len(self.measurement_shape)
        elif operator.measurement_ndim is not None:
            self.measurement_ndim = operator.measurement_ndim + noise.added_axes

    def _particulars(self) -> dict[str, Any]:
        return {"operator": type(self.operator), "noise": self.noise}

    def _check_values(self, y: Tensor) -> Tensor:
        """Only entries that are measured are data; the others may be anything, and become 0."""
        measured = self._measured(y)
        if measured is None:
            return self.noise.check_recorded(y)
        self.noise.check_recorded(torch.where(measured, y, self._neutral(y)))
        return torch.where(measured, y, torch.zeros_like(y))

    def _measured(self, y: Tensor) -> Tensor | None:
        measured = self.operator.measured
        return None if measured is None else measured.to(y.device).expand(y.shape[1:])

    def _neutral(self, like: Tensor) -> Tensor:
        assert isinstance(self.noise, IndependentNoise)
        return torch.full_like(like, self.noise.neutral)

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.check_measurement(y)
        z = self.operator.apply(x)
        self._check_against(y, z)
        return self.noise.log_prob(y, z, self._measured(y))

    def _check_against(self, y: Tensor, z: Tensor) -> None:
        """Refuse a y that cannot be a recording of z; see `check_pair`."""
        dtype = {
            "real": z.dtype.to_real(), "complex": z.dtype.to_complex(), "any": z.dtype,
            "integer": torch.int64,
        }[self.noise.recorded_field]  # fmt: skip
        shape = self.noise.recorded_shape(tuple(z.shape[1:]))
        check_pair(y, torch.empty((), dtype=dtype, device=z.device).expand(len(z), *shape))

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw y ~ p(y | x0 = x), (B, *measurement), with noise from the given generator.

        Starts from `operator.record(x)`: the true instrument, where `apply` is a surrogate.

        Raises ValueError if the clean measurement is not one that the noise can start from.
        """
        with torch.no_grad():
            z = self.operator.record(x)
            measured = self._measured(z)
            if measured is None:
                return self.noise.sample(z, generator)
            y = self.noise.sample(torch.where(measured, z, self._neutral(z)), generator)
            return torch.where(measured, y, torch.zeros_like(y))

    def misfit(self, y: Tensor, x: Tensor) -> Tensor | None:
        """sqrt(sum_i |y_i - E y_i|^2 / sum_i Var y_i), (B,); None for classes and correlated noise.

        A ratio of sums, since a single entry may have almost no variance, as beyond saturation.
        """
        if not isinstance(self.noise, IndependentNoise):
            return None
        y, z = self.check_measurement(y), self.operator.apply(x)
        self._check_against(y, z)
        measured = self._measured(z)
        if measured is not None:
            z = torch.where(measured, z, self._neutral(z))
        squares = (y - self.noise.mean(z)).abs().square().expand(z.shape)
        expected = self.noise.variance(z) * (2 if y.is_complex() else 1)
        if measured is not None:
            squares, expected = squares[:, measured], expected[:, measured]
        return (squares.flatten(1).sum(1) / expected.flatten(1).sum(1)).sqrt()

    def gaussian(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """(m, S): N(m; z, diag S) stands for p(y | z) around z = f(x); see the noise's `gaussian`.

        Unmeasured entries have m = z and S infinite.
        """
        if not isinstance(self.noise, IndependentNoise):
            raise TypeError(
                f"{type(self.noise).__name__} noise has no diagonal stand-in; see linear_gaussian"
            )
        y, z = self.check_measurement(y), self.operator.apply(x)
        self._check_against(y, z)
        return self.noise.gaussian(y, z, self._measured(z))

    def curvature(self, y: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """v^T J^T W J v, (B,), for J the derivative of f at x and W the curvature of the noise.

        What -log p(y | x0) curves by along v (B, *event) where f is taken as linear; never
        negative. Costs one evaluation of f and one of its derivative.
        """
        if not isinstance(self.noise, IndependentNoise):
            raise TypeError(f"{type(self.noise).__name__} noise has no diagonal curvature")
        y, z = self.check_measurement(y), self.operator.apply(x)
        self._check_against(y, z)
        measured = self._measured(z)
        if measured is not None:
            y, z = (torch.where(measured, t, self._neutral(t)) for t in (y, z))
        terms = self.noise.curvature(y, z) * self.operator.jvp(x, v).abs().square()
        if measured is not None:
            terms = torch.where(measured, terms, torch.zeros_like(terms))
        return terms.reshape(len(terms), -1).sum(1)

    def linear_gaussian(self, y: Tensor) -> tuple[LinearGaussian, Tensor] | None:
        """The same measurement as a LinearGaussian one, where it is exactly that; else None."""
        return self.noise.linear_gaussian(self.operator, y)

    def output_shape(self, event_shape: Shape) -> Shape:
        """Shape of a recording of an image of this shape."""
        return self.noise.recorded_shape(self.operator.output_shape(event_shape))
