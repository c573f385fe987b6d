"""What a recipe says of the denoiser, the density of its noise levels and the loss."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..pretrained.laws import schedule_of
from ..schedule import Schedule
from .checks import Span, increasing, needs
from .noise_levels import Geometric, LogNormal, NoiseLevels, UniformTime
from .objectives import (
    DenoisingScoreMatching,
    ExactScoreMatching,
    Objective,
    SlicedScoreMatching,
)


@dataclass(frozen=True)
class Noising:
    """A schedule by name, with its own constants where they are not the usual ones.

    Attributes:
        kind: ve, vp, sub-vp, cosine or flow.
        sigma_min, sigma_max: of ve; by default the ends of the denoiser's sigma_range.
        beta_min, beta_max: of vp and sub-vp.
        offset: of cosine.
    """

    kind: Literal["ve", "vp", "sub-vp", "cosine", "flow"]
    sigma_min: float | None = None
    sigma_max: float | None = None
    beta_min: float | None = None
    beta_max: float | None = None
    offset: float | None = None

    def schedule(self, sigma_range: Span) -> Schedule:
        stated = {k: v for k, v in asdict(self).items() if v is not None}
        if self.kind == "ve":
            stated = {"sigma_min": sigma_range[0], "sigma_max": sigma_range[1]} | stated
        return schedule_of(stated)

    def __post_init__(self) -> None:
        self.schedule((0.002, 80.0))


@dataclass(frozen=True)
class Denoiser:
    """What the network's output means, and where it is used; network units.

    Attributes:
        parametrization: as in `NetworkPrior`.
        schedule: alpha and time at each noise level; by default flow for flow, ve for score and vp
            for the others; edm has none.
        network_range: what the data range becomes at the network's input.
        sigma_range: noise levels that are trained.
        sigma_data: standard deviation of the data; None measures it on the training images.
    """

    parametrization: Literal["epsilon", "v", "x0", "score", "flow", "edm"] = "edm"
    schedule: Noising | None = None
    network_range: Span = (-1.0, 1.0)
    sigma_range: Span = (0.002, 80.0)
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        measured = self.sigma_data is None or 0 < self.sigma_data < math.inf
        needs(
            increasing("denoiser.network_range", self.network_range),
            increasing("denoiser.sigma_range", self.sigma_range, positive=True),
            (measured, "denoiser.sigma_data", self.sigma_data, "positive and finite"),
        )
        if self.schedule is not None and self.parametrization == "edm":
            raise ValueError("denoiser.schedule: edm has none; leave it out")

    def noising(self) -> Schedule | None:
        """The schedule; None for edm."""
        if self.parametrization == "edm":
            return None
        usual: dict[str, Noising] = {"flow": Noising("flow"), "score": Noising("ve")}
        chosen = self.schedule or usual.get(self.parametrization, Noising("vp"))
        return chosen.schedule(self.sigma_range)


@dataclass(frozen=True)
class Levels:
    """The density of the noise levels over the denoiser's sigma_range.

    Attributes:
        kind: log-normal; geometric, which is uniform in log sigma; or uniform-time.
        mean, std: of log sigma, network units, for log-normal; -1.2 and 1.4 unless given.
        schedule: whose time is uniform; by default the denoiser's.
    """

    kind: Literal["log-normal", "geometric", "uniform-time"] = "log-normal"
    mean: float | None = None
    std: float | None = None
    schedule: Noising | None = None

    def __post_init__(self) -> None:
        if self.kind == "log-normal":
            object.__setattr__(self, "mean", -1.2 if self.mean is None else self.mean)
            object.__setattr__(self, "std", 1.4 if self.std is None else self.std)
        elif self.mean is not None or self.std is not None:
            raise ValueError(f"levels.mean and levels.std belong to log-normal, not to {self.kind}")
        if self.schedule is not None and self.kind != "uniform-time":
            raise ValueError(f"levels.schedule belongs to uniform-time, not to {self.kind}")

    def density(self, denoiser: Denoiser) -> NoiseLevels:
        if self.mean is not None and self.std is not None:
            return LogNormal(self.mean, self.std, denoiser.sigma_range)
        if self.kind == "geometric":
            return Geometric(denoiser.sigma_range)
        own = self.schedule.schedule(denoiser.sigma_range) if self.schedule else None
        schedule = own or denoiser.noising()
        if schedule is None:
            raise ValueError("levels: uniform-time needs levels.schedule, as edm has none")
        return UniformTime(schedule, denoiser.sigma_range)


@dataclass(frozen=True)
class Loss:
    """What is minimised.

    Attributes:
        kind: denoising, sliced or exact score matching.
        weighting: see `Weighting`; edm for denoising and score for the others unless given.
        gamma: of min-snr.
        projections, variance_reduced: of sliced.
    """

    kind: Literal["denoising", "sliced", "exact"] = "denoising"
    weighting: Literal["uniform", "score", "edm", "flow", "min-snr", "likelihood"] | None = None
    gamma: float | None = None
    projections: int | None = None
    variance_reduced: bool | None = None

    def __post_init__(self) -> None:
        if self.weighting is None:
            object.__setattr__(self, "weighting", "edm" if self.kind == "denoising" else "score")
        if self.gamma is not None and self.weighting != "min-snr":
            raise ValueError(f"loss.gamma belongs to min-snr, not to {self.weighting}")
        for name in ("projections", "variance_reduced"):
            if getattr(self, name) is not None and self.kind != "sliced":
                raise ValueError(f"loss.{name} belongs to sliced, not to {self.kind}")

    def objective(self, sigma_data: float, levels: NoiseLevels) -> Objective:
        common: dict[str, Any] = {"weighting": self.weighting, "sigma_data": sigma_data}
        if self.gamma is not None:
            common["gamma"] = self.gamma
        if self.weighting == "likelihood":
            common["levels"] = levels
        if self.kind == "denoising":
            return DenoisingScoreMatching(**common)
        if self.kind == "exact":
            return ExactScoreMatching(**common)
        reduced = True if self.variance_reduced is None else self.variance_reduced
        return SlicedScoreMatching(reduced, 1 if self.projections is None else self.projections,
                                   **common)  # fmt: skip
