"""The frame of all variational methods: each sample is optimised, with fresh noise a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..posterior import Posterior
from ..randomness import NoiseStream
from ..samplers import Callback, DivergenceError, Step
from .misfit import Misfit
from .optimisers import Optimiser, State


@dataclass(frozen=True)
class Look:
    """What one evaluation says of theta.

    Attributes:
        loss: (B,), as far as the optimiser compares losses.
        gradient: (B, *event) what the optimiser descends along.
        x: (B, *event) the image that theta stands for; None where it is theta itself.
    """

    loss: Tensor
    gradient: Tensor
    x: Tensor | None = None


class VariationalMethod(ABC):
    """theta is optimised, one evaluation a step; its image is the sample.

    Samples are point estimates: they differ by the noise of their start and steps alone, so their
    spread says nothing of the posterior's. Samples are independent, and follow (seed, index).

    Attributes:
        levels: noise levels at which the prior is seen.
        optimiser: how theta moves.
    """

    levels: Tensor
    optimiser: Optimiser

    @property
    @abstractmethod
    def path(self) -> Tensor:
        """(S + 1,) the noise level of each of the S steps, and of the image they end with."""

    @property
    @abstractmethod
    def network_calls(self) -> int:
        """Network calls of one run, whatever the number of samples in its batch."""

    def settings(self) -> list[Any]:
        """All that tells this method from others, for `checkpoint.fingerprint`."""
        known = [(k, v) for k, v in sorted(vars(self).items()) if k != "optimiser"]
        return [type(self).__name__, repr(self.optimiser), known]

    @torch.no_grad()
    def __call__(
        self,
        posterior: Posterior,
        n: int = 1,
        *,
        seed: int = 0,
        indices: Sequence[int] | None = None,
        state: State | None = None,
        first_step: int = 0,
        callback: Callback | None = None,
        keep: Callable[[int, State], None] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """n optimised images, (n, *event).

        Args:
            posterior: with one y for all n, or a row for each.
            seed, indices: sample j follows the stream (seed, indices[j]); by default 0 ... n - 1.
            state, first_step: to go on from a state that `keep` was given.
            callback: called after every step with a `Step`; keep: with (steps done, state).
        Raises:
            ValueError: n < 1, or indices that do not fit. DivergenceError: values that are not
            finite, or larger than a million times the scale.
        """
        indices = range(n) if indices is None else indices
        if n < 1 or len(indices) != n:
            raise ValueError(f"n must be at least 1 with as many indices, got {n}, {len(indices)}")
        noise = NoiseStream(seed, indices, posterior.event_shape, dtype, device)
        eps = noise.normal(0)
        misfit = Misfit(posterior, eps)
        path = self.path.tolist()
        total = len(path) - 1
        if state is None:
            theta = self._start(misfit, eps)
            state = {"x": misfit.centre, **self.optimiser.start(theta)}
        bound = 1e6 * max(float(self.levels[0]), float(misfit.centre.abs().max()))
        for k in range(first_step, total):
            look = self._look(misfit, state["theta"], k, noise.normal(k + 1))
            changed, taken = self.optimiser.step(state, k, look.loss, look.gradient)
            kept = taken.reshape(-1, *[1] * (eps.ndim - 1))
            x = changed["theta"] if look.x is None else torch.where(kept, look.x, state["x"])
            state = {"x": x, **changed}
            self._check(state, k, path[k], bound)
            if keep is not None:
                keep(k + 1, state)
            if callback is not None:
                callback(Step(k + 1, total, path[k + 1], x, x))
        return state["x"]

    @abstractmethod
    def _start(self, misfit: Misfit, eps: Tensor) -> Tensor:
        """theta (B, *event) before the first step, with unit noise eps."""

    @abstractmethod
    def _look(self, misfit: Misfit, theta: Tensor, k: int, eps: Tensor) -> Look:
        """Step k's evaluation at theta, with unit noise eps (B, *event)."""

    def _check(self, state: State, k: int, sigma: float, bound: float) -> None:
        flat = state["x"].abs().reshape(len(state["x"]), -1).amax(1)
        bad = ~(flat < bound) | ~state["theta"].isfinite().reshape(len(flat), -1).all(1)
        if bool(bad.any()):
            raise DivergenceError(
                f"the run diverged at step {k + 1}/{len(self.path) - 1}, sigma = {sigma:.4g}, "
                f"samples {bad.nonzero().flatten().tolist()} of the batch; try a smaller rate, or "
                "another method"
            )
