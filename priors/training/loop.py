"""Train a prior once: denoising score matching with preconditioning, EMA, and restarts.

The network F is trained through D = c_skip x + c_out F(c_in x, log(sigma) / 4) to minimise

    E  (sigma^2 + sigma_data^2) / (sigma sigma_data)^2  |D(x0 + sigma eps, sigma) - x0|^2,

whose minimiser over all functions is E[x0 | x].

Papers: Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011,
https://doi.org/10.1162/NECO_a_00142; Karras et al., "Elucidating the Design Space of
Diffusion-Based Generative Models", 2022, https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..network import NetworkPrior, SpaceToDepth


@dataclass(frozen=True)
class Augmentation:
    """Random views of a set of images, drawn anew for every batch.

    Attributes:
        crop: side of the square views; None keeps whole images (all of one size).
        zoom: (smallest, largest) factor by which a view enlarges the image, log-uniform.
        flip: mirror left-right half of the time.
        rotate: turn by multiples of 90 degrees, and mirror.
        channels: permute the colour channels.
        gain: contrast is scaled about the low end by a factor in [1 - gain, 1].
    """

    crop: int | None = None
    zoom: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    rotate: bool = False
    channels: bool = False
    gain: float = 0.0


class Images:
    """Images (C, H, W) in network units, of one or many sizes, from which views are drawn."""

    def __init__(
        self, images: Sequence[Tensor] | Tensor, augmentation: Augmentation | None = None
    ) -> None:
        self.images = list(images)
        self.augmentation = augmentation or Augmentation()
        if not self.images:
            raise ValueError("no images to train on")
        shapes = {tuple(im.shape) for im in self.images}
        if any(len(s) != 3 for s in shapes):
            raise ValueError(f"images must have shape (C, H, W), got {sorted(shapes)}")
        if self.augmentation.crop is None and len(shapes) > 1:
            raise ValueError(f"images of several sizes need a crop size; sizes: {sorted(shapes)}")
        # Large pictures show more crops, so they are visited in proportion to their area.
        area = torch.tensor([float(im.shape[1] * im.shape[2]) for im in self.images])
        self._weights = area / area.sum()
        channels, height, width = self.images[0].shape
        side = self.augmentation.crop
        self.event_shape = (channels, side or height, side or width)

    def batch(self, size: int, generator: torch.Generator) -> Tensor:
        """(size, C, H, W): independent random views."""
        chosen = torch.multinomial(self._weights, size, replacement=True, generator=generator)
        return torch.stack([self._view(self.images[i], generator) for i in chosen.tolist()])

    def _view(self, image: Tensor, generator: torch.Generator) -> Tensor:
        options = self.augmentation
        u = torch.rand(8, generator=generator).tolist()
        if options.crop is not None:
            low, high = options.zoom
            # A view may not reach beyond its image.
            low = max(low, options.crop / min(image.shape[1:]))
            zoom = low * (max(high, low) / low) ** u[0]
            side = min(round(options.crop / zoom), *image.shape[1:])
            top = int(u[1] * (image.shape[1] - side + 1))
            left = int(u[2] * (image.shape[2] - side + 1))
            image = image[:, top : top + side, left : left + side]
            if side != options.crop:
                image = nn.functional.interpolate(
                    image[None], (options.crop, options.crop), mode="bilinear", antialias=True
                )[0]
        if options.flip and u[3] < 0.5:
            image = image.flip(-1)
        if options.rotate:
            image = image.rot90(int(u[4] * 4), (1, 2))
            image = image.flip(-1) if u[5] < 0.5 else image
        if options.channels:
            image = image[torch.randperm(image.shape[0], generator=generator)]
        if options.gain > 0:
            image = (image + 1) * (1 - options.gain * u[6]) - 1
        return image.contiguous()


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run, beside the images and the network.

    Attributes:
        steps, batch: optimiser steps, and views per step.
        learning_rate: peak, after a linear warm-up of `warmup` steps; falls to 0 as a cosine.
        ema: half-life of the weight average, as a share of the steps taken so far.
        log_sigma: mean and standard deviation of log(sigma), sigma in network units.
        sigma_range: sigma is clamped to it, network units.
        sigma_data: standard deviation of the data in network units.
        seed: every random choice of the run follows from it.
        bfloat16: compute the network in bfloat16 (weights and losses stay float32).
    """

    steps: int
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 200
    ema: float = 0.05
    log_sigma: tuple[float, float] = (-1.2, 1.4)
    sigma_range: tuple[float, float] = (0.002, 80.0)
    sigma_data: float = 0.5
    seed: int = 0
    bfloat16: bool = False


