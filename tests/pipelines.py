"""Small diffusers pipelines with random weights, and what their schedulers make of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import UNet2DModel
from torch import Tensor

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def tiny(seed: int = 0, **config: Any) -> UNet2DModel:
    settings = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(**{**settings, **config}).eval()


def write(folder: Path, unet: UNet2DModel, scheduler: Any) -> Path:
    """The layout that diffusers' pipelines have on disk."""
    unet.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(scheduler).__name__],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


def images(count: int, shape: tuple[int, ...] = (3, 8, 8), seed: int = 1) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


# sigma, x = x0 + sigma eps and what the scheduler makes of x, at training step t.
Triple = tuple[float, Tensor, Tensor]
Reference = Callable[[Any, UNet2DModel, int], Triple]


def noisy(sigma: float) -> Tensor:
    return images(2, seed=2).clamp(-1, 1) + sigma * images(2)


def signal(scheduler: Any, t: int) -> tuple[float, float]:
    """alpha_t and sigma_t / alpha_t."""
    abar = float((1 - scheduler.betas.double()).cumprod(0)[t])
    return abar**0.5, ((1 - abar) / abar) ** 0.5


@torch.no_grad()
def by_step(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    scheduler.set_timesteps(1000)
    alpha, sigma = signal(scheduler, t)
    x_t = alpha * noisy(sigma)
    x0 = scheduler.step(unet(x_t, t).sample, t, x_t).pred_original_sample
    return sigma, noisy(sigma), x0


@torch.no_grad()
def by_sigma_step(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    scheduler.set_timesteps(1000)
    time = scheduler.timesteps[(scheduler.timesteps - t).abs().argmin()]
    sigma = float(scheduler.sigmas[scheduler.index_for_timestep(time)])
    x = noisy(sigma)
    out = unet(scheduler.scale_model_input(x, time), time).sample
    return sigma, x, scheduler.step(out, time, x).pred_original_sample


@torch.no_grad()
def by_conversion(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    scheduler.set_timesteps(999)
    time = scheduler.timesteps[(scheduler.timesteps - t).abs().argmin()]
    scheduler._init_step_index(time)
    level = scheduler.sigmas[scheduler.step_index]
    alpha, _ = scheduler._sigma_to_alpha_sigma_t(level)
    x = noisy(float(level))
    x_t = alpha * x
    x0 = scheduler.convert_model_output(unet(x_t, time).sample, sample=x_t)
    return float(level), x, x0


@torch.no_grad()
def by_table(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    alpha, sigma = signal(scheduler, t)
    x = noisy(sigma)
    return sigma, x, x - sigma * unet(alpha * x, t).sample


@torch.no_grad()
def by_edm(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    sigma = scheduler.sigmas[999 - t]
    x = noisy(float(sigma))
    time = scheduler.precondition_noise(sigma)
    out = unet(scheduler.precondition_inputs(x, sigma), time).sample
    return float(sigma), x, scheduler.precondition_outputs(x, out, sigma)


@torch.no_grad()
def by_flow(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    level = max(t, 1) / 1000
    sigma = level / (1 - level)
    x_t = (1 - level) * noisy(sigma)
    v = unet(x_t, torch.tensor(1000 * level)).sample
    return sigma, noisy(sigma), x_t - level * v


@torch.no_grad()
def by_score(scheduler: Any, unet: UNet2DModel, t: int) -> Triple:
    sigma = float(scheduler.discrete_sigmas[2 * t])
    x = noisy(sigma)
    return sigma, x, x + sigma**2 * unet(x, torch.tensor([sigma])).sample


PLAIN = {"clip_sample": False}
FOURIER = {"time_embedding_type": "fourier"}
SKIP = {
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
    "block_out_channels": (32, 64),
}
SAVED: dict[str, Any] = {
    "event_shape": (3, 8, 8),
    "data_range": (0.0, 1.0),
    "sigma_range": (0.001, 40.0),
    "sigma_data": 0.4,
}
