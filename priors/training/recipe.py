"""A training run in one object: all that decides it, each value checked where it is made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .images import Augmentation
from .loop import Optimizer, Precision

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
class Denoiser:
    """What the network's output means, and where it is used; network units.

    Attributes:
        parametrization: as in `NetworkPrior`.
        network_range: what the data range becomes at the network's input.
        sigma_range: noise levels that are trained.
        sigma_data: standard deviation of the data; None measures it on the training images.
    """

    parametrization: Literal["edm"] = "edm"
    network_range: Span = (-1.0, 1.0)
    sigma_range: Span = (0.002, 80.0)
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        _span("denoiser.network_range", self.network_range)
        _span("denoiser.sigma_range", self.sigma_range, positive=True)
        if self.sigma_data is not None:
            good = 0 < self.sigma_data < math.inf
            _need(good, "denoiser.sigma_data", self.sigma_data, "positive and finite")


@dataclass(frozen=True)
class Levels:
    """The density of the noise levels, network units; log-normal with this mean and std of log."""

    kind: Literal["log-normal"] = "log-normal"
    mean: float = -1.2
    std: float = 1.4

    def __post_init__(self) -> None:
        _need(math.isfinite(self.mean), "levels.mean", self.mean, "finite")
        _need(0 < self.std < math.inf, "levels.std", self.std, "positive and finite")


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    kind: Literal["denoising"] = "denoising"
    weighting: Literal["uniform", "score", "edm", "flow", "min-snr"] = "edm"


@dataclass(frozen=True)
class Monitor:
    """What is kept and shown on the way, in steps; 0 for never.

    Attributes:
        checkpoint: between two states from which an interrupted run goes on.
        samples: between two pictures of samples, `count` images in `sample_steps` steps each.
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
        name: what to call the prior.
    """

    data: Data
    steps: int
    batch: int = 32
    seed: int = 0
    precision: Precision = "float32"
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

    def decisive(self) -> dict[str, Any]:
        """The settings on which the weights depend: all but the places of files and the output."""
        values = asdict(self)
        for name in ("name", "data", "monitor", "output"):
            del values[name]
        return values
