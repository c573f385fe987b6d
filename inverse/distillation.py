"""A noise-conditional classifier distilled from a clean one."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from forward_models import Classifier, NoisyClassifier
from priors.training import Optimizer, Step
from priors.training.recipe import Monitor

from .checks import usable, whole
from .classifier_training import ClassifierRecipe, ClassifierTraining, Labelled, Levels, Network

_OUTSIDE = 0.5
"""Share of the images' values that may lie far outside the classifier's data range: units are
wrong where most do, while data of long tails are not."""


def distil(
    classifier: Classifier,
    images: Tensor,
    *,
    steps: int = 2000,
    batch: int = 128,
    seed: int = 0,
    channels: tuple[int, ...] = (16, 32, 64),
    levels: Levels | None = None,
    optimizer: Optimizer | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 500,
    callback: Callable[[Step], None] | None = None,
    device: torch.device | str = "cpu",
) -> NoisyClassifier:
    """A noise-conditional classifier p_sigma(y | x) from a clean one, p(y | x0), and images.

    Trained by `ClassifierTraining`; at the minimum it is E[p(y | x0) | x], exact for the prior
    whose draws the images are: inverse.sample(prior, 2000).x. Labels are not needed.

    Args:
        classifier: the teacher, in eval mode; its class and value ranges are kept.
        images: (N, C, H, W), data units of the classifier.
        channels: of the `ConvClassifier` that is trained.
        levels: density of the noise levels, network units.
        steps, batch, seed, optimizer: see `ClassifierRecipe`.
        checkpoint, every: a folder in which the run keeps its state, each so many steps, and from
            which it goes on, bit for bit.
        callback: called after every step. device: where classifier and network are.
    Raises:
        TypeError, ValueError: a teacher that is no clean classifier, images that do not fit.
    """
    if not isinstance(classifier, Classifier):
        raise TypeError(
            f"classifier must be a clean Classifier p(y | x0), got {type(classifier).__name__}"
        )
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images must be a floating tensor (N, C, H, W), got "
            f"{tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__}"
        )
    if not bool(images.isfinite().all()):
        raise ValueError("images hold values that are not finite; replace them")
    shape = getattr(classifier, "event_shape", None)
    if shape is not None and tuple(images.shape[1:]) != tuple(shape):
        raise ValueError(
            f"images must have the classifier's shape (N, {', '.join(map(str, shape))}), got "
            f"{tuple(images.shape)}"
        )
    low, high = classifier.units.data_range
    centre, span = (low + high) / 2, high - low
    outside = float(((images - centre).abs() > span).float().mean())
    if outside > _OUTSIDE:
        raise ValueError(
            f"images must be in the classifier's data range ({low:g}, {high:g}): {outside:.0%} "
            f"of their values lie over half its length beyond, from {float(images.min()):.4g} to "
            f"{float(images.max()):.4g}; bring them to it"
        )
    device = usable(device)
    plan = optimizer or Optimizer(learning_rate=2e-3, weight_decay=1e-2)
    recipe = ClassifierRecipe(
        Labelled("images"),
        Network(classifier.num_classes, tuple(channels)),
        steps,
        batch=batch,
        seed=seed,
        levels=levels or Levels(),
        optimizer=plan,
        monitor=Monitor(checkpoint=whole(every, "every")),
    )
    run = ClassifierTraining(
        recipe, list(images.float()), None, classifier.units.data_range, device, teacher=classifier
    )
    model = run.run(checkpoint, callback)
    assert isinstance(model, NoisyClassifier)
    return model
