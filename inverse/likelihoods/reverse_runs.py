"""The reverse-run lift: p(x0 | x) drawn from by short runs of the prior, no derivative needed."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from forward_models import ForwardModel
from priors import Prior

from ..checks import whole
from .likelihood import Cost, Likelihood, Moments
from .smoothed import check_model, fixed_normal, log_likelihoods, log_mean

RHO = 7.0


@final
class ReverseRunLift(Likelihood):
    """p_sigma(y | x) = E[p(y | x0) | x], over K unguided runs of the prior from x:

        log p_sigma(y | x) ~ log (1/K) sum_k p(y | x0^k),
        shift ~ sum_k w_k x0^k - (1/K) sum_k x0^k,      w_k in proportion to p(y | x0^k),

    which is Tweedie's form E[x0 | x, y] - E[x0 | x] with the same draws in both means, so that
    their common error cancels. Only the density is evaluated: black boxes are served. A run takes
    m - 1 stochastic Heun steps of the reverse SDE through levels uniform in sigma^(1/7), from sigma
    to the prior's smallest sigma', and draws x0 ~ N(D, r^2 I) there, r^2 = sigma'^2 s^2 /
    (sigma'^2 + s^2) with s the prior's scale.

    Exact as K and m grow, for any prior and any model: the density is unbiased for exact draws, its
    logarithm and the shift are off by O(1 / K). With few levels the runs scatter too little: on
    Gaussian priors three quarters of the variance with m = 8, nine tenths with 16. Where few runs
    come near y, one weight is nearly 1 and the shift leads to that run; `effective_sample_size`
    tells.

    The noise of the runs is a function of (seed, sigma), the same for all samples: the posterior
    stays a deterministic function of (x, sigma), and the errors of a batch are correlated.

    Cost: K (2 m - 1) network calls a sample and K evaluations of the model; no vector-Jacobian
    product.

    Args:
        model, y: any forward model and its measurement.
        runs: K >= 2.
        steps: m >= 2 levels.
        seed: of the noise.
        batch: images that go through the prior together; by default all K B.
    Raises:
        TypeError: a time-dependent model. ValueError: numbers out of range.

    Paper: Efron, "Tweedie's Formula and Selection Bias", 2011,
    https://doi.org/10.1198/jasa.2011.tm11181 (the shift)
    """

    def __init__(
        self,
        model: ForwardModel,
        y: Tensor,
        *,
        runs: int = 32,
        steps: int = 8,
        seed: int = 0,
        batch: int | None = None,
    ) -> None:
        check_model(model, "ReverseRunLift", differentiable=False)
        self.model, self.y = model, y
        for name, value in {"runs": runs, "steps": steps}.items():
            if whole(value, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {value}")
        self.runs, self.steps, self.seed = runs, steps, seed
        self.batch = None if batch is None else whole(batch, "batch")

    @property
    def cost(self) -> Cost:
        return Cost(network_calls=self.runs * (2 * self.steps - 1))

    def shift(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[0]

    def log_likelihood(self, moments: Moments) -> Tensor:
        return self.evaluate(moments)[1]

    @torch.no_grad()
    def evaluate(self, moments: Moments) -> tuple[Tensor, Tensor]:
        x0 = self._run(moments)
        if not bool(torch.isfinite(x0).all()):  # a black box need not bear them
            lost = torch.full_like(moments.x0, math.nan)
            return lost, lost.reshape(len(lost), -1)[:, 0]
        log_w = log_likelihoods(self.model, self.y, x0)
        w = torch.softmax(log_w, 0)
        w = w.reshape(*w.shape, *[1] * (x0.ndim - 2))
        return ((w - 1 / self.runs) * x0).sum(0), log_mean(log_w)

    @torch.no_grad()
    def effective_sample_size(self, moments: Moments) -> Tensor:
        """1 / sum_k w_k^2, (B,), between 1 and K: how many runs the shift rests on.

        Costs what the shift costs.
        """
        w = torch.softmax(log_likelihoods(self.model, self.y, self._run(moments)), 0)
        return 1 / w.square().sum(0)

    def _run(self, moments: Moments) -> Tensor:
        """x0^k, (K, B, *event)."""
        prior = moments.prior
        if prior is None:
            raise RuntimeError("ReverseRunLift needs moments that carry their prior")
        event = tuple(moments.x.shape[1:])
        noise = fixed_normal(self.seed, moments.sigma, self.steps * self.runs, event)
        *fresh, last = noise.unflatten(0, (self.steps, self.runs))
        x = moments.x.expand(self.runs, *moments.x.shape)
        sigma = moments.sigma.expand(len(moments.x), *moments.sigma.shape[1:])
        low = sigma.clamp(max=prior.sigma_range[0])
        at = sigma
        for k, z in enumerate(fresh, 1):
            share = k / (self.steps - 1)
            below = ((1 - share) * sigma ** (1 / RHO) + share * low ** (1 / RHO)) ** RHO
            x, at = self._step(prior, x, at, torch.minimum(below, at), z), below
        left = low * prior.scale / torch.hypot(low, torch.full_like(low, prior.scale))
        return self._denoise(prior, x, at) + left * last

    def _step(self, prior: Prior, x: Tensor, sigma: Tensor, below: Tensor, z: Tensor) -> Tensor:
        """x at sigma -> x at `below`, D on the way taken as linear in log sigma.

            x' = q x + int 2 (sigma' / s)^2 D(x_s, s) d log s + sigma' sqrt(1 - q) z,
            q = (sigma' / sigma)^2,

        with D at the end from the step of constant D with the same z.
        """
        q = (below / sigma.clamp(min=torch.finfo(sigma.dtype).tiny)).square()
        noise = below * (1 - q).sqrt() * z
        D = self._denoise(prior, x, sigma)
        guess = q * x + (1 - q) * D + noise
        end = 1 + (1 - q) / q.log().clamp(max=-1e-6)  # weight of D at the end
        return q * x + (1 - q - end) * D + end * self._denoise(prior, guess, below) + noise

    def _denoise(self, prior: Prior, x: Tensor, level: Tensor) -> Tensor:
        """E[x0 | x] of all runs at once, (K, B, *event)."""
        levels = level.flatten().repeat(self.runs)
        flat = x.flatten(0, 1)
        size = self.batch or len(flat)
        parts = zip(flat.split(size), levels.split(size), strict=True)
        return torch.cat([prior.denoise(z, s) for z, s in parts]).reshape(x.shape)
