"""An energy: any loss of an image as a forward model without a normalised density."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from .checks import Shape, check_tensor
from .forward_model import ForwardModel


@final
class Energy(ForwardModel):
    """log p(y | x0) = -L(x0) + a constant, for any loss L that is low for the images wanted.

    There is nothing to measure: y is a placeholder, `inverse.condition(prior, Energy(loss), 0)`,
    and everything that is observed sits in L. Log densities are unnormalised: differences between
    images are exact, values are not. Cost: one call of L.

    Args:
        loss: images (B, *event), data units -> (B,), each image alone.
        event_shape: shape of one image, or None if any is accepted.
        differentiable: whether autograd sees through L; methods that need a gradient refuse it
            otherwise.

    Raises:
        TypeError: the loss is not callable. ValueError: it returns another shape, at the call.

    Paper: LeCun et al., "A Tutorial on Energy-Based Learning", 2006,
    http://yann.lecun.com/exdb/publis/pdf/lecun-06.pdf
    """

    measurement_field = "integer"

    def __init__(
        self,
        loss: Callable[[Tensor], Tensor],
        event_shape: Shape | None = None,
        differentiable: bool = True,
    ) -> None:
        if not callable(loss):
            raise TypeError(f"loss must be a function of images, got {type(loss).__name__}")
        self.loss, self.event_shape = loss, event_shape
        self.differentiable = differentiable

    def check_measurement(self, y: Tensor) -> Tensor:
        """Any tensor, taken as the placeholder (1,)."""
        check_tensor("y", y)
        return torch.zeros(1, dtype=torch.int64, device=y.device)

    def log_likelihood(self, y: Tensor, x: Tensor) -> Tensor:
        """-L(x), (B,)."""
        value = check_tensor("what the loss returns", self.loss(x))
        if value.shape != x.shape[:1]:
            raise ValueError(
                f"the loss returned {tuple(value.shape)} for {len(x)} images, expected "
                f"({len(x)},): one value for each; sum or average over all other axes"
            )
        return -value

    def simulate(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Refused: a loss says which images are wanted, not what they would be measured as."""
        raise TypeError("an Energy has no measurement to simulate; write a forward model for that")
