"""Categorical recordings: one class of several, such as a label for every pixel."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Field, Shape, check_integer
from .noise import Noise, check_possible


@final
class Categorical(Noise):
    """P(y = k | z) = softmax(z)_k, with the logits z of the classes on the first axis of z.

    z is (B, classes, *m), y an int64 class index, (B, *m), between 0 and classes - 1; entries of m
    are independent. Exact for every z, which has no unit. `mean` and `variance` are those of the
    index. Cost: an exponential for each logit.

    Args:
        classes: their number, at least 2.

    Raises:
        ValueError: fewer than 2 classes; over an operator, another number of logits; at use, a
            class that is not.

    Paper: Bridle, Probabilistic interpretation of feedforward classification network outputs,
    https://doi.org/10.1007/978-3-642-76153-9_28
    """

    recorded_field: Field = "integer"
    added_axes = -1

    def __init__(self, classes: int) -> None:
        self.classes = check_integer("classes", classes, 2)

    def check_shape(self, clean_shape: Shape) -> None:
        if not clean_shape or clean_shape[0] != self.classes:
            raise ValueError(
                f"a clean measurement {clean_shape} holds no logits of {self.classes} classes; "
                f"expected ({self.classes}, ...)"
            )

    def recorded_shape(self, clean_shape: Shape) -> Shape:
        """Shape of one recording, (*m), of logits (classes, *m)."""
        self.check_shape(clean_shape)
        return clean_shape[1:]

    def log_prob(self, y: Tensor, z: Tensor, measured: Tensor | None = None) -> Tensor:
        if measured is not None:
            raise ValueError("categorical noise has no density for a part of the logits")
        index = y.expand(z.shape[0], *y.shape[1:])[:, None]
        return z.log_softmax(1).gather(1, index).flatten(1).sum(1)

    def _sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        device = z.device if generator is None else generator.device
        p = z.softmax(1).movedim(1, -1)
        flat = p.reshape(-1, self.classes).to(device)
        return torch.multinomial(flat, 1, generator=generator).reshape(p.shape[:-1]).to(z.device)

    def _moment(self, z: Tensor, power: int) -> Tensor:
        index = torch.arange(self.classes, dtype=z.dtype, device=z.device) ** power
        return (z.softmax(1).movedim(1, -1) * index).sum(-1)

    def mean(self, z: Tensor) -> Tensor:
        return self._moment(z, 1)

    def variance(self, z: Tensor) -> Tensor:
        return self._moment(z, 2) - self._moment(z, 1).square()

    def check_recorded(self, y: Tensor) -> Tensor:
        known = (y >= 0) & (y < self.classes)
        check_possible("y", y, known, f"a class index, 0 to {self.classes - 1}")
        return y
