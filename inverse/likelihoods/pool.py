"""What a prior holds, known ahead of any measurement: draws of it at many noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from priors import Prior, geometric
from priors.prior import event_size

from ..checks import whole
from ..randomness import check_seed
from ..samplers import Multistep, Step

T = TypeVar("T")
APART = 1 << 60
"""Added to a draw's number, so that its noise is not that of a sample of the same seed."""


@final
class Pool:
    """K draws of p_s at noise levels s a factor of two apart, made at the first use.

    They belong to the prior alone, and serve every forward model and measurement: see `PooledLift`.
    The prior is walked down by SDE-DPM-Solver++(2M), one network call a step and draw; draw k
    depends on (seed, k) alone.

    Args:
        prior: with its event shape known; no posterior.
        size: K. The draws near a state are what counts, so priors of many modes take many.
        steps: noise levels to go through.
        seed: of the draws.
        batch: draws taken through the network together, by default as many as 2^22 values.
    Attributes:
        levels: s, strictly decreasing, data units.
        spent: network calls of all draws so far, those of `PooledLift` among them.
    Raises:
        TypeError, ValueError: arguments of other kinds, or out of range.
    """

    def __init__(
        self,
        prior: Prior,
        size: int = 512,
        *,
        steps: int = 50,
        seed: int = 0,
        batch: int | None = None,
    ) -> None:
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a priors.Prior, got {type(prior).__name__}")
        if prior.unmeasured is not prior:
            raise TypeError("a pool is of the prior alone, got a posterior: pass its .prior")
        if prior.event_shape is None:
            raise ValueError("the prior takes images of any size: give it one by .resized(shape)")
        self.prior, self.size = prior, whole(size, "size", least=16)
        self.seed = check_seed(seed)
        fitting = max(1, 2**22 // event_size(prior.event_shape))
        self.batch = fitting if batch is None else whole(batch, "batch")
        self._walk = Multistep(geometric(whole(steps, "steps", least=2), prior.sigma_range))
        self._kept = halving(self._walk.levels.tolist())
        self.levels = [float(self._walk.levels[k]) for k in self._kept]
        self._states: Tensor | None = None
        self._made: tuple[tuple[Any, ...], dict[int, Any]] = ((), {})
        self.spent = 0

    def states(self, like: Tensor) -> Tensor:
        """(L, K, *event), the draws at each level; in the precision of the first `like`."""
        if self._states is None:
            rows = range(self.size)
            parts = [rows[i : i + self.batch] for i in range(0, self.size, self.batch)]
            self._states = torch.cat([self._drawn(part, like) for part in parts], 1)
            self.spent += self.size * (self._walk.network_calls or 0)
        return self._states.to(like)

    def below(self, sigma: float) -> list[int]:
        """The levels nearest below sigma / 2, / 4 and / 8, coarsest first, as far as there are."""
        found = [
            next((j for j, s in enumerate(self.levels) if s <= sigma / part), None)
            for part in (2, 4, 8)
        ]
        return list(dict.fromkeys(j for j in found if j is not None))

    def settings(self) -> list[Any]:
        """All that tells these draws from others, for `checkpoint.fingerprint`."""
        return [type(self).__name__, self.size, self.seed, self.levels]

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

    def _drawn(self, rows: range, like: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def keep(step: Step) -> None:
            if step.index in self._kept:
                seen.append(step.x.clone())

        self._walk(
            self.prior, len(rows), seed=self.seed, indices=[APART + k for k in rows], callback=keep,
            dtype=like.dtype, device=like.device,
        )  # fmt: skip
        return torch.stack(seen)

    def __repr__(self) -> str:
        return f"Pool({self.size} draws {tuple(self.prior.event_shape)}, {len(self.levels)} levels)"


def halving(levels: list[float]) -> list[int]:
    """Which of decreasing levels to keep: each at most half of the one kept before it."""
    kept, last = [], levels[0]
    for k, sigma in enumerate(levels):
        if 0 < sigma <= last / 2:
            kept.append(k)
            last = sigma
    return kept
