"""Stable Diffusion 1 at its published configuration with random weights, loaded and compared.

The folder is written as published (float16, 1.9 GB), loaded as float32, and its denoiser
compared with the scheduler's own x0, its decoder with the autoencoder's. Needs 6 GB of memory.

    python benchmarks/pretrained_latent.py [--side 16]
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from published import record
from safetensors.torch import save_file
from torch import Tensor

import priors

UNET = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEP = 500


def write_part(folder: Path, name: str, kind: Any, config: dict[str, Any]) -> int:
    """A part with random weights in float16, and how many parameters it has."""
    with torch.device("meta"):
        module = kind(**config)
    module.save_config(folder / name)
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for key, value in module.state_dict().items():
        fan_in = max(1, value[0].numel())
        drawn = torch.randn(value.shape, generator=generator) / fan_in**0.5
        # Normalisations multiply by about one; biases are small.
        drawn = drawn if value.ndim > 1 else 0.1 * drawn + float(key.endswith("norm.weight"))
        tensors[key] = drawn.half()
    save_file(tensors, folder / name / "diffusion_pytorch_model.safetensors")
    return sum(value.numel() for value in tensors.values())


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=16, help="of the latents; 64 as published")
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(1)
    shape = (4, args.side, args.side)
    z, eps = (torch.randn(1, *shape, generator=generator) for _ in range(2))
    prompt = torch.randn(1, 77, 768, generator=generator)
    scheduler = DDIMScheduler(**NOISE, clip_sample=False)
    scheduler.set_timesteps(1000)
    abar = float(scheduler.alphas_cumprod[STEP])
    sigma = ((1 - abar) / abar) ** 0.5
    x = z + sigma * eps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = {
            "unet": write_part(folder, "unet", UNet2DConditionModel, UNET),
            "vae": write_part(folder, "vae", AutoencoderKL, VAE),
        }
        PNDMScheduler(**NOISE, skip_prk_steps=True).save_pretrained(folder / "scheduler")
        index = {
            "scheduler": ["diffusers", "PNDMScheduler"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        (folder / "model_index.json").write_text(json.dumps(index))

        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").eval()
        x_t = abar**0.5 * x
        out = unet(x_t, STEP, encoder_hidden_states=prompt).sample
        x0 = scheduler.step(out, STEP, x_t).pred_original_sample
        del unet
        gc.collect()
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
        image = vae.decode(z / 0.18215).sample
        del vae

        began = time.perf_counter()
        prior = priors.load(folder, prompt_embeds=prompt, event_shape=shape)
        loaded = time.perf_counter()
        denoised = prior.denoise(x, sigma)
        row = {
            "parameters": sum(counts.values()),
            "load_seconds": round(loaded - began, 2),
            "side": args.side,
            "peak_memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "relative_difference": max(relative(denoised, x0), relative(prior.decode(z), image)),
        }
    record("latent diffusion", "Stable Diffusion 1", row)


if __name__ == "__main__":
    main()
