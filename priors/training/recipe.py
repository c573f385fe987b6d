"""A training run in one object: all that decides it, each value checked where it is made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..pretrained.laws import schedule_of
from ..schedule import Schedule
from .images import Augmentation
from .loop import Optimizer, Precision
from .noise_levels import Geometric, LogNormal, NoiseLevels, UniformTime
from .objectives import (
    DenoisingScoreMatching,
    ExactScoreMatching,
    Objective,
    SlicedScoreMatching,
)

Span = tuple[float, float]


def _need(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value!r:.80}")


def _span(name: str, value: Span, positive: bool = False) -> None:
    low, high = value
    good = -math.inf < low < high < math.inf and (low > 0 or not positive)
    _need(good, name, value, f"(low, high) with {'0 < ' if positive else ''}low < high, finite")


@dataclass(frozen=True)
class Data:
    """Where the images are.

    Attributes:
        path: a folder of images, an .npy, or an .npz.
        key: which array of an .npz; (N, H, W) or (N, C, H, W).
        range: what the values span, data units; pictures and uint8 arrays span (0, 1).
        held_out: kept out of the training to judge by: how many (chosen by the seed), or which
            (file names without suffix, or numbers of the array's rows). By default a tenth, at
            most 64.
        held_out_path, held_out_key: or another folder, file or array to judge by.
    """

    path: str
    key: str | None = None
    range: Span | None = None
    held_out: int | tuple[str | int, ...] | None = None
    held_out_path: str | None = None
    held_out_key: str | None = None

    def __post_init__(self) -> None:
        _need(bool(self.path), "data.path", self.path, "a file or folder")
        if self.range is not None:
            _span("data.range", self.range)
        apart = self.held_out_path is not None or self.held_out_key is not None
        if self.held_out is not None and apart:
            raise ValueError(
                "data.held_out takes images out of the training set, held_out_path and "
                "held_out_key name another; give one of them"
            )
        if isinstance(self.held_out, int):
            _need(self.held_out >= 0, "data.held_out", self.held_out, "at least 0")


@dataclass(frozen=True)
class Network:
    """A UNet2DModel; see `unet`. Without attention it is fully convolutional: any size."""

    widths: tuple[int, ...] = (32, 64, 128)
    layers: int = 1
    patch: int = 1
    attention: bool = False

    def __post_init__(self) -> None:
        good = 1 <= len(self.widths) <= 8 and all(w > 0 and w % 16 == 0 for w in self.widths)
        _need(good, "network.widths", self.widths, "1 to 8 positive multiples of 16")
        _need(1 <= self.layers <= 16, "network.layers", self.layers, "from 1 to 16")
        _need(1 <= self.patch <= 64, "network.patch", self.patch, "from 1 to 64")

    @property
    def stride(self) -> int:
        return self.patch * int(2 ** (len(self.widths) - 1))


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
        _span("denoiser.network_range", self.network_range)
        _span("denoiser.sigma_range", self.sigma_range, positive=True)
        if self.sigma_data is not None:
            good = 0 < self.sigma_data < math.inf
            _need(good, "denoiser.sigma_data", self.sigma_data, "positive and finite")
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


@dataclass(frozen=True)
class Monitor:
    """What is kept and shown on the way; intervals in steps, 0 for never.

    Attributes:
        checkpoint: between two states from which an interrupted run goes on.
        samples: between two pictures of samples, `count` images in `sample_steps` steps each, and
            between two logs of the denoising errors.
        logs: between two entries of the TensorBoard log, which needs the extra `train`.
    """

    checkpoint: int = 500
    samples: int = 0
    count: int = 16
    sample_steps: int = 18
    logs: int = 0

    def __post_init__(self) -> None:
        _need(self.checkpoint >= 1, "monitor.checkpoint", self.checkpoint, "at least 1")
        for name in ("samples", "logs"):
            _need(getattr(self, name) >= 0, f"monitor.{name}", getattr(self, name), "at least 0")
        for name in ("count", "sample_steps"):
            _need(getattr(self, name) >= 1, f"monitor.{name}", getattr(self, name), "at least 1")


@dataclass(frozen=True)
class Output:
    """What is written.

    Attributes:
        dtype: of the weights.
        event_shape: (C, H, W) that the prior takes by default; None is that of the views.
        errors: noise levels, network units, at which the denoising error is reported.
        judged: most images that each of these errors is measured on.
    """

    dtype: Literal["float32", "float16"] = "float32"
    event_shape: tuple[int, ...] | None = None
    errors: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    judged: int = 64

    def __post_init__(self) -> None:
        shape = self.event_shape
        good = shape is None or (len(shape) == 3 and all(n > 0 for n in shape))
        _need(good, "output.event_shape", shape, "three positive integers (C, H, W)")
        good = len(self.errors) > 0 and all(0 < s < math.inf for s in self.errors)
        _need(good, "output.errors", self.errors, "positive noise levels")
        _need(self.judged >= 1, "output.judged", self.judged, "at least 1")


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run.

    Attributes:
        data, network, denoiser, levels, loss, optimizer, augmentation, monitor, output: see there.
        steps, batch: optimiser steps, and views per step.
        seed: every random choice of the run follows from it.
        precision: in which the network computes; weights stay float32.
        init: a prior, by name or folder, with whose weights to start.
        name: what to call the prior.
    """

    data: Data
    steps: int
    batch: int = 32
    seed: int = 0
    precision: Precision = "float32"
    init: str | None = None
    name: str | None = None
    network: Network = field(default_factory=Network)
    denoiser: Denoiser = field(default_factory=Denoiser)
    levels: Levels = field(default_factory=Levels)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    augmentation: Augmentation = field(default_factory=Augmentation)
    monitor: Monitor = field(default_factory=Monitor)
    output: Output = field(default_factory=Output)

    def __post_init__(self) -> None:
        _need(self.steps >= 1, "steps", self.steps, "at least 1")
        _need(self.batch >= 1, "batch", self.batch, "at least 1")
        _need(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2^31 - 1")
        # Built once here, so that settings which do not go together are refused at once.
        self.loss.objective(1.0, self.levels.density(self.denoiser))

    def decisive(self) -> dict[str, Any]:
        """The settings on which the weights depend: all but the places of files and the output."""
        values = asdict(self)
        for name in ("name", "data", "monitor", "output"):
            del values[name]
        return values