def train(
    network: nn.Module,
    images: Images,
    recipe: Recipe,
    checkpoint: Path | None = None,
    callback: Callable[[int, float], None] | None = None,
    save_every: int = 500,
) -> nn.Module:
    """Minimise the denoising loss; returns `network` holding the averaged (EMA) weights.

    Args:
        network: called as network(x, time) -> (B, C, H, W) tensor or object with `.sample`;
            trained in place.
        images: where the views come from.
        recipe: the run's settings.
        checkpoint: folder in which the run's state is kept; if it holds a state of the same
            recipe the run goes on from there, to the same weights as without the interruption.
        callback: called after every step with (step, running loss).
    Raises:
        ValueError: a checkpoint of another recipe.
        FloatingPointError: a loss that is not finite, with the step.
    """
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4
    )
    start, running = 0, math.nan
    if checkpoint is not None and (checkpoint / "state.safetensors").exists():
        start, running = _restore(checkpoint, recipe, network, average, optimizer)
    network.train()
    for step in range(start, recipe.steps):
        rate = min(1.0, (step + 1) / recipe.warmup)
        rate *= 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        # One generator a step: a restart needs no saved random state.
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        loss = denoising_loss(network, images.batch(recipe.batch, generator), recipe, generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}; lower the rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = 0.5 ** (1 / max(recipe.ema * (step + 1), 1.0))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        running = loss.item() if math.isnan(running) else 0.99 * running + 0.01 * loss.item()
        if callback is not None:
            callback(step + 1, running)
        if checkpoint is not None and ((step + 1) % save_every == 0 or step + 1 == recipe.steps):
            _save(checkpoint, recipe, step + 1, running, network, average, optimizer)
    network.load_state_dict(average)
    return network.eval()


def unet(
    event_shape: tuple[int, ...],
    widths: Sequence[int] = (32, 64, 128),
    layers: int = 1,
    patch: int = 1,
    attention: bool = False,
) -> nn.Module:
    """A diffusers UNet2DModel for images (C, H, W), fully convolutional without attention.

    Args:
        widths: channels at each resolution, halved from one to the next.
        layers: residual blocks per resolution.
        patch: side of the blocks folded into channels before the network (see SpaceToDepth);
            height and width must be multiples of patch * 2^(len(widths) - 1).
        attention: self-attention at the lowest resolution; fixes the image size in practice.
    """
    from diffusers import UNet2DModel

    channels, height, width = event_shape
    stride = patch * 2 ** (len(widths) - 1)
    if height % stride or width % stride:
        raise ValueError(f"height and width must be multiples of {stride}, got {event_shape}")
    network: Any = UNet2DModel(
        sample_size=(height // patch, width // patch),
        in_channels=channels * patch**2,
        out_channels=channels * patch**2,
        layers_per_block=layers,
        block_out_channels=tuple(widths),
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        add_attention=attention,
        norm_num_groups=16,
    )
    return SpaceToDepth(network, patch) if patch > 1 else network


def denoising_loss(
    network: Callable[..., Any], x0: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """The weighted denoising loss of one batch, averaged per value; stratified in log sigma."""
    strata = torch.randperm(len(x0), generator=generator) + torch.rand(len(x0), generator=generator)
    mean, std = recipe.log_sigma
    normal = math.sqrt(2) * torch.erfinv(2 * (strata / len(x0)).clamp(1e-4, 1 - 1e-4) - 1)
    sigma = (mean + std * normal).exp().clamp(*recipe.sigma_range)
    eps = torch.randn(x0.shape, generator=generator)
    s = sigma.reshape(-1, *[1] * (x0.ndim - 1))
    total = s**2 + recipe.sigma_data**2
    x = x0 + s * eps
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        out = network(x / total.sqrt(), sigma.log() / 4)
    out = (out if isinstance(out, Tensor) else out.sample).float()
    # The loss in F: the target has unit variance at every noise level.
    target = (x0 - recipe.sigma_data**2 / total * x) * total.sqrt() / (s * recipe.sigma_data)
    return (out - target).square().mean()


@torch.no_grad()
def heldout_error(
    prior: NetworkPrior, images: Tensor, sigmas: Sequence[float], seed: int = 0, batch: int = 16
) -> list[float]:
    """Root mean square of D(x0 + sigma eps, sigma) - x0 over images (N, *event), data units."""
    errors = []
    for sigma in sigmas:
        generator = torch.Generator().manual_seed(seed)
        total = 0.0
        for x0 in images.split(batch):
            x = x0 + sigma * torch.randn(x0.shape, generator=generator)
            total += float((prior.denoise(x, sigma) - x0).double().square().sum())
        errors.append(math.sqrt(total / images.numel()))
    return errors


def _save(
    folder: Path,
    recipe: Recipe,
    step: int,
    running: float,
    network: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    from safetensors.torch import save_file

    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for name, parameter in network.named_parameters():
        state = optimizer.state[parameter]
        for key in ("exp_avg", "exp_avg_sq", "step"):
            tensors[f"{key}.{name}"] = torch.as_tensor(state[key])
    folder.mkdir(parents=True, exist_ok=True)
    meta = {
        "recipe": json.dumps(asdict(recipe), sort_keys=True),
        "step": str(step),
        "running": repr(running),
    }
    temporary = folder / f"state.{os.getpid()}.tmp"
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, temporary, metadata=meta)
    with open(temporary, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(temporary, folder / "state.safetensors")


def _restore(
    folder: Path,
    recipe: Recipe,
    network: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, float]:
    from safetensors import safe_open

    with safe_open(folder / "state.safetensors", "pt") as handle:
        meta = handle.metadata()
        ours = json.dumps(asdict(recipe), sort_keys=True)
        if meta["recipe"] != ours:
            raise ValueError(
                f"{folder} holds a run of another recipe: {meta['recipe']}; this one is {ours}. "
                "Choose another folder or delete that one"
            )
        network.load_state_dict({k: handle.get_tensor(f"network.{k}") for k in average})
        for k in average:
            average[k].copy_(handle.get_tensor(f"average.{k}"))
        for name, parameter in network.named_parameters():
            optimizer.state[parameter] = {
                key: handle.get_tensor(f"{key}.{name}") for key in ("exp_avg", "exp_avg_sq", "step")
            }
    return int(meta["step"]), float(meta["running"])
