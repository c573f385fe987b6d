"""Training of clean and noise-conditional classifiers by cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import check_batched, check_dtype, check_finite, check_positive
from .classifier import Classifier, NoisyClassifier
from .images import Range
from .labels import check_labels
from .network import ConvClassifier


def train_classifier(
    network: ConvClassifier,
    images: Tensor,
    labels: Tensor,
    *,
    noisy: bool,
    sigma_range: Range = (0.01, 80.0),
    steps: int = 3000,
    batch: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    data_range: Range = (0.0, 1.0),
    network_range: Range = (-1.0, 1.0),
    progress: Callable[[int, float], None] | None = None,
) -> Classifier | NoisyClassifier:
    """Train the network (in place) by cross-entropy, and return it as a forward model in eval mode.

    With `noisy`, the loss is the cross-entropy on (x0 + sigma eps, y) with log sigma uniform over
    `sigma_range`: its minimiser is exactly p_sigma(y | x). AdamW, one-cycle learning rate.
    Cost: `steps` evaluations of the network and its gradient, on `batch` images each.

    Args:
        network: trained in place.
        images: x0, (N, C, H, W) in data units.
        labels: classes, (N,) int64.
        sigma_range: noise levels in data units, used with `noisy` only.
        steps, batch, lr: number of updates, images in each, and the largest learning rate.
        seed: of the private generator that draws batches and noise; the network's initial weights
            are the caller's.
        data_range, network_range: see `Classifier`.
        progress: called with (step, loss) after every step.

    Raises:
        ValueError: sizes that do not fit, a network of the other kind, or a loss that diverged.

    Paper: Dhariwal and Nichol, Diffusion models beat GANs on image synthesis,
    https://arxiv.org/abs/2105.05233
    """
    config = network.config
    if config["noise_conditional"] != noisy:
        raise ValueError(
            f"noisy={noisy} needs ConvClassifier(noise_conditional={noisy}), got "
            f"noise_conditional={config['noise_conditional']}"
        )
    shape = tuple(config["image_size"])
    check_dtype("images", images)
    check_batched("images", images, shape, None)
    check_finite("images", images)
    if check_labels(labels, config["num_classes"]).shape[0] != images.shape[0]:
        raise ValueError(f"{labels.numel()} labels for {images.shape[0]} images")
    low, high = (check_positive("sigma_range", value) for value in sigma_range)
    model = as_model(network, data_range, network_range)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    network.train()
    for step in range(steps):
        index = torch.randint(images.shape[0], (batch,), generator=generator)
        x, y = images[index.to(images.device)], labels[index.to(labels.device)]
        if isinstance(model, NoisyClassifier):
            log_sigma = torch.rand(batch, generator=generator) * math.log(high / low)
            sigma = (low * log_sigma.exp()).to(x)
            eps = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            x = x + sigma[:, None, None, None] * eps
            loss = -model.log_likelihood(y, x, sigma).mean()
        else:
            loss = -model.log_likelihood(y, x).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at step {step} of {steps}; lower lr={lr}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, value)
    network.eval()
    return model


def as_model(
    network: ConvClassifier, data_range: Range, network_range: Range, scale: float = 0.5
) -> Classifier | NoisyClassifier:
    """The forward model of a network: noisy or clean, as the network is."""
    classes, shape = network.config["num_classes"], tuple(network.config["image_size"])
    if network.config["noise_conditional"]:
        return NoisyClassifier(network, classes, shape, data_range, network_range, scale)
    return Classifier(network, classes, shape, data_range, network_range)
