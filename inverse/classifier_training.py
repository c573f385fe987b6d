"""Classifiers trained by a recipe: clean ones, and noise-conditional ones p_sigma(class | x)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from forward_models import Classifier, ConvClassifier, NoisyClassifier
from forward_models.classifiers.classifier import as_model
from priors import VP, Cosine, Flow, Schedule
from priors.training import (
    Augmentation,
    Checkpoint,
    Geometric,
    Images,
    LogNormal,
    NoiseLevels,
    Optimizer,
    Processes,
    Step,
    UniformTime,
    train_as,
)
from priors.training.checks import needs
from priors.training.loop import Precision
from priors.training.recipe import Monitor

Span = tuple[float, float]

SCHEDULES: dict[str, Callable[[], Schedule]] = {"vp": VP, "cosine": Cosine, "flow": Flow}


@dataclass(frozen=True)
class Labelled:
    """Images and their classes: arrays of one .npz file, or of one file each.

    Attributes:
        path: the .npz file.
        images, labels: its arrays to train on, (N, H, W) or (N, C, H, W), and (N,) whole numbers.
        held_out_images, held_out_labels: its arrays to judge by; None for none.
        range: what the values span, data units; uint8 arrays span (0, 1).
    """

    path: str
    images: str = "x_train"
    labels: str = "y_train"
    held_out_images: str | None = None
    held_out_labels: str | None = None
    range: Span | None = None

    def __post_init__(self) -> None:
        if (self.held_out_images is None) != (self.held_out_labels is None):
            raise ValueError("held_out_images and held_out_labels go together; give both or none")


@dataclass(frozen=True)
class Network:
    """A `ConvClassifier`."""

    classes: int
    channels: tuple[int, ...] = (16, 32, 64)


@dataclass(frozen=True)
class Levels:
    """The density of the noise levels, network units (images span [-1, 1]).

    Attributes:
        kind: uniform in log sigma, log-normal, or uniform in the time of a schedule.
        sigma_range: the levels that are trained.
        mean, std: of log sigma, for log-normal.
        schedule: for uniform-time.
    """

    kind: Literal["geometric", "log-normal", "uniform-time"] = "geometric"
    sigma_range: Span = (0.005, 40.0)
    mean: float = -1.2
    std: float = 1.4
    schedule: Literal["vp", "cosine", "flow"] = "vp"

    def __post_init__(self) -> None:
        self.density()

    def density(self) -> NoiseLevels:
        if self.kind == "geometric":
            return Geometric(self.sigma_range)
        if self.kind == "log-normal":
            return LogNormal(self.mean, self.std, self.sigma_range)
        return UniformTime(SCHEDULES[self.schedule](), self.sigma_range)


@dataclass(frozen=True)
class Report:
    """Noise levels, network units, at which the held-out images are judged, beside 0."""

    levels: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

    def __post_init__(self) -> None:
        if not all(0 < s < math.inf for s in self.levels):
            raise ValueError(f"levels must be positive and finite, got {self.levels}")


@dataclass(frozen=True)
class ClassifierRecipe:
    """All that decides the training of a classifier.

    Attributes:
        data, network, levels, optimizer, augmentation, monitor, report: see there.
        kind: tells this recipe from a prior's.
        noisy: whether it is noise-conditional; `levels` says where.
        teacher: a clean classifier, by name or folder, whose probabilities take the place of the
            labels, which are then not read; for noise-conditional ones.
        scale: standard deviation of clean images, network units; None measures it.
        steps, batch: optimiser steps, and images per step.
        seed: every random choice of the run follows from it, the first weights too.
        precision: in which the network computes; weights stay float32.
        name: what to call the classifier.
    """

    data: Labelled
    network: Network
    steps: int
    kind: Literal["classifier"] = "classifier"
    noisy: bool = True
    teacher: str | None = None
    scale: float | None = None
    batch: int = 128
    seed: int = 0
    precision: Precision = "float32"
    name: str | None = None
    levels: Levels = field(default_factory=Levels)
    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(learning_rate=2e-3, weight_decay=1e-2)
    )
    augmentation: Augmentation = field(default_factory=Augmentation)
    monitor: Monitor = field(default_factory=Monitor)
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        measured = self.scale is None or 0 < self.scale < math.inf
        needs(
            (self.steps >= 1, "steps", self.steps, "at least 1"),
            (self.batch >= 1, "batch", self.batch, "at least 1"),
            (0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2^31 - 1"),
            (measured, "scale", self.scale, "positive and finite"),
        )
        if self.monitor.samples:
            raise ValueError("monitor.samples: a classifier draws no samples; leave it 0")
        if self.teacher is not None and not self.noisy:
            raise ValueError("teacher: is clean itself; what learns from it needs noisy: true")

    def decisive(self) -> dict[str, Any]:
        """The settings on which the weights depend."""
        values = asdict(self)
        for name in ("name", "data", "monitor", "report", "teacher"):
            del values[name]
        return values


class ClassifierTraining:
    """One run: cross-entropy on (x0 + sigma eps, class), or on clean images.

        minimise  E[-log p_sigma(y | x0 + sigma eps)]   over the network,

    whose minimiser is the true class probability p_sigma(y | x). With a teacher p(y | x0) the loss
    is its mean over classes, -sum_y p(y | x0) log p_sigma(y | x), and the minimiser the teacher's
    E[p(y | x0) | x] under the distribution of the images: that of a prior, if they are its draws.
    One call of the network and its
    gradient a step, on `batch` images, by the loop that trains priors: averaged weights, clipped
    gradients, restarts bit for bit.

    Args:
        recipe: all that decides the run, beside the images.
        images: (C, H, W) each, data units; labels: (N,) int64, None with a teacher.
        data_range: what the images span.
        device, processes: as in `PriorTraining`.
        teacher: p(y | x0), evaluated on every batch of clean views.

    Attributes:
        model: the classifier, as it is now; `network` its network.

    Raises:
        ValueError: labels that do not fit the images or the network's classes.

    Paper: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
    https://arxiv.org/abs/2105.05233; Hinton et al., "Distilling the Knowledge in a Neural Network",
    2015, https://arxiv.org/abs/1503.02531
    """

    def __init__(
        self,
        recipe: ClassifierRecipe,
        images: Sequence[Tensor],
        labels: Tensor | None,
        data_range: Span,
        device: torch.device | str = "cpu",
        processes: Processes | None = None,
        teacher: Classifier | None = None,
    ) -> None:
        self.recipe, self.data_range = recipe, data_range
        self.teacher = _checked(teacher, labels, recipe)
        self.processes = processes or Processes()
        self._part = self.processes.part(recipe.batch)
        self.device = torch.device(device)
        self.images = Images(list(images), recipe.augmentation, *data_range)
        if labels is not None and len(labels) != len(self.images):
            raise ValueError(f"{len(labels)} labels for {len(self.images)} images")
        plan = recipe.network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.network = ConvClassifier(
                plan.classes, plan.channels, self.images.event_shape, recipe.noisy
            ).to(self.device)
        unit = (data_range[1] - data_range[0]) / 2
        scale = recipe.scale or round(max(float(torch.stack(list(images)).std()) / unit, 0.05), 3)
        self.model = as_model(self.network, data_range, (-1.0, 1.0), scale)
        self.unit = unit
        self.labels = None if labels is None else self.model.check_measurement(labels)

    def run(
        self,
        state: str | os.PathLike[str] | None = None,
        callback: Callable[[Step], None] | None = None,
    ) -> Classifier | NoisyClassifier:
        """Train; the classifier with averaged weights, in eval mode.

        Args:
            state: folder in which the run's state is kept; a run found there goes on.
            callback: called after every step.
        """
        recipe, model = self.recipe, self.model
        density = recipe.levels.density()

        def loss(generator: torch.Generator) -> Tensor:
            x0, chosen = self.images.draw(self._part, generator)
            target = self._target(x0, chosen)
            if not isinstance(model, NoisyClassifier):
                return cross_entropy(model.logits(x0.to(self.device)), target)
            sigma = self.unit * density.sample(self._part, generator)
            eps = torch.randn(x0.shape, generator=generator)
            x = x0 + sigma.reshape(-1, 1, 1, 1) * eps
            return cross_entropy(model.logits(x.to(self.device), sigma.to(self.device)), target)

        checkpoint = None
        if state is not None:
            settings = recipe.decisive() | {"data": self.digest()}
            checkpoint = Checkpoint(state, settings, recipe.monitor.checkpoint)
        train_as(recipe, self.network, loss, checkpoint, callback, self.processes)
        return model

    def _target(self, x0: Tensor, chosen: Tensor) -> Tensor:
        """The classes (B,) of the chosen images, or the teacher's probabilities (B, classes)."""
        if self.labels is not None:
            return self.labels[chosen].to(self.device)
        assert self.teacher is not None
        with torch.no_grad():
            return self.teacher.logits(x0.to(self.device)).softmax(1)

    def digest(self) -> str:
        """SHA-256 of the training images, and of their labels or the teacher's probabilities."""
        total = self.images.digest()
        known = self.labels
        if known is None:
            known = self._target(torch.stack(self.images.images[:32]), torch.arange(0)).cpu()
        total.update(known.numpy().tobytes())
        return total.hexdigest()


def _checked(
    teacher: Classifier | None, labels: Tensor | None, recipe: ClassifierRecipe
) -> Classifier | None:
    """The teacher, if it can take the place of labels, and one of the two is there."""
    if (teacher is None) == (labels is None):
        raise ValueError("classes come from labels or from a teacher: give one of the two")
    if teacher is None:
        return None
    if not isinstance(teacher, Classifier):
        raise TypeError(
            f"the teacher must be a clean Classifier p(y | x0), got {type(teacher).__name__}"
        )
    if not recipe.noisy or teacher.num_classes != recipe.network.classes:
        raise ValueError(
            f"a teacher of {teacher.num_classes} classes teaches a noise-conditional network of as "
            f"many, not one of {recipe.network.classes} with noisy={recipe.noisy}"
        )
    return teacher
