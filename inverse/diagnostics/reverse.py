"""Draws from p(x_s | x_t), s < t: the prior's own reverse process, which no measurement guides.

    x_s | x0, x_t ~ N(x0 + (s / t)^2 (x_t - x0), s^2 (1 - (s / t)^2) I),      x0 ~ p(x0 | x_t).

A Gaussian, a Mixture and an Empirical prior have p(x0 | x_t) in closed form, so that the draw is
exact however far s is from t; any other prior takes small steps.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from priors import Covariance, Empirical, Gaussian, Mixture, Prior, geometric


def exact_steps(prior: Prior) -> bool:
    """Whether p(x0 | x_t) of this prior is drawn from without error."""
    return isinstance(prior, Gaussian | Mixture | Empirical)


def reverse_draw(
    prior: Prior, x: Tensor, t: float, s: float, source: torch.Generator, substeps: int = 8
) -> Tensor:
    """One draw of x_s for each x_t, (B, *event); x_0 = x0 where s = 0.

    Exact for priors of `exact_steps`. Others take `substeps` steps for each halving of the noise,
    with the denoised image linear in log sigma (weak order 2; two network calls); they scatter too
    little, by 1 or 2 per cent of the variance at the default on Gaussian priors. For s = 0 they end
    at the prior's smallest level, where p(x0 | x) counts as Gaussian with the variance s^2 c^2 /
    (s^2 + c^2), c the prior's scale.
    """
    if exact_steps(prior):
        x0 = _clean(prior, x, t, source)
        if s == 0:
            return x0
        q = (s / t) ** 2
        return x0 + q * (x - x0) + s * math.sqrt(1 - q) * _noise(x, source)
    end = s or min(prior.sigma_range[0], t)
    count = math.ceil(substeps * math.log2(t / end))
    levels = geometric(count + 1, (end, t))[:-1].tolist() if end < t else [t]
    for high, low in pairwise(levels):
        x = _step(prior, x, high, low, _noise(x, source))
    if s > 0:
        return x
    left = end * prior.scale / math.hypot(end, prior.scale)
    return prior.denoise(x, end) + left * _noise(x, source)


def _step(prior: Prior, x: Tensor, t: float, s: float, z: Tensor) -> Tensor:
    """x' = q x + int 2 (s / u)^2 D(x_u, u) d log u + s sqrt(1 - q) z,  q = (s / t)^2."""
    q = (s / t) ** 2
    noise = s * math.sqrt(1 - q) * z
    D = prior.denoise(x, t)
    guess = q * x + (1 - q) * D + noise
    end = 1 + (1 - q) / math.log(q)  # weight of D at the end
    return q * x + (1 - q - end) * D + end * prior.denoise(guess, s) + noise


def _clean(prior: Prior, x: Tensor, t: float, source: torch.Generator) -> Tensor:
    """x0 ~ p(x0 | x_t)."""
    if isinstance(prior, Gaussian):
        return _gaussian(prior.mean, prior.C, x, t, source)
    if isinstance(prior, Empirical):
        return _atoms(prior, x, t, source)
    assert isinstance(prior, Mixture)
    # On the generator's own device, as all noise.
    r = prior.responsibilities(x, t).to(source.device)
    k = torch.multinomial(r, 1, generator=source)[:, 0].to(x.device)
    x0 = torch.empty_like(x)
    for j in k.unique().tolist():
        mine = k == j
        x0[mine] = _gaussian(prior.means[j], prior.C[j], x[mine], t, source)
    return x0


def _gaussian(mean: Tensor, C: Covariance, x: Tensor, t: float, source: torch.Generator) -> Tensor:
    """Of x0 ~ N(m, C), by a draw of (x0, x) that is corrected for its x."""
    x0 = mean.to(x) + C.sqrt(_noise(x, source))
    return x0 + C.shrink(x - x0 - t * _noise(x, source), t**2)


def _atoms(prior: Empirical, x: Tensor, t: float, source: torch.Generator) -> Tensor:
    atoms = prior.dataset.reshape(len(prior.dataset), -1).double()
    flat = x.reshape(len(x), -1).double()
    distance = torch.cdist(
        flat, atoms.to(x.device), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    r = (prior.weights.log().to(x.device) - distance / (2 * t**2)).softmax(1)
    chosen = torch.multinomial(r.to(source.device), 1, generator=source)[:, 0]
    return prior.dataset[chosen.to(prior.dataset.device)].to(x)


def _noise(x: Tensor, source: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=source, device=source.device, dtype=x.dtype).to(x.device)
