"""What a prior holds, known ahead of any measurement: draws of it at many noise levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from priors import Prior
from priors.prior import event_size

from ..checks import whole

T = TypeVar("T")


class Draws(ABC):
    """K draws of p_s at noise levels s, made at the first use: `inverse.Pool` walks down to them.

    They belong to the prior alone, and serve every forward model and measurement: see `PooledLift`.

    Attributes:
        prior: what they are draws of.
        levels: s, strictly decreasing, data units.
        size: K.
        batch: draws taken through the network together.
        spent: network calls of all draws so far, those of `PooledLift` among them.
    """

    def __init__(self, prior: Prior, levels: list[float], size: int, batch: int | None) -> None:
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a priors.Prior, got {type(prior).__name__}")
        if prior.unmeasured is not prior:
            raise TypeError("a pool is of the prior alone, got a posterior: pass its .prior")
        if prior.event_shape is None:
            raise ValueError("the prior takes images of any size: give it one by .resized(shape)")
        self.prior, self.levels = prior, levels
        self.size = whole(size, "size", least=16)
        fitting = max(1, 2**22 // event_size(prior.event_shape))
        self.batch = fitting if batch is None else whole(batch, "batch")
        self.spent = 0
        self._states: Tensor | None = None
        self._made: tuple[tuple[Any, ...], dict[int, Any]] = ((), {})

    @property
    @abstractmethod
    def network_calls(self) -> int:
        """What each draw costs, all levels together."""

    @abstractmethod
    def _draw(self, rows: range, like: Tensor) -> Tensor:
        """(L, R, *event), these draws at each level, in the precision and place of `like`."""

    def states(self, like: Tensor) -> Tensor:
        """(L, K, *event), the draws at each level; in the precision of the first `like`."""
        if self._states is None:
            rows = range(self.size)
            parts = [rows[i : i + self.batch] for i in range(0, self.size, self.batch)]
            self._states = torch.cat([self._draw(part, like) for part in parts], 1)
            self.spent += self.size * self.network_calls
        return self._states.to(like)

    def below(self, sigma: float) -> list[int]:
        """The levels nearest below sigma / 2, / 4 and / 8, coarsest first, as far as there are."""
        found = [
            next((j for j, s in enumerate(self.levels) if s <= sigma / part), None)
            for part in (2, 4, 8)
        ]
        return list(dict.fromkeys(j for j in found if j is not None))

    def once(self, operator: object, like: Tensor, j: int, make: Callable[[], T]) -> T:
        """make() for the j-th level, made once for an operator, and kept until another comes."""
        # Stacked measurements are stacked anew each time: their parts stay the same.
        key = (like.dtype, like.device, *getattr(operator, "operators", (operator,)))
        same = zip(self._made[0], key, strict=False)
        if len(self._made[0]) != len(key) or not all(a is b or a == b for a, b in same):
            self._made = (key, {})
        made = self._made[1]
        if j not in made:
            made[j] = make()
        found: T = made[j]
        return found

    def __repr__(self) -> str:
        shape = tuple(self.prior.event_shape)
        return f"{type(self).__name__}({self.size} draws {shape}, {len(self.levels)} levels)"
