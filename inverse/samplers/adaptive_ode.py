"""The probability-flow ordinary differential equation, with steps as short as the error asks."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from priors import Prior

from ..checks import positive, whole
from .sampler import DivergenceError, Noise, Past, Sampler, rows_of

_LONGEST = 1.0
"""Of a step in log sigma: beyond, a solver could step over a level where the denoiser turns."""
_SHORTEST = 1e-7


@final
class AdaptiveODE(Sampler):
    """dx / dv = D(x, sigma) - x with v = -log sigma, by Dormand-Prince's 5(4) pair; deterministic.

    From the largest level to the smallest, then the denoised image. A step is taken if for every
    sample the root mean square of its error is at most

        atol + rtol rms(x),

    so a batch shares its steps and each sample is at least as accurate as alone: a sample depends
    on its batch mates, by no more than its own error. In log sigma, as in sigma itself
    a solver steps over the small levels without noticing. Order 5 in the steps, which shrink like
    rtol^(1/5). 6 network calls for each step tried and 2 more: about 100 in all at the default
    tolerances. A run goes on after an interruption from the smallest level only.

    Args:
        sigma_range: (smallest, largest) noise levels, data units; the prior's, as a rule.
        rtol, atol: the errors allowed at each step; atol in data units.
        max_steps: tried at most, those refused included.
    Raises:
        ValueError: arguments out of range. When run, DivergenceError: a denoiser that is not
        finite or not smooth, or too few steps.

    Papers: Song et al., "Score-Based Generative Modeling through SDEs", 2021,
    https://arxiv.org/abs/2011.13456; Dormand and Prince, "A family of embedded Runge-Kutta
    formulae", 1980, https://doi.org/10.1016/0771-050X(80)90013-3
    """

    order = 5
    adaptive = True

    def __init__(
        self,
        sigma_range: tuple[float, float],
        rtol: float = 1e-3,
        atol: float = 1e-4,
        max_steps: int = 1000,
    ) -> None:
        low, high = map(float, sigma_range)
        if not 0 < low < high < math.inf:
            raise ValueError(
                f"sigma_range must be (low, high) with 0 < low < high, got {sigma_range}"
            )
        super().__init__([high, low, 0.0])
        self.rtol, self.atol = positive(rtol, "rtol"), positive(atol, "atol")
        self.max_steps = whole(max_steps, "max_steps")
        self._spent: int | None = None
        self._taken = 2

    @property
    def network_calls(self) -> int | None:
        """Network calls of the last run; None before one."""
        return self._spent

    @property
    def taken(self) -> int:
        return self._taken

    def _begin(self, n: int) -> None:
        self._spent, self._taken = 0, 1

    def _step(
        self,
        prior: Prior,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        eps: Noise,
        past: Past,
    ) -> tuple[Tensor, Tensor]:
        if sigma_next == 0:
            x0, calls = prior.denoise(x, sigma), 1
            x = x0
        else:
            flow = _Flow(prior, self.rtol, self.atol, self.max_steps)
            x = _integrate(flow, x, -math.log(sigma), -math.log(sigma_next))
            x0, calls = flow.x0, flow.calls
            self._taken += flow.steps
        self._spent = (self._spent or 0) + calls
        return x, x0


class _Flow:
    """dx/dv, what it costs, and the errors allowed along it."""

    x0: Tensor

    def __init__(self, prior: Prior, rtol: float, atol: float, max_steps: int) -> None:
        self.prior, self.rtol, self.atol, self.max_steps = prior, rtol, atol, max_steps
        self.steps = self.calls = 0

    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        sigma = math.exp(-float(v))
        self.x0 = self.prior.denoise(x, sigma)
        self.calls += 1
        bad = ~self.x0.isfinite().reshape(len(x), -1).all(1)
        if bool(bad.any()):
            raise DivergenceError(
                f"the denoised image is not finite at sigma = {sigma:.4g}, {rows_of(bad)}; is "
                "sigma_range what the prior has learned? Try smaller tolerances, or another sampler"
            )
        return self.x0 - x

    def callback_step(self, v: Tensor, x: Tensor, step: Tensor) -> None:
        """Called by torchdiffeq before each step from v."""
        sigma = math.exp(-float(v))
        if self.steps == self.max_steps:
            raise DivergenceError(
                f"more than max_steps = {self.max_steps} steps are needed, the last is at sigma = "
                f"{sigma:.3g}; give more, or larger tolerances"
            )
        if float(step) < _SHORTEST:
            raise DivergenceError(
                f"the steps in log sigma shrank to nothing at sigma = {sigma:.3g}; the denoiser is "
                "not smooth there at this dtype: try float64, larger tolerances or a larger "
                "smallest noise level"
            )
        self.steps += 1
        rounding = 8 * torch.finfo(x.dtype).eps
        self.allowed = self.atol + max(self.rtol, rounding) * _rms(x)

    def error(self, wrong: Tensor) -> Tensor:
        """The step's error in shares of what is allowed, for the worst sample of the batch."""
        return (_rms(wrong) / self.allowed).max()


def _integrate(flow: _Flow, x: Tensor, start: float, end: float) -> Tensor:
    """x at v = end, from x at v = start."""
    from torchdiffeq import odeint

    times = torch.tensor([start, end], dtype=torch.float64, device=x.device)
    options = {
        "norm": flow.error,
        "first_step": min(0.1, end - start),
        "max_step": _LONGEST,
        "step_t": times[1:],  # no call below the smallest level
    }
    # The norm receives the errors themselves, and knows what is allowed.
    path: Tensor = odeint(flow, x, times, rtol=0.0, atol=1.0, method="dopri5", options=options)
    return path[-1]


def _rms(values: Tensor) -> Tensor:
    """Root mean square of each sample, (B,), float64."""
    return values.reshape(values.shape[0], -1).double().square().mean(-1).sqrt()
