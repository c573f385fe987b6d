"""Whether a denoiser behaves as one: what must hold of D(x, sigma) = E[x0 | x] for any data.

    as sigma -> 0           D(x, sigma) -> x
    as sigma -> sigma_max   D does not follow the noise
    between                 E <x0 - D, D - m> = 0 for any m: what D leaves is no part of D

with x0 the denoiser's own samples by the probability-flow ODE: a network that was misnamed rarely
makes samples that it denoises as a conditional mean would.

Paper: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
2022, https://arxiv.org/abs/2211.01095 (the ODE's steps).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from .prior import Prior, event_size

_STEPS = 24
# Noise levels in half ranges, and what D's error may hold of D: exact denoisers stay within these
# bounds on samples of so few steps, whose variance is a little too large.
_LEVELS = {0.1: (-0.05, 0.07), 0.3: (-0.04, 0.15), 1.0: (-0.12, 1.0)}
# Published networks predict the noise of the last levels with errors of a per cent, which the
# denoiser multiplies by sigma: the largest level is looked at no further than this, in half ranges.
_FARTHEST = 40.0
CALLS = 1 + _STEPS + len(_LEVELS)
NOT_FINITE = "it gives values that are not finite"


@torch.no_grad()
def misfit(
    prior: Prior, data_range: tuple[float, float], generator: torch.Generator, device: torch.device
) -> str | None:
    """What in the prior's denoiser cannot be, or None; costs at most CALLS network calls."""
    half = (data_range[1] - data_range[0]) / 2
    centre = data_range[0] + half
    low, high = prior.sigma_range
    high = max(min(high, _FARTHEST * half), 2 * low)
    count = min(max(-(-1024 // event_size(prior.event_shape)), 2), 256)

    def noise() -> Tensor:
        return torch.randn(count, *prior.event_shape, generator=generator).to(device)

    eps = noise()
    x = centre + high * eps
    x0 = first = prior.denoise(x, high)
    if not bool(torch.isfinite(x0).all()):
        return NOT_FINITE
    follows = float((x0 * eps).mean() / eps.square().mean()) / half
    if abs(follows) > 0.25:
        return (
            f"at sigma = {high:.3g} it follows the noise, {follows:+.2g} half ranges for each eps"
        )
    ladder = torch.linspace(math.log(high), math.log(low), _STEPS + 1).exp().tolist()
    before = x0
    for above, sigma in pairwise(ladder):
        # DPM-Solver++'s second order, on levels of one ratio.
        x = sigma / above * x + (1 - sigma / above) * (x0 + (x0 - before) / 2)
        before, x0 = x0, prior.denoise(x, sigma)
    if not bool(torch.isfinite(x0).all()):
        return "its samples are not finite"
    change = float((x0 - x).square().mean().sqrt())
    if change > max(3 * low, 0.05 * half):
        return f"at sigma = {low:.3g} it changes x by {change:.2g}, which should tend to 0"
    outside = float(((x0 - centre).abs() > 1.1 * half).float().mean())
    if outside > 0.15:
        return f"{outside:.0%} of its samples' values lie outside data_range"
    mean = first.mean(0)
    if (spread := float((x0 - mean).square().mean().sqrt())) < 0.02 * half:
        return f"its samples are all alike, to {spread:.2g}"
    for level, (least, most) in _LEVELS.items():
        s = level * half
        if low <= s <= high:
            denoised = prior.denoise(x0 + s * noise(), s)
            part = float(((x0 - denoised) * (denoised - mean)).mean())
            left = part / float((denoised - mean).square().mean())
            if not least <= left <= most:
                return f"at sigma = {s:.3g} it is not calibrated: x0 - D holds {left:+.2g} D"
    return None
