"""Forward models: how a measurement y arises from a clean image x0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checks import Field, Shape, check_batched, check_dtype, check_finite, check_tensor
from .words import described

if TYPE_CHECKING:
    from .noise import LinearGaussian


class ForwardModel(ABC):
    """A measurement model p(y | x0), known as a normalised density and as a simulator.

    Attributes:
        event_shape: shape of one image x0, or None if any image size is accepted.
        measurement_shape: shape of one measurement y, or None if it follows from the image's.
        measurement_ndim: number of axes of one measurement, or None if any.
        measurement_field: whether y is "real", "complex", "any" of the two, or "integer".
        differentiable: whether log p(y | x0) has a useful gradient in x0.
    """

    event_shape: Shape | None = None
    measurement_shape: Shape | None = None
    measurement_ndim: int | None = None
    measurement_field: Field = "real"
    differentiable: bool = True

    @abstractmethod
    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        """log p(y | x0 = x), normalised in y, shape (B,).

        Args:
            y: measurement, (*measurement), (1, *measurement) or (B, *measurement).
            x: clean images, (B, *event), in data units.
        """

    @abstractmethod
    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw y ~ p(y | x0 = x), shape (B, *measurement), without an autograd graph.

        Args:
            x: clean images, (B, *event), in data units.
            generator: of the noise; None means torch's global one.
        """

    def __repr__(self) -> str:
        shapes = {"event_shape": self.event_shape, "measurement_shape": self.measurement_shape}
        return described(self, **self._particulars(), **shapes)

    def _particulars(self) -> dict[str, Any]:
        """What `repr` tells beside the shapes: numbers, classes, noise."""
        return {}

    def check_measurement(self, y: Tensor) -> Tensor:
        """Return y with its batch axis, (1, *measurement) or (B, *measurement).

        Where neither the shape nor the number of axes of a measurement is known, y must come with
        its batch axis.

        Raises:
            TypeError: y is no tensor, or its dtype is not a float (or complex) one as declared.
            ValueError: the shape does not fit, y is empty, or y has NaN or infinite entries (their
                count and the first index are named).
        """
        check_tensor("y", y)
        check_dtype("y", y, self.measurement_field)
        ndim = self.measurement_ndim
        if self.measurement_shape is not None:
            ndim = len(self.measurement_shape)
        if ndim is not None and y.ndim == ndim:
            if self.measurement_shape is not None and tuple(y.shape) != self.measurement_shape:
                raise ValueError(
                    f"y has shape {tuple(y.shape)}, expected {self.measurement_shape}, or a batch "
                    "of these"
                )
            y = y[None]
        check_batched("y", y, self.measurement_shape, ndim)
        return self._check_values(y)

    def _check_values(self, y: Tensor) -> Tensor:
        """Refuse entries of y (B, *measurement) that are not finite; returns y."""
        check_finite("y", y)
        return y

    def misfit(self, y: Tensor, x: Tensor) -> Tensor | None:
        """The residual y - E[y | x0 = x] over its standard deviation, over all data, (B,).

        Near 1 where x explains y as well as the truth would; None where that has no meaning.
        """
        return None

    def linear_gaussian(self, y: Tensor) -> tuple[LinearGaussian, Tensor] | None:
        """(model, y') that is linear with Gaussian noise and has the same likelihood up to a factor
        that depends on y alone; None unless that is exact."""
        return None


class TimeDependent(ABC):
    """A measurement model p_sigma(y | x) known at every noise level: it needs no approximation.

    x = x0 + sigma * eps is the noisy image; a noise-conditional classifier is the usual example.

    Attributes:
        event_shape: shape of one image, or None if any size is accepted.
        augmented: whether the measurement moves with the noise level. Then p_sigma is exact for the
            pair of the two, which Langevin steps at each level sample; a reverse SDE or ODE, which
            holds y fixed, does not end in p(x0 | y), and the methods that run one refuse it.
    """

    event_shape: Shape | None = None
    augmented: bool = False

    @abstractmethod
    def log_likelihood(self, y: Tensor, x: Tensor, sigma: float | Tensor) -> Tensor:
        """log p_sigma(y | x), shape (B,).

        Args:
            y: what was observed.
            x: noisy images, (B, *event), in data units.
            sigma: noise level in data units, a number or (B,).
        """

    def __repr__(self) -> str:
        return described(self, event_shape=self.event_shape)

    def check_measurement(self, y: Tensor) -> Tensor:
        """Return y with its batch axis; a single number becomes (1,). Models refine the check.

        Raises TypeError if y is no tensor, ValueError if it is empty, NaN or infinite.
        """
        check_tensor("y", y)
        y = y.reshape(1) if y.ndim == 0 else y
        check_batched("y", y, None, None)
        check_finite("y", y)
        return y


def check_pair(y: Tensor, prediction: Tensor) -> None:
    """Refuse a measurement that cannot be compared with the prediction (B, *measurement) from x.

    One measurement may serve a whole batch; any other difference in shape, dtype or device is an
    error rather than a broadcast or a cast.
    """
    if y.dtype != prediction.dtype:
        raise TypeError(
            f"y has dtype {y.dtype} but x predicts {prediction.dtype}; convert one of them"
        )
    if y.device != prediction.device:
        raise ValueError(f"y is on {y.device} but x on {prediction.device}; move one of them")
    if y.shape[1:] != prediction.shape[1:] or y.shape[0] not in (1, prediction.shape[0]):
        raise ValueError(
            f"y has shape {tuple(y.shape)} but x predicts {tuple(prediction.shape)}; "
            "y must have the same shape, or a batch of one"
        )


def check_level(sigma: float | Tensor, x: Tensor) -> Tensor:
    """The noise level of images x (B, *event) as (1,) or (B,), in their precision.

    Raises ValueError unless it is one number, or one for each image, finite and not negative.
    """
    level = torch.as_tensor(sigma, dtype=x.dtype.to_real(), device=x.device)
    if level.ndim > 1 or level.numel() not in (1, x.shape[0]):
        raise ValueError(
            f"sigma has shape {tuple(level.shape)}, expected a number or ({x.shape[0]},)"
        )
    check_finite("sigma", level.reshape(-1))
    if bool((level < 0).any()):
        raise ValueError(f"sigma must not be negative, got {float(level.min())}")
    return level.reshape(-1)
