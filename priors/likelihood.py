"""log p(x) of any prior, by the change of variables along its probability-flow ODE.

In noise-level coordinates the ODE is dx/dsigma = (x - D(x, sigma)) / sigma; with u = log sigma

    dx/du = x - D(x, sigma),      d log p / du = -(n - tr dD/dx),

so that log p(x at the smallest level) = log p(x at the largest) + the integral of n - tr dD/dx
over u, with n values in an event. In sigma itself an adaptive solver steps over the small levels
without noticing; in u it does not.

Papers: Song et al., "Score-Based Generative Modeling through SDEs", 2021,
https://arxiv.org/abs/2011.13456; Grathwohl et al., "FFJORD", 2019,
https://arxiv.org/abs/1810.01367; Dormand and Prince, "A family of embedded Runge-Kutta formulae",
1980, https://doi.org/10.1016/0771-050X(80)90013-3
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

# Dormand and Prince's coefficients: the last row of stages is the fifth-order step, and the last
# stage is the first of the next step.
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_TIMES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


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

    - integration: `tolerance` nats per value of x and step, each sample with its own steps;
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
        max_steps: of any one sample.
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
        change, end, rate = _integrate(prior, x.detach(), signs, low, high, tolerance, max_steps)
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


def _integrate(
    prior: Prior,
    x: Tensor,
    signs: Tensor | None,
    low: float,
    high: float,
    tolerance: float,
    max_steps: int,
) -> tuple[Tensor, Tensor, _Rate]:
    """From level low to high: the change (B, P), x there, and the rates there.

    Dormand-Prince 5(4), a step size for each sample, so that no sample depends on its neighbours.
    """
    size = event_size(tuple(x.shape[1:]))
    end = math.log(high)
    x = x.clone()
    u = torch.full((x.shape[0],), math.log(low), dtype=torch.float64, device=x.device)
    h = torch.full_like(u, 0.1)
    rate = _rate(prior, x, u, signs)
    change = torch.zeros_like(rate.change)
    active = torch.arange(x.shape[0], device=x.device)
    for _ in range(max_steps):
        step = torch.minimum(h[active], end - u[active])
        last = step >= end - u[active]
        probes = None if signs is None else signs[active]
        start, k = x[active], [_Rate(rate.x[active], rate.change[active])]
        position = start
        for stage, time in zip(_STAGES[1:], _TIMES[1:], strict=True):
            position = start + _column(step, start) * _combine(stage, [r.x for r in k])
            k.append(_rate(prior, position, u[active] + time * step, probes))
        delta = _column(step, change) * _combine(_STAGES[-1], [r.change for r in k])
        wrong_x = _column(step, start) * _combine(_ERROR, [r.x for r in k])
        wrong = _column(step, change) * _combine(_ERROR, [r.change for r in k])
        sigma = (u[active] + step).exp()
        allowed = tolerance * sigma + 8 * torch.finfo(x.dtype).eps * _rms(start)
        error = torch.maximum(
            _rms(wrong_x) / allowed, wrong.mean(-1).abs().double() / (tolerance * size)
        )
        good = error <= 1
        done = active[good]
        x[done], u[done] = position[good], torch.where(last, end, u[active] + step)[good]
        change[done] += delta[good]
        rate.x[done], rate.change[done] = k[-1].x[good], k[-1].change[good]
        h[active] = (step * (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)).clamp(
            max=_LONGEST
        )
        active = active[~(good & last)]
        if active.numel() == 0:
            return change, x, rate
        if bool((h[active] < _SHORTEST).any()):
            worst = active[h[active].argmin()]
            raise RuntimeError(
                f"the steps in log sigma shrank to nothing at sigma = {float(u[worst].exp()):.3g}; "
                "the denoiser is not smooth there at this dtype: try float64, a larger tolerance "
                "or a larger smallest noise level"
            )
    raise RuntimeError(
        f"{active.numel()} of {x.shape[0]} samples needed more than max_steps = {max_steps} steps, "
        f"the slowest is at sigma = {float(u.min().exp()):.3g}; give more, or a larger tolerance"
    )


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


def _combine(weights: tuple[float, ...], rates: list[Tensor]) -> Tensor:
    used = [w * k for w, k in zip(weights, rates, strict=False) if w]
    return torch.stack(used).sum(0)


def _column(step: Tensor, like: Tensor) -> Tensor:
    return step.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def _rms(values: Tensor) -> Tensor:
    """Root mean square of each sample, (B,), float64."""
    return values.reshape(values.shape[0], -1).double().square().mean(-1).sqrt()
