"""A walk of the prior alone, kept for all measurements to come."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from priors import Prior, geometric

from .checks import whole
from .likelihoods import Draws
from .randomness import check_seed
from .samplers import Multistep, Step

APART = 1 << 60
"""Added to a draw's number, so that its noise is not that of a sample of the same seed."""


@final
class Pool(Draws):
    """K draws of p_s at noise levels s a factor of two apart, made at the first use.

    They belong to the prior alone, and serve every forward model and measurement:
    `inverse.sample(posterior, n, method="tds", pool=pool)`, or `likelihoods.PooledLift`. The prior
    is walked down by SDE-DPM-Solver++(2M), one network call a step and draw; draw k depends on
    (seed, k) alone.

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
        super().__init__(prior, [], size, batch)
        self.seed = check_seed(seed)
        self._walk = Multistep(geometric(whole(steps, "steps", least=2), prior.sigma_range))
        levels = self._walk.levels.tolist()
        self._kept = halving(levels)
        self.levels = [levels[k] for k in self._kept]

    @property
    def network_calls(self) -> int:
        return self._walk.network_calls or 0

    def settings(self) -> list[Any]:
        """All that tells these draws from others, for `checkpoint.fingerprint`."""
        return [type(self).__name__, self.size, self.seed, self.levels]

    def _draw(self, rows: range, like: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def keep(step: Step) -> None:
            if step.index in self._kept:
                seen.append(step.x.clone())

        self._walk(
            self.prior, len(rows), seed=self.seed, indices=[APART + k for k in rows], callback=keep,
            dtype=like.dtype, device=like.device,
        )  # fmt: skip
        return torch.stack(seen)


def halving(levels: list[float]) -> list[int]:
    """Which of decreasing levels to keep: each at most half of the one kept before it."""
    kept, last = [], levels[0]
    for k, sigma in enumerate(levels):
        if 0 < sigma <= last / 2:
            kept.append(k)
            last = sigma
    return kept
