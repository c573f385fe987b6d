"""The frame of all samplers: walk a Prior, and nothing else, down a grid of noise levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from priors import Prior, Schedule

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
        history: with x and index all that a run needs to go on from here.
    """

    index: int
    total: int
    sigma: float
    x: Tensor
    x0: Tensor
    history: tuple[Tensor, ...] = ()


class Transition(NamedTuple):
    """p(x' | x) = N(x'; mean, c^2 I), the law of a step.

    Attributes:
        mean: (B, *event).
        c: standard deviation of the fresh noise; 0 for the step to level 0.
        pull: how far the mean moves where guidance moves the denoised images by 1.
    """

    mean: Tensor
    c: float
    pull: float


Callback = Callable[[Step], None]

Past = tuple[tuple[float, Tensor], ...]
"""(level, denoised image) of the steps before, the latest first."""

Noise = Callable[..., Tensor]
"""eps() draws a step's unit noise (B, *event); eps(1) is a second draw, for `draws` = 2, and
eps(1, shape) one of another shape (B, *shape), apart from all others."""


class Sampler(ABC):
    """Turns noise into samples of a prior (a posterior is one) along decreasing noise levels.

    Args:
        levels: (N + 1,) strictly decreasing noise levels in data units; a last level of 0 ends at
            a clean image, a positive one at a sample of p_sigma.
    """

    order: int
    """Power of the step size with which the law of the samples approaches the exact one."""

    memory: int = 0
    """How many denoised images of the steps before a step looks back at."""

    draws: int = 1
    """How many unit noises a step may draw."""

    stationary: bool = False
    """Whether it settles at each noise level, as Langevin steps do, before it goes to the next."""

    adaptive: bool = False
    """Whether it chooses its steps itself, so that its network calls are known after a run."""

    splits: bool = False
    """Whether it takes a posterior apart, instead of walking it as it walks any prior."""

    def __init__(self, levels: Tensor | Sequence[float]) -> None:
        self.levels = check_levels(levels)

    @property
    def path(self) -> Tensor:
        """(S + 1,) the noise level before each step and after the last; it may stay, or rise."""
        return self.levels

    @property
    def network_calls(self) -> int | None:
        """Network calls of one run, whatever the number of samples in its batch; those of the
        last run, None before one, where only a run can tell (`adaptive`)."""
        return sum(self._calls(a, b) for a, b in pairwise(self.path.tolist()))

    @property
    def taken(self) -> int:
        """Steps of one run; of the last one, where the sampler chooses them itself."""
        return len(self.path) - 1

    def settings(self) -> list[Any]:
        """All that tells this sampler from others, for `checkpoint.fingerprint`."""
        known = sorted((k, v) for k, v in vars(self).items() if not k.startswith("_"))
        return [type(self).__name__, [(name, setting(value)) for name, value in known]]

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
        history: tuple[Tensor, ...] = (),
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
            first_step, history: to go on from a state: steps already done, and the `history` of
                the last of them.
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
        self._begin(n)
        for k in range(first_step, total):
            sigma, sigma_next = path[k], path[k + 1]
            past = tuple(zip(reversed(path[:k]), history, strict=False))
            eps = partial(_draw, noise, 1 + self.draws * k)
            x, x0 = self._step(prior, x, sigma, sigma_next, eps, past)
            history = (x0, *history)[: self.memory]
            self._check(x, k, sigma_next, bound, prior.unmeasured is not prior)
            if callback is not None:
                callback(Step(k + 1, total, sigma_next, x, x0, history))
        return x

    @abstractmethod
    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        """x at sigma -> (x at sigma_next, the denoised x0).

        eps() draws this step's unit noise; `past` holds up to `memory` steps before this one.
        """

    def transition(
        self, x: Tensor, x0: Tensor, sigma: float, sigma_next: float, past: Past
    ) -> Transition | None:
        """The law of the step of x with x0 = D(x): what particles take for the prior's reverse
        process. None unless it is Gaussian with one network call."""
        return None

    def _calls(self, sigma: float, sigma_next: float) -> int:
        """Network calls of the step from sigma to sigma_next."""
        return 1

    def _begin(self, n: int) -> None:  # noqa: B027
        """Called before the first step of a run of n samples, for samplers that keep a record."""

    def _check(self, x: Tensor, k: int, sigma: float, bound: float, measured: bool) -> None:
        bad = ~(x.abs().reshape(len(x), -1).amax(1) < bound)  # also true where not a number
        if bool(bad.any()):
            advice = "more steps, a larger measurement sigma," if measured else "more steps"
            raise DivergenceError(
                f"the run diverged at step {k + 1}/{len(self.path) - 1}, sigma = {sigma:.4g}, "
                f"{rows_of(bad)}; try {advice} or another {'method' if measured else 'sampler'}"
            )


def rows_of(bad: Tensor, most: int = 8) -> str:
    """Which samples of a batch (B,) are bad, the first of them by number."""
    rows = bad.nonzero().flatten().tolist()
    rest = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"samples {rows[:most]}{rest} of the batch"


def check_levels(levels: Tensor | Sequence[float]) -> Tensor:
    """Noise levels as float64 on the CPU; refused unless they strictly decrease to one >= 0."""
    try:
        grid = torch.as_tensor(levels, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"levels must be a list of noise levels, got {levels!r}; priors.grid(name, steps, "
            "prior) makes one"
        ) from None
    if grid.ndim != 1 or len(grid) < 2 or not bool(torch.isfinite(grid).all()):
        raise ValueError(f"levels must be a list of at least 2 finite noise levels, got {grid}")
    if bool((grid[1:] >= grid[:-1]).any()) or float(grid[-1]) < 0:
        raise ValueError(f"levels must strictly decrease to a last one >= 0, got {grid}")
    return grid


def _draw(
    noise: NoiseStream, first: int, which: int = 0, shape: tuple[int, ...] | None = None
) -> Tensor:
    return (noise if shape is None else noise.beside(1, shape)).normal(first + which)


def setting(value: Any) -> Any:
    """An argument of a sampler, as `settings` lists it."""
    if hasattr(value, "settings"):
        return value.settings()
    if isinstance(value, Schedule):
        return [type(value).__name__, sorted(vars(value).items())]
    return value
