"""Particles down to the level where the noise absorbs the measurement, and the prior below it."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import positive, whole
from ..posterior import Posterior
from ..samplers.langevin import langevin_step
from .particle_method import ParticleMethod, State
from .transition import nothing_before, remember, reverse_process, step
from .walk import Walk


@final
class AbsorbingParticles(ParticleMethod):
    """A particle method's steps, Langevin steps at one level, then steps of the prior alone.

    What `samplers.Absorbing` is for samplers, for methods whose weights are not those of a twist
    (`absorbs` is false): under `Absorbed` likelihoods, at the first level at or below their
    threshold sigma*, M Langevin steps draw from p_sigma(x) h_sigma(y | x), which steps of the
    prior carry to the posterior, unguided and unweighted. Langevin steps mend the shape within
    each mode; the shares of modes far apart, and the weights, stay those of the method.

    Network calls of the method above sigma*, M, and one for each level from there.

    Args:
        method: the method above sigma*.
        threshold: sigma*, data units.
        corrections: M.
        relative_step: a / sigma^2, in (0, 1), see `samplers.Absorbing`.
    Raises:
        TypeError, ValueError: arguments of other kinds, or out of range.

    Paper: Bruna and Han, "Provable Posterior Sampling with Denoising Oracles via Tilted
    Transport", 2024, https://arxiv.org/abs/2407.00745
    """

    absorbs = True

    def __init__(
        self,
        method: ParticleMethod,
        threshold: float,
        corrections: int = 10,
        relative_step: float = 0.5,
    ) -> None:
        if not isinstance(method, ParticleMethod):
            raise TypeError(f"method must be a ParticleMethod, got {type(method).__name__}")
        super().__init__(method.levels, method.resample_below)
        self.method, self.threshold = method, positive(threshold, "threshold")
        self.corrections = whole(corrections, "corrections")
        self.relative_step = positive(relative_step, "relative_step")
        if relative_step >= 1:
            raise ValueError(f"relative_step must be below 1, got {relative_step}")
        # The first level that absorbs y; the last one, 0, if none does.
        self._held = int((self.levels > self.threshold).sum())

    @property
    def path(self) -> Tensor:
        if self._never:
            return self.levels
        held = self.levels[self._held].repeat(self.corrections)
        return torch.cat([self.levels[: self._held + 1], held, self.levels[self._held + 1 :]])

    @property
    def _never(self) -> bool:
        return self._held >= len(self.levels) - 1

    def calls_before(self, k: int) -> int:
        above = self.method.calls_before(min(k, self._held))
        return above if self._never else above + max(k - self._held, 0)

    def _refusal(self, posterior: Posterior, count: int) -> str | None:
        return self.method.refusal(posterior, count)

    def _start(self, walk: Walk, x: Tensor, sigma: float) -> State:
        return self.method._start(walk, x, sigma)

    def _step(self, walk: Walk, state: State, k: int, z: Tensor) -> State:
        if k < self._held or self._never:
            return self.method._step(walk, state, k, z)
        x, sigma = state["x"], float(self.levels[self._held])
        a = self.relative_step * sigma**2
        if k < self._held + self.corrections:
            ahead = x + math.sqrt(a / 2) * z
            seen = walk.look(ahead, sigma)
            return {"x": langevin_step(x, (seen.x0 + seen.shift - ahead) / sigma**2, a, z),
                    "x0": seen.x0}  # fmt: skip
        reverse = reverse_process(self.levels[self._held :], eta=1.0, order=2)
        below = k - self._held - self.corrections
        before = state["before"]
        if below == 0:
            x = x + math.sqrt(a / 2) * walk.noise(1, k + 1, tuple(x.shape[1:]))
            before = nothing_before(reverse, x)
        x0 = walk.denoise(x, float(reverse.levels[below]))
        mean, c, _ = step(reverse, below, x, x0, before)
        return {"x": mean + c * z, "x0": x0, "before": remember(x0, before)}
