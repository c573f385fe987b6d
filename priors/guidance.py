"""Classifier-free guidance: away from what a network believes without a condition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from .network import NetworkPrior
from .prior import CovarianceProduct, Prior


@final
class Conditioned(nn.Module):
    """A network under a fixed condition, as network(x, time) -> tensor.

    Args:
        network: called as network(x, time, **condition).
        condition: tensors by the name of the network's argument, each with a batch axis of one,
            which is expanded to the batch: class_labels (1,), encoder_hidden_states (1, L, C).

    Raises ValueError for a condition of another batch size.
    """

    def __init__(self, network: Callable[..., Any], **condition: Tensor) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(condition)
        for name, value in condition.items():
            if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != 1:
                came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"{name} must be a tensor with a batch axis of one, got {came}")
            self.register_buffer(f"_{name}", value, persistent=False)

    def condition(self, batch: int) -> dict[str, Tensor]:
        """The condition for so many samples."""
        values = ((name, getattr(self, f"_{name}")) for name in self.names)
        return {name: value.expand(batch, *value.shape[1:]) for name, value in values}

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out = self.network(x, time, **self.condition(len(x)))
        return out if isinstance(out, Tensor) else out.sample


class _Both(nn.Module):
    """One network under two conditions: a batch of two halves, one condition each."""

    def __init__(self, first: Conditioned, second: Conditioned) -> None:
        super().__init__()
        self.network, self.halves = first.network, (first, second)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        first, second = (half.condition(len(x) // 2) for half in self.halves)
        condition = {name: torch.cat([first[name], second[name]]) for name in first}
        out = self.network(x, time, **condition)
        return out if isinstance(out, Tensor) else out.sample


@final
class ClassifierFreeGuidance(Prior):
    """Two priors, one given a condition and one not, combined at every noise level.

        D = D_u + scale (D_c - D_u),      score = (1 - scale) score_u + scale score_c,

    the score of the normalised power p_u^(1 - scale) p_c^scale at each sigma, where that can be
    normalised. scale 0 is the unconditional prior, 1 the conditional one, and more than 1 favours
    images that the condition explains. Except at 0 and 1 these densities are not one density
    noised to each sigma: no prior has them, so samplers (and posteriors) reach a law that depends
    on the sampler and its levels, exact at no noise level. `covariance` is sigma^2 dD/dx of this D;
    at scale > 1 it need not be positive.

    One network call of twice the batch where both are `NetworkPrior`s that differ in the condition
    of their `Conditioned` network alone (see `NetworkPrior.under`), else a call of each; at 0 and
    1 the other prior is not called.

    Args:
        conditional, unconditional: priors of one event shape and data range.
        scale: the guidance scale w (7.5 is usual for Stable Diffusion), where Ho and Salimans
            write 1 + w.

    Raises:
        TypeError: not priors, or scale is no number.
        ValueError: other shapes or ranges, noise levels without overlap, a scale not finite.

    Paper: Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022,
    https://arxiv.org/abs/2207.12598
    """

    def __init__(self, conditional: Prior, unconditional: Prior, scale: float) -> None:
        for name, prior in {"conditional": conditional, "unconditional": unconditional}.items():
            if not isinstance(prior, Prior):
                raise TypeError(f"{name} must be a priors.Prior, got {type(prior).__name__}")
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise TypeError(f"scale must be a number, got {scale!r}")
        if not math.isfinite(scale):
            raise ValueError(f"scale must be finite, got {scale}")
        for name in ("event_shape", "data_range"):
            first, second = getattr(conditional, name), getattr(unconditional, name)
            if first != second:
                raise ValueError(
                    f"the two priors have {name} {first} and {second}; give equal ones"
                )
        ranges = conditional.sigma_range, unconditional.sigma_range
        low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
        if low >= high:
            raise ValueError(f"the two priors share no noise levels: {ranges[0]} and {ranges[1]}")
        self.conditional, self.unconditional = conditional, unconditional
        self.guidance_scale = float(scale)
        self.event_shape, self.data_range = conditional.event_shape, conditional.data_range
        self.sigma_range, self.scale = (low, high), conditional.scale
        self.exact_covariance = conditional.exact_covariance and unconditional.exact_covariance
        self._joint = _joint(conditional, unconditional)

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        return self._combined(
            self.unconditional.initial(eps, sigma), self.conditional.initial(eps, sigma)
        )

    def to(self, *args: Any, **kwargs: Any) -> ClassifierFreeGuidance:
        """Move the networks to a device or dtype, as torch.nn.Module.to."""
        for prior in (self.conditional, self.unconditional):
            if hasattr(prior, "to"):
                prior.to(*args, **kwargs)
        return self

    def _combined(self, u: Tensor, c: Tensor) -> Tensor:
        return u + self.guidance_scale * (c - u)

    def _alone(self) -> Prior | None:
        """The one prior that counts, at scale 0 and 1."""
        return {0.0: self.unconditional, 1.0: self.conditional}.get(self.guidance_scale)

    def _particulars(self) -> dict[str, Any]:
        return {"guidance_scale": self.guidance_scale, "conditional": type(self.conditional)}

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        level, alone = sigma.flatten(), self._alone()
        if alone is not None:
            return alone.denoise(x, level)
        if self._joint is None:
            return self._combined(
                self.unconditional.denoise(x, level), self.conditional.denoise(x, level)
            )
        c, u = self._joint.denoise(torch.cat([x, x]), torch.cat([level, level])).chunk(2)
        return self._combined(u, c)

    def _score(self, x: Tensor, sigma: Tensor) -> Tensor:
        level, alone = sigma.flatten(), self._alone()
        if alone is not None:
            return alone.score(x, level)
        if self._joint is not None:
            return super()._score(x, sigma)
        return self._combined(self.unconditional.score(x, level), self.conditional.score(x, level))

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        level, alone = sigma.flatten(), self._alone()
        if alone is not None:
            return alone.covariance(x, level)
        if self._joint is not None:
            return super()._covariance(x, sigma)
        u, product_u = self.unconditional.covariance(x, level)
        c, product_c = self.conditional.covariance(x, level)
        return self._combined(u, c), lambda v: self._combined(product_u(v), product_c(v))


def _joint(conditional: Prior, unconditional: Prior) -> NetworkPrior | None:
    """Both as one prior of batches [conditional, unconditional], where one network serves them."""
    if not isinstance(conditional, NetworkPrior) or not isinstance(unconditional, NetworkPrior):
        return None
    first, second = conditional.network, unconditional.network
    if not isinstance(first, Conditioned) or not isinstance(second, Conditioned):
        return None
    if first.network is not second.network or not conditional.agrees(unconditional):
        return None
    shapes = [{k: v.shape for k, v in half.condition(1).items()} for half in (first, second)]
    return conditional.under(_Both(first, second)) if shapes[0] == shapes[1] else None
