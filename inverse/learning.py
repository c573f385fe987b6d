"""Training of a learned likelihood: simulated pairs of one forward model, a frozen prior."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from forward_models import ForwardModel, LinearGaussian
from priors import LatentPrior, Prior
from priors.prior import event_size
from priors.training import Checkpoint, LogNormal, NoiseLevels, Optimizer, Step, train

from .checkpoint import fingerprint
from .checks import usable, whole
from .likelihoods.learned import LearnedLift, probe_value
from .likelihoods.learned_networks import HTransform, look

Draw = Callable[[int, torch.Generator], Tensor]
"""(n, generator) -> n images x0, (n, *event), float32."""

_MEASURED = 2**18
"""Values of the images on which the scales are measured, at each noise level."""


def learn(
    prior: Prior,
    model: ForwardModel,
    images: Tensor | None = None,
    *,
    steps: int = 2000,
    batch: int = 128,
    seed: int = 0,
    widths: tuple[int, ...] | None = None,
    patch: int = 1,
    levels: NoiseLevels | None = None,
    optimizer: Optimizer | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 500,
    callback: Callable[[Step], None] | None = None,
    device: torch.device | str = "cpu",
) -> LearnedLift:
    """Train a lift for one forward model on pairs (x0, y ~ p(y | x0)); any y of it will do.

    Shift and log ratio share one loop, over x = x0 + sigma eps. With D = E[x0 | x] of the frozen
    prior, and e(sigma) the root mean square of x0 - D,

        minimise  E |D + h(x, y, sigma) - x0|^2 / e(sigma)^2        over the shift h,
                + E [softplus(-r(x, y, sigma)) + softplus(r(x, y', sigma))]     over the log ratio,

    y' being the measurement of another image. The weight 1 / e^2 makes the network's target of
    unit size at every noise level. The minima are h = E[x0 | x, y] - D and
    r = log p_sigma(y | x) - log p(y).

    Cost of a step: one call of the prior's network and three gradients of the forward model (none
    if it is a black box) for `batch` images; no derivative of the prior.

    Args:
        prior: frozen; of images (C, H, W) or vectors (D,).
        model: p(y | x0), differentiable or not.
        images: (N, *event) to simulate from; None takes a fresh draw of the prior for every pair,
            where it has exact ones. The shift is then of the prior's own posterior.
        steps, batch: optimiser steps, and pairs in each.
        seed: every random choice follows from it.
        widths: of the layers, by default (128, 128, 128); for images the channels at each
            resolution, multiples of 16, by default (32, 64).
        patch: side of the blocks of pixels folded into channels; 2 costs a quarter.
        levels: density of the noise levels; by default log-normal about half the images' standard
            deviation, where y decides most, with 1.5 the standard deviation of log sigma.
        optimizer: by default a rate of 1e-2, for images 2e-3, that rises over the first tenth.
        checkpoint, every: a folder in which the run keeps its state, each so many steps, and from
            which it goes on, bit for bit.
        callback: called after every step.
        device: where prior and model are.
    Returns:
        a lift, for `inverse.condition(prior, model, y, lift=...)`. Of its methods, "tds" corrects
        the networks' errors; "deft" keeps them, with its published eta = 0 more than with eta = 1,
        whose fresh noise makes up for some.
    Raises:
        TypeError, ValueError: arguments that do not fit; a prior without exact draws and no images.
        FloatingPointError: a loss that is not finite.

    Paper: Denker et al., "DEFT: Efficient Fine-Tuning of Diffusion Models by Learning the
    Generalised h-transform", 2024, https://arxiv.org/abs/2406.01781
    """
    if not isinstance(prior, Prior) or isinstance(prior, LatentPrior):
        raise TypeError(f"prior must be a Prior of images or vectors, got {type(prior).__name__}")
    if not isinstance(model, ForwardModel):
        raise TypeError(
            f"model must be a ForwardModel p(y | x0), got {type(model).__name__}; time-dependent "
            "models are known at every noise level and need no learning"
            + ("; wrap the operator: LinearGaussian(operator, sigma)" if callable(model) else "")
            + ("; wrap the matrix: LinearGaussian(MatrixOperator(A), sigma)"
               if isinstance(model, Tensor) else "")
        )  # fmt: skip
    if not isinstance(levels, NoiseLevels | None):
        raise TypeError(f"levels must be a NoiseLevels density, got {type(levels).__name__}")
    whole(steps, "steps")
    if whole(batch, "batch") < 2:
        raise ValueError("batch must be at least 2: pairs are told from shuffled ones")
    prior, draw = _source(prior, images, usable(device))
    generator = torch.Generator().manual_seed(seed)
    count = max(64, _MEASURED // event_size(prior.event_shape) // 64)
    x0 = draw(min(count, 1024), generator)
    model = _equivalent(model, x0, generator)
    y = _simulated(model, x0, generator)
    event = tuple(prior.event_shape)
    if widths is None:
        widths = (128, 128, 128) if len(event) == 1 else (32, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HTransform(event, tuple(y.shape[1:]), widths, patch, model.differentiable)
    _measure(network.to(device), prior, model, x0, y, generator)
    if levels is None:
        middle = math.log(float(network.spread) / 2)
        levels = LogNormal(middle, 1.5, prior.sigma_range)
    density = levels

    def loss(generator: torch.Generator) -> Tensor:
        x0 = draw(batch, generator)
        y = _simulated(model, x0, generator)
        sigma = density.sample(batch, generator).to(x0).reshape(-1, *[1] * (x0.ndim - 1))
        x = x0 + sigma * torch.randn(x0.shape, generator=generator).to(x0)
        with torch.no_grad():
            D = prior.denoise(x, sigma.flatten())
        of_y = network.of_measurement(model, y, D.dtype)
        log_p, gradient = look(model, y, D)
        features = network.features(x, sigma, D, gradient, of_y[1])
        error = (x0 - D) / network.error_at(sigma)
        shifted = network.standard_shift(features, sigma, gradient) - error
        matched = network.log_ratio(features, sigma, log_p, of_y)
        of_y = (of_y[0].roll(1, 0), of_y[1].roll(1, 0))
        log_p, gradient = look(model, y.roll(1, 0), D)
        features = network.features(x, sigma, D, gradient, of_y[1])
        shuffled = network.log_ratio(features, sigma, log_p, of_y)
        return shifted.square().mean() + (softplus(-matched) + softplus(shuffled)).mean()

    rate = 1e-2 if len(event) == 1 else 2e-3
    plan = optimizer or Optimizer(rate, warmup=min(200, steps // 10))
    state = None
    if checkpoint is not None:
        settings = {"networks": network.config, "batch": batch, "seed": seed, "steps": steps}
        settings["levels"] = _told(density)
        scales = fingerprint(list(network.buffers()), images)
        state = Checkpoint(
            checkpoint, settings | {"optimizer": asdict(plan), "scales": scales}, every
        )
    train(network, loss, steps, seed=seed, optimizer=plan, checkpoint=state, callback=callback)
    return LearnedLift(network.requires_grad_(False))


def _source(prior: Prior, images: Tensor | None, device: torch.device) -> tuple[Prior, Draw]:
    """The prior, of the images' shape, and where images come from."""
    if images is None:
        sample = getattr(prior, "sample", None)
        if sample is None:
            raise ValueError(
                f"{type(prior).__name__} has no exact draws: pass images (N, "
                f"{', '.join(map(str, prior.event_shape))}), a data set or "
                "inverse.sample(prior, 1000).x"
            )
        return prior, lambda n, generator: sample(n, generator).float().to(device)
    if not isinstance(images, Tensor) or not images.is_floating_point():
        came = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a floating tensor (N, *event), got {came}")
    if images.ndim < 2 or len(images) < 2 or not prior.accepts(tuple(images.shape[1:])):
        raise ValueError(
            f"images must have shape (N, {', '.join(map(str, prior.event_shape))}) with N >= 2, "
            f"got {tuple(images.shape)}"
        )
    if not bool(images.isfinite().all()):
        raise ValueError("images hold values that are not finite; replace them")
    data = images.detach().float()

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return data[torch.randint(len(data), (n,), generator=generator)].to(device)

    shape = tuple(data.shape[1:])
    return (prior if shape == tuple(prior.event_shape) else prior.resized(shape)), draw


def _equivalent(model: ForwardModel, x0: Tensor, generator: torch.Generator) -> ForwardModel:
    """The model as `inverse.condition` takes it: linear and Gaussian where it is exactly that."""
    found = model.linear_gaussian(_simulated(model, x0[:1], generator))
    return model if found is None else found[0]


def _simulated(model: ForwardModel, x0: Tensor, generator: torch.Generator) -> Tensor:
    return model.check_measurement(model.simulate(x0, generator))


@torch.no_grad()
def _measure(
    network: HTransform,
    prior: Prior,
    model: ForwardModel,
    x0: Tensor,
    y: Tensor,
    generator: torch.Generator,
) -> None:
    """Fill the scales of the networks, on pairs of images and their measurements."""
    low, high = prior.sigma_range
    levels = torch.linspace(0, 1, len(network.log_levels), dtype=torch.float64)
    levels = (low * (high / low) ** levels).to(x0)
    network.log_levels.copy_(levels.log())
    network.centre.copy_(x0.mean(0))
    network.spread.copy_((x0 - x0.mean(0)).square().mean().sqrt())
    entries = model.count(y) if isinstance(model, LinearGaussian) else y[0].numel()
    network.count.fill_(entries)
    if not model.differentiable:
        network.y_mean.copy_(y.mean(0))
        network.y_spread.copy_((y - y.mean(0)).square().mean().sqrt().clamp(min=1e-12))
    clean = model.log_likelihood(y, x0)
    network.best.copy_(clean.mean() + entries / 2)
    network.back.fill_(1)
    back = look(model, y, network.centre.expand_as(x0))[1]
    if back is not None:
        network.back.copy_(_size(back))
    for i, sigma in enumerate(levels):
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        D = prior.denoise(x0 + sigma * eps, sigma)
        log_p, gradient = look(model, y, D)
        # As a ratio it is sigma at small sigma without the error of a finite sample.
        network.error[i] = _size(x0 - D) / _size(eps)
        network.excess[i] = (clean - log_p).mean().clamp(min=0)
        network.slope[i] = 1 if gradient is None else _size(gradient)
    network.probe.copy_(x0[:2])
    network.probe_value.fill_(probe_value(model, network.probe))
    wrong = [name for name, t in network.named_buffers() if not bool(t.isfinite().all())]
    if wrong:
        raise ValueError(
            f"the forward model's likelihood or its gradient is not finite on the prior's images "
            f"({', '.join(wrong)}); is it defined for all of them?"
        )


def _told(density: NoiseLevels) -> dict[str, Any]:
    """The class of a density, its numbers, and levels drawn from it, which tell schedules apart."""
    numbers = {k: v for k, v in vars(density).items() if isinstance(v, int | float | tuple)}
    drawn = density.sample(64, torch.Generator().manual_seed(0))
    return {"density": type(density).__name__} | numbers | {"drawn": fingerprint(drawn)}


def _size(t: Tensor) -> Tensor:
    return t.square().mean().sqrt().clamp(min=1e-12)
