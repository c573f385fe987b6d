"""log p(x) of any prior, by the change of variables along its probability-flow ODE.

In noise-level coordinates the ODE is dx/dsigma = (x - D(x, sigma)) / sigma; with u = log sigma

    dx/du = x - D(x, sigma),      d log p / du = -(n - tr dD/dx),

so that log p(x at the smallest level) = log p(x at the largest) + the integral of n - tr dD/dx
over u, with n values in an event. In sigma itself an adaptive solver steps over the small levels
without noticing; in u it does not.

Papers: Song et al., "Score-Based Generative Modeling through SDEs", 2021,
https://arxiv.org/abs/2011.13456; Grathwohl et al., "FFJORD", 2019,
https://arxiv.org/abs/1810.01367
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from .prior import Prior, event_size

EXACT_TRACE_SIZE = 64
_LONGEST = 0.5
_SHORTEST = 1e-7


class _Rate(NamedTuple):
    """The time derivative of x (B, *event) and of the log density's change (B, P)."""

    x: Tensor
    change: Tensor


@overload
def log_prob(
    prior: Prior,
    x: Tensor,
    *,
    method: str = ...,
    exact_trace: bool | None = ...,
    probes: int = ...,
    tolerance: float = ...,
    sigma_range: tuple[float, float] | None = ...,
    seed: int = ...,
    max_steps: int = ...,
    return_error: Literal[False] = ...,
) -> Tensor: ...


