"""From a denoised image to the next state: a data step, then noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import final

from torch import Tensor

from ..checks import positive
from ..samplers.ancestral import fresh_and_kept
from ..samplers.sampler import Noise
from .problem import Problem


@dataclass(frozen=True)
class Split:
    """One step as its parts see it.

    Attributes:
        problem: prior and forward models.
        x: (B, *event) the state at level sigma; x0: what the denoiser made of it.
        sigma, sigma_next: levels, data units; sigma_next may be 0, or sigma again.
        eps: the step's unit noises.
        index: how many levels of the grid lie above sigma.
        before: (B, *event) what the data step of the step before returned, for warm starts.
    """

    problem: Problem
    x: Tensor
    x0: Tensor
    sigma: float
    sigma_next: float
    eps: Noise
    index: int = 0
    before: Tensor | None = None


class Update(ABC):
    """A step from the denoised image to the next state.

    Attributes:
        draws: unit noises that it takes.
        warm: whether it looks at what the step before returned.
    """

    draws: int = 0
    warm: bool = False

    @abstractmethod
    def __call__(self, split: Split) -> tuple[Tensor, Tensor]:
        """(x at sigma_next, the clean image z that agrees with y)."""


@final
@dataclass(frozen=True)
class Slack:
    """v of N(z; x0, v I): how far the data step may go from the denoised image.

        v = scale s^2, s the level of x, or with `ahead` the next one,

    or v = `fixed`, whatever the level (data units squared); it may be infinite.
    """

    scale: float = 1.0
    ahead: bool = False
    fixed: float | None = None

    def __post_init__(self) -> None:
        positive(self.scale, "scale")
        if self.fixed is not None and self.fixed != math.inf:
            positive(self.fixed, "fixed")

    def variance(self, split: Split) -> float:
        if self.fixed is not None:
            return self.fixed
        return self.scale * (split.sigma_next if self.ahead else split.sigma) ** 2


class DataStep(ABC):
    """Moves the denoised image towards what was measured; `draws` and `warm` as of Update."""

    draws: int = 0
    warm: bool = False

    @abstractmethod
    def __call__(self, split: Split) -> Tensor:
        """z, (B, *event)."""


@final
@dataclass(frozen=True)
class Unmoved(DataStep):
    """z = x0: for denoisers that have seen y themselves."""

    def __call__(self, split: Split) -> Tensor:
        return split.x0


class Renoise(ABC):
    """Puts noise of the next level on a clean image."""

    draws: int = 0

    @abstractmethod
    def __call__(self, split: Split, z: Tensor) -> Tensor:
        """x at sigma_next, (B, *event)."""


@final
@dataclass(frozen=True)
class Renewed(Update):
    """A data step on the denoised image, then noise.

    Args:
        data, noise: of every step.
        last: the data step to level 0, if another one.
    """

    data: DataStep
    noise: Renoise
    last: DataStep | None = None

    @property
    def draws(self) -> int:  # type: ignore[override]
        return max(self.data.draws, self.last.draws if self.last else 0) + self.noise.draws

    @property
    def warm(self) -> bool:  # type: ignore[override]
        return self.data.warm

    def __call__(self, split: Split) -> tuple[Tensor, Tensor]:
        data = self.data if self.last is None or split.sigma_next > 0 else self.last
        z = data(split)
        rest = replace(split, eps=partial(later, split.eps, self.data.draws))
        return self.noise(rest, z), z


@final
@dataclass(frozen=True)
class Fresh(Renoise):
    """x' = z + sigma' eps: nothing of the old noise stays, so errors of x do not add up."""

    draws = 1

    def __call__(self, split: Split, z: Tensor) -> Tensor:
        return z + split.sigma_next * split.eps() if split.sigma_next > 0 else z


@final
@dataclass(frozen=True)
class Without(Renoise):
    """x' = z: for data steps whose z has noise of the next level already."""

    def __call__(self, split: Split, z: Tensor) -> Tensor:
        return z


@final
@dataclass(frozen=True)
class Partly(Renoise):
    """x' = z + sqrt(sigma'^2 - c^2) e + c eps, as `samplers.Ancestral` does.

    Args:
        eta: c = eta (sigma' / sigma) sqrt(sigma^2 - sigma'^2).
        zeta: instead of eta: c = sqrt(zeta) sigma'.
        seen_from: the old noise e, as the data step's z shows it, (x - z) / sigma, or as the prior
            does, (x - x0) / sigma.
    """

    eta: float = 1.0
    zeta: float | None = None
    seen_from: str = "prior"

    draws = 1

    def __post_init__(self) -> None:
        for name, value in {"eta": self.eta, "zeta": self.zeta}.items():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        if self.seen_from not in ("prior", "data"):
            raise ValueError(f"seen_from must be 'prior' or 'data', got {self.seen_from!r}")

    def __call__(self, split: Split, z: Tensor) -> Tensor:
        fresh, kept = fresh_and_kept(self.eta, split.sigma, split.sigma_next, self.zeta)
        clean = split.x0 if self.seen_from == "prior" else z
        x = z + kept / split.sigma * (split.x - clean)
        return x + fresh * split.eps() if fresh > 0 else x


def later(eps: Noise, first: int, which: int = 0, *shape: tuple[int, ...]) -> Tensor:
    """The draws of a part that comes after `first` others."""
    return eps(first + which, *shape)
