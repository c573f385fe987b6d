"""A training run in one object: all that decides it, each value checked where it is made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .checks import Span, increasing, needs
from .images import Augmentation
from .loop import Optimizer, Precision
from .recipe_law import Denoiser, Levels, Loss, Noising

__all__ = [
    "Data", "Denoiser", "Levels", "Loss", "Monitor", "Network", "Noising", "Output", "Recipe",
]  # fmt: skip


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
        count = self.held_out if isinstance(self.held_out, int) else 0
        needs(
            (bool(self.path), "data.path", self.path, "a file or folder"),
            *([] if self.range is None else [increasing("data.range", self.range)]),
            (count >= 0, "data.held_out", self.held_out, "at least 0"),
        )
        apart = self.held_out_path is not None or self.held_out_key is not None
        if self.held_out is not None and apart:
            raise ValueError(
                "data.held_out takes images out of the training set, held_out_path and "
                "held_out_key name another; give one of them"
            )


@dataclass(frozen=True)
class Network:
    """A UNet2DModel; see `unet`. Without attention it is fully convolutional: any size."""

    widths: tuple[int, ...] = (32, 64, 128)
    layers: int = 1
    patch: int = 1
    attention: bool = False

    def __post_init__(self) -> None:
        good = 1 <= len(self.widths) <= 8 and all(w > 0 and w % 16 == 0 for w in self.widths)
        needs(
            (good, "network.widths", self.widths, "1 to 8 positive multiples of 16"),
            (1 <= self.layers <= 16, "network.layers", self.layers, "from 1 to 16"),
            (1 <= self.patch <= 64, "network.patch", self.patch, "from 1 to 64"),
        )

    @property
    def stride(self) -> int:
        return self.patch * int(2 ** (len(self.widths) - 1))


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
        least = {"checkpoint": 1, "samples": 0, "count": 1, "sample_steps": 1, "logs": 0}
        values = {name: getattr(self, name) for name in least}
        needs(
            *(
                (values[name] >= low, f"monitor.{name}", values[name], f"at least {low}")
                for name, low in least.items()
            )
        )


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
        whole = shape is None or (len(shape) == 3 and all(n > 0 for n in shape))
        positive = len(self.errors) > 0 and all(0 < s < math.inf for s in self.errors)
        needs(
            (whole, "output.event_shape", shape, "three positive integers (C, H, W)"),
            (positive, "output.errors", self.errors, "positive noise levels"),
            (self.judged >= 1, "output.judged", self.judged, "at least 1"),
        )


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
        needs(
            (self.steps >= 1, "steps", self.steps, "at least 1"),
            (self.batch >= 1, "batch", self.batch, "at least 1"),
            (0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2^31 - 1"),
        )
        # Built once here, so that settings which do not go together are refused at once.
        self.loss.objective(1.0, self.levels.density(self.denoiser))

    def decisive(self) -> dict[str, Any]:
        """The settings on which the weights depend: all but the places of files and the output."""
        values = asdict(self)
        for name in ("name", "data", "monitor", "output"):
            del values[name]
        return values