@overload
def log_prob(
    prior: Prior,
    x: Tensor,
    *,
    method: str = ...,
    exact_trace: bool | None = ...,
    probes: int = ...,
    tolerance: float = ...,
    sigma_range: tuple[float, float] | None = ...,
    seed: int = ...,
    max_steps: int = ...,
    return_error: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def log_prob(
    prior: Prior,
    x: Tensor,
    *,
    method: str = "auto",
    exact_trace: bool | None = None,
    probes: int = 16,
    tolerance: float = 1e-4,
    sigma_range: tuple[float, float] | None = None,
    seed: int = 0,
    max_steps: int = 1000,
    return_error: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """log p(x) in nats, (B,), for any prior.

    Where the prior knows its density (`log_density`), that is what is returned, at sigma = 0.
    Otherwise the ODE gives the density at the smallest noise level of `sigma_range`, which differs
    from that of clean images by O(n (sigma / scale)^2) where they have one. Three errors remain:

    - integration, Dormand-Prince's 5(4) pair of torchdiffeq: `tolerance` nats per value of x and
      step, by the worst sample. A batch shares its steps, so that a sample's density depends on
      its company, by no more than that; none is less accurate than alone;
    - trace: none where exact, else the returned standard error over the probes;
    - the largest level, where p is taken as Gaussian with the mean of the prior, the score of the
      denoiser and determinant (sigma^2 + s^2)^n, s^2 from the trace: about n Var(c_i) / sigma^4
      / 4 nats for variances c_i, and as much again for skewness, O((scale / sigma)^3).

    Args:
        prior: any Prior.
        x: (B, *event), data units.
        method: "exact", by `log_density`; "ode"; or "auto", exact where the prior can.
        exact_trace: True takes tr dD/dx by n covariance products a call of the denoiser; False
            estimates it by Hutchinson's method; None is True up to 64 values.
        probes: random signs for the estimate, at least 2; drawn once for each sample.
        tolerance: see above.
        sigma_range: noise levels (smallest, largest); the prior's by default.
        seed: of the random signs; sample i gets the same ones in any larger batch.
        max_steps: of the batch, refused ones included.
        return_error: also return the standard error (B,) of the trace's estimate.

    Costs 6 denoiser calls a step, each with n (or `probes`) covariance products; about 30 steps.
    Not differentiable.

    Raises:
        ValueError: an unknown method, or settings out of range. TypeError: "exact" for a prior
            without `log_density`. RuntimeError: the denoiser gives NaN, or steps run out.
    """
    prior.check_input(x)
    if method not in ("auto", "exact", "ode"):
        raise ValueError(f"unknown method {method!r}; known: auto, exact, ode")
    density = getattr(prior, "log_density", None)
    if method == "exact" and density is None:
        raise TypeError(f"{type(prior).__name__} has no log_density; use method='ode'")
    if method != "ode" and density is not None:
        log_p = density(x)
        return (log_p, torch.zeros_like(log_p)) if return_error else log_p

    low, high = map(float, sigma_range or prior.sigma_range)
    if not 0 < low < high < math.inf:
        raise ValueError(f"sigma_range must be (low, high) with 0 < low < high, got {(low, high)}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")
    if exact_trace is None:
        exact_trace = event_size(tuple(x.shape[1:])) <= EXACT_TRACE_SIZE
    if not exact_trace and probes < 2:
        raise ValueError(f"probes must be at least 2, to know their error; got {probes}")
    signs = None if exact_trace else _signs(x, probes, seed)
    with torch.no_grad():
        end, change = _integrate(
            _Flow(prior, signs, tolerance, max_steps), x.detach(), math.log(low), math.log(high)
        )
        rate = _rate(prior, end, torch.tensor(math.log(high)), signs)
        log_p = change + _boundary(prior, end, rate, high)
    error = torch.zeros_like(log_p[:, 0])
    if signs is not None:
        error = log_p.std(-1) / math.sqrt(probes)
    return (log_p.mean(-1), error) if return_error else log_p.mean(-1)


def _signs(x: Tensor, probes: int, seed: int) -> Tensor:
    """Random signs (B, P, *event), row by row: those of sample i do not depend on later ones."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, 2, (probes, *x.shape[1:]), generator=generator) for _ in x]
    return (2 * torch.stack(rows) - 1).to(x)


def _rate(prior: Prior, x: Tensor, u: Tensor, signs: Tensor | None) -> _Rate:
    """x - D and n - tr dD/dx, the trace exact or once for each probe."""
    sigma = u.exp().to(x.dtype)
    x0, product = prior.covariance(x, sigma)
    size = event_size(tuple(x.shape[1:]))
    if signs is None:
        trace = torch.zeros_like(x.reshape(x.shape[0], -1)[:, 0])
        for i in range(size):
            unit = torch.zeros_like(x).reshape(x.shape[0], size)
            unit[:, i] = 1
            trace = trace + product(unit.reshape(x.shape)).reshape(x.shape[0], size)[:, i]
        traces = trace.unsqueeze(-1)
    else:
        traces = torch.stack(
            [(v * product(v)).reshape(x.shape[0], -1).sum(-1) for v in signs.unbind(1)], -1
        )
    rate = _Rate((x - x0).detach(), size - traces.detach() / sigma.unsqueeze(-1) ** 2)
    finite = bool(torch.isfinite(rate.x).all()) and bool(torch.isfinite(rate.change).all())
    if not finite:
        raise RuntimeError(
            f"the denoiser or its derivative is not finite at a noise level in "
            f"[{float(sigma.min()):.3g}, {float(sigma.max()):.3g}]; is sigma_range what the prior "
            "has learned?"
        )
    return rate


class _Flow:
    """The ODE of (x, change of log p) in u = log sigma, and the errors allowed along it."""

    def __init__(
        self, prior: Prior, signs: Tensor | None, tolerance: float, max_steps: int
    ) -> None:
        self.prior, self.signs = prior, signs
        self.tolerance, self.max_steps, self.steps = tolerance, max_steps, 0

    def __call__(self, u: Tensor, state: tuple[Tensor, Tensor]) -> _Rate:
        return _rate(self.prior, state[0], u, self.signs)

    def callback_step(self, u: Tensor, state: tuple[Tensor, Tensor], step: Tensor) -> None:
        """Called by torchdiffeq before each step from u."""
        sigma, x = float((u + step).exp()), state[0]
        if self.steps == self.max_steps:
            raise RuntimeError(
                f"more than max_steps = {self.max_steps} steps are needed, the last is at sigma = "
                f"{float(u.exp()):.3g}; give more, or a larger tolerance"
            )
        if float(step) < _SHORTEST:
            raise RuntimeError(
                f"the steps in log sigma shrank to nothing at sigma = {float(u.exp()):.3g}; "
                "the denoiser is not smooth there at this dtype: try float64, a larger tolerance "
                "or a larger smallest noise level"
            )
        self.steps += 1
        self.allowed = self.tolerance * sigma + 8 * torch.finfo(x.dtype).eps * _rms(x)

    def error(self, wrong: tuple[Tensor, Tensor]) -> Tensor:
        """The step's error in shares of what is allowed, for the worst sample of the batch."""
        x, change = wrong
        size = event_size(tuple(x.shape[1:]))
        nats = change.mean(-1).abs().double() / (self.tolerance * size)
        return torch.maximum(_rms(x) / self.allowed, nats).max()


def _integrate(flow: _Flow, x: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
    """x and the change (B, P) of log p at u = end, from 0 at u = start."""
    from torchdiffeq import odeint

    probes = 1 if flow.signs is None else flow.signs.shape[1]
    times = torch.tensor([start, end], dtype=torch.float64, device=x.device)
    options = {
        "norm": flow.error,
        "first_step": min(0.1, end - start),
        "max_step": _LONGEST,
        "step_t": times[1:],  # no call beyond the largest level
    }
    state = (x, x.new_zeros(x.shape[0], probes))
    # The norm receives the errors themselves, and knows what is allowed.
    path, change = odeint(flow, state, times, rtol=0.0, atol=1.0, method="dopri5", options=options)
    return path[-1], change[-1]


def _boundary(prior: Prior, x: Tensor, rate: _Rate, sigma: float) -> Tensor:
    """log p at the largest level, (B, 1): Gaussian there, in the denoiser's own terms."""
    size = event_size(tuple(x.shape[1:]))
    low, high = prior.data_range or (0.0, 0.0)
    mean = torch.full_like(x[:1], (low + high) / 2)
    # D(., sigma) contracts by (scale / sigma)^2 towards the prior's mean.
    for _ in range(2):
        mean = prior.denoise(mean, sigma)
    score = -rate.x / sigma**2
    quadratic = (score * (x - mean)).reshape(x.shape[0], -1).sum(-1, keepdim=True) / 2
    # tr dD/dx / n = s^2 / (s^2 + sigma^2), and rate.change is n minus the trace.
    share = 1 - rate.change.mean(-1, keepdim=True) / size
    if bool((share >= 0.5).any()):
        raise ValueError(
            f"sigma_range ends at {sigma:.3g}, where the data still matter; give a larger level"
        )
    return quadratic - size * (math.log(2 * math.pi * sigma**2) - (1 - share).log()) / 2


def _rms(values: Tensor) -> Tensor:
    """Root mean square of each sample, (B,), float64."""
    return values.reshape(values.shape[0], -1).double().square().mean(-1).sqrt()


def bits_per_dim(
    log_p: Tensor,
    prior: Prior,
    *,
    levels: int = 256,
    event_shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Bits for each value of an image stored in `levels` levels, from log p(x) in nats, (B,).

        -(log p / n + log(width / levels)) / log 2,   width = high - low of the prior's data range

    A cell of the levels' grid has the probability p(x) (width / levels)^n: the figure compares
    with those of models of discrete images where x = low + width (k + u) / levels for the stored
    value k and u uniform in [0, 1), and then bounds theirs from above on average over u.

    Args:
        log_p: what `log_prob` or a prior's `log_density` gives, in data units.
        prior: whose data range and event shape count.
        levels: how many values a pixel of the stored images has.
        event_shape: of one image, where the prior takes several; its own by default.

    Raises:
        ValueError: a prior without a data range, or fewer than 2 levels.

    Paper: Theis et al., "A note on the evaluation of generative models", 2016,
    https://arxiv.org/abs/1511.01844
    """
    if prior.data_range is None:
        raise ValueError("bits per dimension need the width of the data: give the prior data_range")
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        raise ValueError(f"levels must be an integer >= 2, got {levels!r}")
    low, high = prior.data_range
    size = event_size(prior.event_shape if event_shape is None else event_shape)
    return -(log_p / size + math.log((high - low) / levels)) / math.log(2)
