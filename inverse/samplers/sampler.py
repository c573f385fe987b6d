"""The frame of all samplers: walk a Prior, and nothing else, down a grid of noise levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from priors import Prior

from ..randomness import NoiseStream


class DivergenceError(FloatingPointError):
    """A run that left the finite numbers; the message says at which step and what to try."""


@dataclass(frozen=True)
class Step:
    """What a callback sees after each step.

    Attributes:
        index, total: steps done, and steps in all.
        sigma: the noise level that x now has.
        x: (B, *event) the state; x0: the denoised state the step was made from.
    """

    index: int
    total: int
    sigma: float
    x: Tensor
    x0: Tensor


Callback = Callable[[Step], None]


class Sampler(ABC):
    """Turns noise into samples of a prior (a posterior is one) along decreasing noise levels.

    Args:
        levels: (N + 1,) strictly decreasing noise levels in data units; a last level of 0 ends at
            a clean image, a positive one at a sample of p_sigma.
    """

    order: int
    """Power of the step size with which the law of the samples approaches the exact one."""

    uses_history: bool = False
    """Whether a step looks back at the denoised image of the step before."""

    stationary: bool = False
    """Whether it settles at each noise level, as Langevin steps do, before it goes to the next."""

    def __init__(self, levels: Tensor | Sequence[float]) -> None:
        self.levels = check_levels(levels)

    @property
    def path(self) -> Tensor:
        """(S + 1,) the noise level before each step and after the last; it may stay at one."""
        return self.levels

    @property
    def network_calls(self) -> int:
        """Network calls of one run, whatever the number of samples in its batch."""
        return len(self.path) - 1

    def settings(self) -> list[Any]:
        """All that tells this sampler from others, for `checkpoint.fingerprint`."""
        known = sorted(vars(self).items())
        inner = [(k, v.settings() if isinstance(v, Sampler) else v) for k, v in known]
        return [type(self).__name__, inner]

    @torch.no_grad()
    def __call__(
        self,
        prior: Prior,
        n: int = 1,
        *,
        seed: int = 0,
        start: Tensor | None = None,
        indices: Sequence[int] | None = None,
        first_step: int = 0,
        history: Tensor | None = None,
        noise: NoiseStream | None = None,
        callback: Callback | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw n samples, (n, *event).

        Args:
            prior: anything with `denoise`.
            n: how many samples; taken from `start` where given.
            seed, indices: sample j follows the stream (seed, indices[j]); by default 0 ... n - 1.
            start: (n, *event) state at path[first_step]; by default drawn from the prior at
                the first level.
            first_step, history: to go on from a state: steps already done, and the denoised x0
                of the last of them.
            noise: another source of noise, with `normal(step)`.
            callback: called after every step with a `Step`.
        Raises:
            DivergenceError: values that are not finite, or larger than a million times the scale.
        """
        if start is not None:
            prior.check_input(start)
            n, dtype, device = start.shape[0], start.dtype, start.device
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        indices = range(n) if indices is None else indices
        if len(indices) != n:
            raise ValueError(f"{n} samples need {n} indices, got {len(indices)}")
        noise = noise or NoiseStream(seed, indices, prior.event_shape, dtype, device)
        path = self.path.tolist()
        x = prior.initial(noise.normal(0), path[0]) if start is None else start
        bound = 1e6 * max(path[0], float(x.abs().max()))
        total = len(path) - 1
        for k in range(first_step, total):
            sigma, sigma_next = path[k], path[k + 1]
            before = None if history is None else (path[k - 1], history)
            eps = partial(noise.normal, k + 1)
            x, x0 = self._step(prior, x, sigma, sigma_next, eps, before)
            history = x0
            self._check(x, k, sigma_next, bound)
            if callback is not None:
                callback(Step(k + 1, total, sigma_next, x, x0))
        return x

    @abstractmethod
    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Callable[[], Tensor],
        before: tuple[float, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """x at sigma -> (x at sigma_next, the denoised x0).

        eps() draws this step's unit noise; `before` is the level and the denoised x0 of the step
        before, for multistep methods.
        """

    def _check(self, x: Tensor, k: int, sigma: float, bound: float) -> None:
        bad = ~(x.abs().reshape(len(x), -1).amax(1) < bound)  # also true where not a number
        if bool(bad.any()):
            raise DivergenceError(
                f"the run diverged at step {k + 1}/{len(self.path) - 1}, sigma = {sigma:.4g}, "
                f"samples {bad.nonzero().flatten().tolist()} of the batch; try more steps, a "
                "larger measurement sigma, or another method"
            )


def check_levels(levels: Tensor | Sequence[float]) -> Tensor:
    """Noise levels as float64 on the CPU; refused unless they strictly decrease to one >= 0."""
    grid = torch.as_tensor(levels, dtype=torch.float64).cpu()
    if grid.ndim != 1 or len(grid) < 2 or not bool(torch.isfinite(grid).all()):
        raise ValueError(f"levels must be a list of at least 2 finite noise levels, got {grid}")
    if bool((grid[1:] >= grid[:-1]).any()) or float(grid[-1]) < 0:
        raise ValueError(f"levels must strictly decrease to a last one >= 0, got {grid}")
    return grid
