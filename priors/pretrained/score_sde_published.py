"""Settings of the checkpoints published for score_sde_pytorch, under the names of their folders.

Only what shapes the network and its diffusion; see `score_sde_settings` for the meaning.

Papers: Song et al., "Score-Based Generative Modeling through SDEs", 2021,
https://arxiv.org/abs/2011.13456; Chung and Ye, "Score-based diffusion models for accelerated MRI",
2022, https://arxiv.org/abs/2110.05243 (fastmri_knee_320); Chung et al., "Improving Diffusion Models
for Inverse Problems using Manifold Constraints", 2022, https://arxiv.org/abs/2206.00941 (AAPM_256)
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def _images(size: int, channels: int = 3, *, centered: bool = False) -> Config:
    return {
        "data.image_size": size,
        "data.num_channels": channels,
        "data.centered": centered,
        "model.resamp_with_conv": True,
        "model.attn_resolutions": (16,),
    }


def _widths(nf: int, ch_mult: tuple[int, ...], blocks: int) -> Config:
    return {"model.nf": nf, "model.ch_mult": ch_mult, "model.num_res_blocks": blocks}


def _ncsnpp(embedding: str, progressive: str, progressive_input: str, *, fir: bool) -> Config:
    return {
        "model.name": "ncsnpp",
        "model.conditional": True,
        "model.fir": fir,
        "model.fir_kernel": (1, 3, 3, 1),
        "model.skip_rescale": True,
        "model.resblock_type": "biggan",
        "model.progressive": progressive,
        "model.progressive_input": progressive_input,
        "model.embedding_type": embedding,
    }


def _ve(sigma_max: float, num_scales: int = 1000, *, continuous: bool = True) -> Config:
    return {
        "training.sde": "vesde",
        "training.continuous": continuous,
        "model.sigma_min": 0.01,
        "model.sigma_max": sigma_max,
        "model.num_scales": num_scales,
        "model.scale_by_sigma": True,
    }


def _vp(sde: str, *, continuous: bool = True) -> Config:
    return {
        "training.sde": sde,
        "training.continuous": continuous,
        "model.beta_min": 0.1,
        "model.beta_max": 20.0,
        "model.num_scales": 1000,
        "model.scale_by_sigma": False,
    }


_SMALL, _DEEP, _DDPM = (_widths(128, (1, 2, 2, 2), blocks) for blocks in (4, 8, 2))
_LARGE = _widths(128, (1, 1, 2, 2, 2, 2, 2), 2)
_FACES = _widths(16, (1, 2, 4, 8, 16, 32, 32, 32), 1)

_INPUT = _ncsnpp("fourier", "none", "residual", fir=True)
_BOTH = _ncsnpp("fourier", "output_skip", "input_skip", fir=True)
_PLUS = _ncsnpp("positional", "none", "none", fir=False)
_DISCRETE = _ncsnpp("positional", "none", "residual", fir=True)
_ORIGINAL = {"model.name": "ddpm"}

_CIFAR = _images(32)
_CENTERED = _images(32, centered=True)

PUBLISHED: dict[str, Config] = {
    "ve/cifar10_ncsnpp": _CIFAR | _SMALL | _DISCRETE | _ve(50, continuous=False),
    "ve/cifar10_ncsnpp_continuous": _CIFAR | _SMALL | _INPUT | _ve(50),
    "ve/cifar10_ncsnpp_deep_continuous": _CIFAR | _DEEP | _INPUT | _ve(50),
    "vp/cifar10_ddpm": _CENTERED | _DDPM | _ORIGINAL | _vp("vpsde", continuous=False),
    "vp/cifar10_ddpm_continuous": _CENTERED | _DDPM | _ORIGINAL | _vp("vpsde"),
    "vp/cifar10_ddpmpp": _CENTERED | _SMALL | _PLUS | _vp("vpsde", continuous=False),
    "vp/cifar10_ddpmpp_continuous": _CENTERED | _SMALL | _PLUS | _vp("vpsde"),
    "vp/cifar10_ddpmpp_deep_continuous": _CENTERED | _DEEP | _PLUS | _vp("vpsde"),
    "subvp/cifar10_ddpm_continuous": _CENTERED | _DDPM | _ORIGINAL | _vp("subvpsde"),
    "subvp/cifar10_ddpmpp_continuous": _CENTERED | _SMALL | _PLUS | _vp("subvpsde"),
    "subvp/cifar10_ddpmpp_deep_continuous": _CENTERED | _DEEP | _PLUS | _vp("subvpsde"),
    "ve/bedroom_ncsnpp_continuous": _images(256) | _LARGE | _BOTH | _ve(378, 2000),
    "ve/church_ncsnpp_continuous": _images(256) | _LARGE | _BOTH | _ve(380, 2000),
    "ve/celebahq_256_ncsnpp_continuous": _images(256) | _LARGE | _BOTH | _ve(348, 2000),
    "ve/ffhq_256_ncsnpp_continuous": _images(256) | _LARGE | _BOTH | _ve(348, 2000),
    "ve/ffhq_1024_ncsnpp_continuous": _images(1024) | _FACES | _BOTH | _ve(1348, 2000),
    "ve/fastmri_knee_320_ncsnpp_continuous": _images(320, 1) | _SMALL | _INPUT | _ve(378, 2000),
    "ve/AAPM_256_ncsnpp_continuous": _images(256, 1) | _SMALL | _INPUT | _ve(378, 2000),
}
