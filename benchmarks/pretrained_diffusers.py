"""Published diffusers configurations at their real size, with random weights: saved, loaded, used.

    python benchmarks/pretrained_diffusers.py [NAME ...]

Each is written to a temporary folder by diffusers, loaded by `priors.load`, compared with the x0
that the formulas of its scheduler give, and takes one guided step. The table goes to
benchmarks/results/pretrained.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

import forward_models
import inverse
import priors

# google/ddpm-cifar10-32, google/ddpm-celebahq-256 and google/ncsnpp-celebahq-256: config.json.
DDPM = {
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "act_fn": "silu",
    "attention_head_dim": None,
    "center_input_sample": False,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "time_embedding_type": "positional",
}
DOWN, UP = "DownBlock2D", "UpBlock2D"
CIFAR = {
    **DDPM,
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": (DOWN, "AttnDownBlock2D", DOWN, DOWN),
    "up_block_types": (UP, UP, "AttnUpBlock2D", UP),
}
CELEBA = {
    **DDPM,
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (DOWN, DOWN, DOWN, DOWN, "AttnDownBlock2D", DOWN),
    "up_block_types": (UP, "AttnUpBlock2D", UP, UP, UP, UP),
}
SKIP_DOWN, SKIP_UP = "SkipDownBlock2D", "SkipUpBlock2D"
NCSNPP = {
    **DDPM,
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 256, 256, 256),
    "down_block_types": (*[SKIP_DOWN] * 4, "AttnSkipDownBlock2D", *[SKIP_DOWN] * 2),
    "up_block_types": (*[SKIP_UP] * 2, "AttnSkipUpBlock2D", *[SKIP_UP] * 4),
    "center_input_sample": True,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1.41421356237,
    "norm_num_groups": None,
    "time_embedding_type": "fourier",
}


@dataclass
class Case:
    unet: dict[str, Any]
    scheduler: Any
    reference: Callable[[Any, Any, Tensor, int], tuple[float, Tensor]]


def by_ddpm(scheduler: Any, unet: Any, eps: Tensor, t: int) -> tuple[float, Tensor]:
    abar = scheduler.alphas_cumprod[t].double()
    sigma = float(((1 - abar) / abar).sqrt())
    x_t = abar.sqrt().float() * sigma * eps
    step = scheduler.step(unet(x_t, t).sample, t, x_t)
    return sigma, step.pred_original_sample


def by_score(scheduler: Any, unet: Any, eps: Tensor, t: int) -> tuple[float, Tensor]:
    sigma = float(scheduler.discrete_sigmas[t])
    x = sigma * eps
    return sigma, x + sigma**2 * unet(x, torch.tensor([sigma])).sample


def by_edm(scheduler: Any, unet: Any, eps: Tensor, t: int) -> tuple[float, Tensor]:
    sigma = scheduler.sigmas[999 - t]
    x = sigma * eps
    out = unet(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)).sample
    return float(sigma), scheduler.precondition_outputs(x, out, sigma)


def by_flow(scheduler: Any, unet: Any, eps: Tensor, t: int) -> tuple[float, Tensor]:
    level = t / 1000
    x_t = level * eps
    return level / (1 - level), x_t - level * unet(x_t, torch.tensor(1000 * level)).sample


CASES = {
    "ddpm-cifar10-32": Case(CIFAR, diffusers.DDPMScheduler(clip_sample=False), by_ddpm),
    "ddpm-celebahq-256": Case(CELEBA, diffusers.DDPMScheduler(clip_sample=False), by_ddpm),
    "ncsnpp-celebahq-256": Case(
        NCSNPP,
        diffusers.ScoreSdeVeScheduler(num_train_timesteps=2000, sigma_min=0.01, sigma_max=380.0),
        by_score,
    ),
    "ddpm-cifar10-32 network, EDM": Case(CIFAR, diffusers.EDMEulerScheduler(), by_edm),
    "ddpm-cifar10-32 network, flow": Case(
        CIFAR, diffusers.FlowMatchEulerDiscreteScheduler(), by_flow
    ),
}


def write(case: Case, folder: Path) -> Any:
    """The pipeline's folder, as its save_pretrained lays it out, and the network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(**case.unet).eval()
    unet.save_pretrained(folder / "unet")
    case.scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(case.scheduler).__name__],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return unet


def measure(case: Case, times: tuple[int, ...] = (10, 900)) -> dict[str, Any]:
    """What loading takes, how far D is from the scheduler's own x0, and one guided step."""
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        unet = write(case, Path(place))
        start = time.perf_counter()
        prior = priors.load(place)
        loading = time.perf_counter() - start
        generator = torch.Generator().manual_seed(1)
        eps = torch.randn(1, *prior.event_shape, generator=generator)
        difference = 0.0
        for t in times:
            sigma, x0 = case.reference(case.scheduler, unet, eps, t)
            error = (prior.denoise(sigma * eps, sigma) - x0).norm() / x0.norm()
            difference = max(difference, float(error))
        del unet
        model = forward_models.LinearGaussian(forward_models.Identity(prior.event_shape), 0.1)
        posterior = inverse.condition(prior, model, torch.zeros(1, *prior.event_shape))
        start = time.perf_counter()
        samples = inverse.sample(posterior, n=1, method="dps", steps=1, seed=0)
        step = time.perf_counter() - start
        assert samples.x.shape == (1, *prior.event_shape)
        assert bool(torch.isfinite(samples.x).all())
    return {
        "parameters": sum(p.numel() for p in prior.network.parameters()),
        "load_seconds": round(loading, 2),
        "step_seconds": round(step, 2),
        "peak_memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "relative_difference": float(f"{difference:.2g}"),
    }


def main() -> None:
    from published import record

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    for name in parser.parse_args().names or CASES:
        record("diffusers", name, measure(CASES[name]))


if __name__ == "__main__":
    main()
