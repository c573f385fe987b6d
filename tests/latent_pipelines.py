"""Small latent pipelines in their published layout, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel
from torch import Tensor

WIDTH, WORDS = 12, 5
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
VAE = {
    "latent_channels": 4,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
TEXT = UNET | {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": [2, 4],
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 10,
    "norm_num_groups": 2,
}


def made(kind: Any, **config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = kind(**config).eval().requires_grad_(False)
        for value in module.parameters():  # some layers of DiT start at zero
            value.add_(0.02 * torch.randn_like(value))
    return module


def write(folder: Path, scheduler: Any, **parts: Any) -> Path:
    """The layout of a published pipeline; parts of text are named, as Stable Diffusion's are."""
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6"}
    for name, part in {"scheduler": scheduler, **parts}.items():
        part.save_pretrained(folder / name)
        index[name] = ["diffusers", type(part).__name__]
    index |= {
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": [None, None],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "requires_safety_checker": True,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompt(seed: int = 3) -> Tensor:
    return normal(WORDS, WIDTH, seed=seed)


def ddim(kind: str = "epsilon") -> Any:
    return diffusers.DDIMScheduler(**SCALED, clip_sample=False, prediction_type=kind)


def stable_diffusion(folder: Path) -> Path:
    """Latents under a prompt: load it with prompt_embeds=prompt()."""
    unet = made(UNet2DConditionModel, **TEXT)
    return write(folder, ddim(), vae=made(AutoencoderKL, **VAE), unet=unet)


def diffusion_transformer(folder: Path) -> Path:
    """Latents of ten classes."""
    model = made(DiTTransformer2DModel, **DIT)
    return write(folder, ddim(), vae=made(AutoencoderKL, **VAE), transformer=model)
