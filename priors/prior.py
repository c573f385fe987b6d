"""What is believed about x0 before measuring: a density known through its denoiser.

A prior at noise level sigma is the density of ``x = x0 + sigma * eps`` with ``eps ~ N(0, I)``.
Its score follows from the denoiser ``D(x, sigma) = E[x0 | x]`` by Tweedie's formula

    score(x, sigma) = (D(x, sigma) - x) / sigma^2,      Cov[x0 | x] = sigma^2 dD/dx.

Paper: Efron, "Tweedie's Formula and Selection Bias", 2011, https://doi.org/10.1198/jasa.2011.tm11181
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

CovarianceProduct = Callable[[Tensor], Tensor]
"""v -> Cov[x0 | x] v for a batch v of shape (B, *event)."""


class Prior(ABC):
    """A density over images, seen at every noise level through its denoiser.

    Attributes:
        event_shape: shape of one sample, without the batch.
        data_range: (low, high) in the user's units, or None where the data are unbounded.
        sigma_range: the noise levels (smallest, largest), in data units, between which samplers
            run: below the smallest nothing is left to decide, above the largest the data no
            longer matter.
        scale: standard deviation of one value of x0, in data units, averaged over the event.
        exact_covariance: whether the products of `covariance` are exact and need no derivative.
        source: the name or file that `load` made it of; None for others.
    """

    event_shape: tuple[int, ...]
    data_range: tuple[float, float] | None = None
    sigma_range: tuple[float, float]
    scale: float = 1.0
    exact_covariance: bool = False
    source: str | None = None

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """E[x0 | x]: the mean of all clean images that noise of level sigma could turn into x.

        Args:
            x: (B, *event), data units.
            sigma: noise level, scalar or (B,), data units; 0 returns x.
        Returns:
            (B, *event). Costs one network call.
        Raises:
            ValueError, TypeError: naming what came and what was expected.
        """
        self.check_input(x)
        sigma = self.check_sigma(sigma, x)
        return self._checked(self._denoise(x, sigma), x)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """grad_x log p_sigma(x) = (D(x, sigma) - x) / sigma^2, (B, *event); sigma > 0."""
        self.check_input(x)
        level = self.check_sigma(sigma, x, positive=True)
        return self._score(x, level)

    def covariance(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, CovarianceProduct]:
        """E[x0 | x] and the map v -> Cov[x0 | x] v, from one network call.

        Each product costs one vector-Jacobian product of the denoiser (sigma^2 J^T v, which
        equals sigma^2 J v where the denoiser is exact); analytic priors need none.
        """
        self.check_input(x)
        return self._covariance(x, self.check_sigma(sigma, x))

    def guided(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """The denoised image without its measurements, and the shift they cause; (B, *event) each.

        Their sum is `denoise`. A prior without measurements has shift zero.
        """
        x0 = self.denoise(x, sigma)
        return x0, torch.zeros_like(x0)

    @property
    def unmeasured(self) -> Prior:
        """The prior without its measurements: itself, unless it is a posterior."""
        return self

    def initial(self, eps: Tensor, sigma: float) -> Tensor:
        """Turn unit noise eps (B, *event) into a draw from p_sigma at a large noise level.

        By default the middle of the data range plus sigma * eps; exact as sigma grows.
        """
        centre = 0.0 if self.data_range is None else sum(self.data_range) / 2
        return centre + sigma * eps

    def accepts(self, event_shape: tuple[int, ...]) -> bool:
        """Whether images of this shape can be denoised; one shape unless a class says more."""
        return tuple(event_shape) == tuple(self.event_shape)

    def resized(self, event_shape: tuple[int, ...]) -> Prior:
        """The same prior for images of another shape, where the class accepts several."""
        if not self.accepts(event_shape):
            raise ValueError(f"this prior takes {self.event_shape}, not {tuple(event_shape)}")
        return self

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if cls.denoise is not Prior.denoise:
            raise TypeError(
                f"{cls.__name__} overrides denoise, which checks its arguments; write "
                "_denoise(x, sigma) instead, with sigma of shape (B, 1, ..., 1)"
            )

    def __repr__(self) -> str:
        names = ("event_shape", "data_range", "sigma_range")
        facts = {name: getattr(self, name, None) for name in names} | self._particulars()
        if self.source is not None:
            facts["source"] = self.source
        shown = ", ".join(f"{name}={_shown(fact)}" for name, fact in facts.items())
        return f"{type(self).__name__}({shown})"

    def _particulars(self) -> dict[str, Any]:
        """What `repr` tells beside shape and ranges, in words, numbers and classes."""
        return {}

    @abstractmethod
    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for checked x (B, *event) and sigma (B, 1, ..., 1)."""

    def _score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The score for checked x (B, *event) and sigma (B, 1, ..., 1) > 0."""
        return (self._denoise(x, sigma) - x) / sigma**2

    def _covariance(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, CovarianceProduct]:
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_()
            x0 = self._checked(self._denoise(leaf, sigma), leaf)
        if not x0.requires_grad:
            raise TypeError(
                f"{type(self).__name__}._denoise cuts the gradient (detach, no_grad, numpy?), and "
                "its Jacobian is asked for; make it differentiable, or take a method without the "
                "network's Jacobian (`inverse methods --no-jacobian`)"
            )
        # Where the caller differentiates through x, the products are differentiable too.
        product = JacobianProduct(x0, leaf, sigma**2, nested=x.requires_grad)
        return (x0 if x.requires_grad else x0.detach()), product

    def _checked(self, x0: Tensor, x: Tensor) -> Tensor:
        """x0 as `_denoise` gave it for x, refused if it is no image for each of x."""
        if not isinstance(x0, Tensor) or x0.shape != x.shape:
            got = tuple(x0.shape) if isinstance(x0, Tensor) else type(x0).__name__
            raise ValueError(
                f"{type(self).__name__}._denoise must return a tensor {tuple(x.shape)} as x is, "
                f"got {got}"
            )
        return x0

    def check_input(self, x: Tensor) -> None:
        """Refuse anything but a floating batch (B, *event) with B >= 1."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"x must be real floating point, got {x.dtype}; convert it first")
        if x.ndim < 1 or x.shape[0] < 1 or not self.accepts(tuple(x.shape[1:])):
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.event_shape))}) with B >= 1 "
                f"for this prior, got {tuple(x.shape)}"
            )

    def check_sigma(self, sigma: Tensor | float, x: Tensor, positive: bool = False) -> Tensor:
        """sigma as (B, 1, ..., 1), refused if negative, not finite, or of another batch size."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if level.ndim > 1 or (level.ndim == 1 and level.shape[0] != x.shape[0]):
            raise ValueError(
                f"sigma must be a scalar or have shape (B,) = ({x.shape[0]},), "
                f"got {tuple(level.shape)}"
            )
        if not bool(torch.isfinite(level).all()) or bool((level < 0).any()):
            raise ValueError(f"sigma must be finite and >= 0, got {level.tolist()}")
        if positive and bool((level == 0).any()):
            raise ValueError("the score needs sigma > 0: at sigma = 0 it is not defined")
        return level.expand(x.shape[0]).reshape(-1, *[1] * (x.ndim - 1))


def _shown(fact: Any) -> str:
    """A fact of a prior in a few characters."""
    if isinstance(fact, list):
        return f"[{', '.join(map(_shown, fact))}]"
    if isinstance(fact, tuple):
        return f"({', '.join(map(_shown, fact))}{',' * (len(fact) == 1)})"
    if isinstance(fact, type):
        return fact.__name__
    return f"{fact:.4g}" if isinstance(fact, float) else f"{fact!r:.60}"


@final
class JacobianProduct:
    """v -> sigma^2 J^T v with J = dD/dx of one recorded denoising.

    Args:
        x0, leaf: (B, *event) the denoised image with its graph, and the x that it starts from.
        variance: sigma^2, (B, 1, ..., 1).
        nested: whether the products are to be differentiable in x.

    Attributes:
        batched: whether `many` asks for several products in one pass through the graph. That
            saves launches on accelerators; on a processor one after the other is as fast and
            takes less memory.
    """

    def __init__(self, x0: Tensor, leaf: Tensor, variance: Tensor, nested: bool) -> None:
        self._x0, self._leaf, self._variance, self._nested = x0, leaf, variance, nested
        self.batched = x0.device.type != "cpu"

    def __call__(self, v: Tensor) -> Tensor:
        return self._variance * self._pull(v)

    def many(self, v: Tensor) -> Tensor:
        """The products of P batches, (P, B, *event); one after the other where the network holds
        an operation that cannot be batched."""
        if self.batched:
            try:
                return self._variance * self._pull(v, is_grads_batched=True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                self.batched = False
        return torch.stack([self(row) for row in v])

    def _pull(self, v: Tensor, **options: bool) -> Tensor:
        (pulled,) = torch.autograd.grad(
            self._x0, self._leaf, v, retain_graph=True, create_graph=self._nested, **options
        )
        return pulled


def event_size(event_shape: tuple[int, ...]) -> int:
    """Number of values in one sample."""
    return math.prod(event_shape)
