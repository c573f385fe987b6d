"""NCSN++, DDPM++ and DDPM, under the names that their weights have in score_sde_pytorch.

A U-Net from an image and a time to an image. All layers with weights lie in one list, called
all_modules, in the order in which they act: a layer's number is its name.

    in        a convolution to nf channels; then for every level, nf ch_mult[level] wide,
              num_res_blocks of (residual block, attention where the level has it), and on all
              but the last level a halving of the image
    middle    residual block, attention, residual block
    out       from the last level to the first: num_res_blocks + 1 residual blocks, each with one
              output of the way in concatenated, attention where the level has it, a doubling

progressive_input feeds the image itself, halved with the levels, to the way in: input_skip through
a pointwise map, residual through a convolution. progressive output_skip makes the result the sum of
one image per level of the way out, each doubled to the next.

Papers: Song et al., "Score-Based Generative Modeling through SDEs", 2021,
https://arxiv.org/abs/2011.13456, appendix H (NCSN++, DDPM++); Ho et al., "Denoising Diffusion
Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239, appendix B (DDPM)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..score_sde_settings import Architecture
from .ncsnpp_layers import (
    Attention,
    Combine,
    Downsample,
    FourierFeatures,
    ResidualBlock,
    Upsample,
    doubled,
    groups,
    halved,
    positional,
)


class NCSNpp(nn.Module):
    """network(x (B, C, H, W), time (B,)) -> (B, C, H, W), without a last division by sigma.

    The time is a noise level, whose logarithm is taken, where the embedding is by Fourier features;
    where it is positional, any number. Images that are not `centered` lie in [0, 1] and are centred
    here.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        original = a.name == "ddpm"
        norm_groups = (lambda channels: 32) if original else groups
        block = partial(
            ResidualBlock,
            embedding=4 * a.nf,
            kind="original" if original else a.resblock_type,
            norm_groups=norm_groups,
            rescale=a.skip_rescale,
            kernel=a.fir_kernel,
        )
        attention = partial(Attention, norm_groups=norm_groups, rescale=a.skip_rescale)
        self.all_modules = layers = nn.ModuleList()

        if a.embedding_type == "fourier":
            layers.append(FourierFeatures(a.nf))
        if a.conditional:
            features = 2 * a.nf if a.embedding_type == "fourier" else a.nf
            layers.extend((nn.Linear(features, 4 * a.nf), nn.Linear(4 * a.nf, 4 * a.nf)))

        layers.append(nn.Conv2d(a.num_channels, a.nf, 3, padding=1))
        width, image = a.nf, a.num_channels
        kept = [width]
        for level in a.levels:
            for _ in range(a.num_res_blocks):
                layers.append(block(width, a.width(level)))
                width = a.width(level)
                if a.attends(level):
                    layers.append(attention(width))
                kept.append(width)
            if level == a.levels[-1]:
                break
            if a.resblock_type == "biggan":
                layers.append(block(width, width, resample=halved))
            elif a.resamp_with_conv:
                layers.append(Downsample(width, width, a.fir_kernel))
            if a.progressive_input == "input_skip":
                layers.append(Combine(image, width))
            elif a.progressive_input == "residual":
                layers.append(Downsample(image, width, a.fir_kernel))
                image = width
            kept.append(width)

        layers.extend((block(width, width), attention(width), block(width, width)))

        for level in reversed(a.levels):
            for _ in range(a.num_res_blocks + 1):
                layers.append(block(width + kept.pop(), a.width(level)))
                width = a.width(level)
            if a.attends(level):
                layers.append(attention(width))
            if a.progressive == "output_skip" or level == 0:
                layers.append(nn.GroupNorm(norm_groups(width), width, eps=1e-6))
                layers.append(nn.Conv2d(width, a.num_channels, 3, padding=1))
            if level > 0 and a.resblock_type == "biggan":
                layers.append(block(width, width, resample=doubled))
            elif level > 0 and a.resamp_with_conv:
                layers.append(Upsample(width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        a = self.architecture
        layers = iter(self.all_modules)

        if a.embedding_type == "fourier":
            features = next(layers)(time.log())
        else:
            features = positional(time, a.nf)
        embedded = None
        if a.conditional:
            embedded = next(layers)(features.to(x.dtype))
            embedded = next(layers)(functional.silu(embedded))

        image = x if a.centered else 2 * x - 1
        h = next(layers)(image)
        kept = [h]
        for level in a.levels:
            for _ in range(a.num_res_blocks):
                h = next(layers)(h, embedded)
                if a.attends(level):
                    h = next(layers)(h)
                kept.append(h)
            if level == a.levels[-1]:
                break
            if a.resblock_type == "biggan":
                h = next(layers)(h, embedded)
            else:
                h = next(layers)(h) if a.resamp_with_conv else halved(h, a.fir_kernel)
            if a.progressive_input == "input_skip":
                image = halved(image, a.fir_kernel)
                h = next(layers)(image, h)
            elif a.progressive_input == "residual":
                h = next(layers)(image) + h
                image = h = h * 2**-0.5 if a.skip_rescale else h
            kept.append(h)

        h = next(layers)(h, embedded)
        h = next(layers)(h)
        h = next(layers)(h, embedded)

        total: Any = None
        for level in reversed(a.levels):
            for _ in range(a.num_res_blocks + 1):
                h = next(layers)(torch.cat([h, kept.pop()], dim=1), embedded)
            if a.attends(level):
                h = next(layers)(h)
            if a.progressive == "output_skip" or level == 0:
                normed = functional.silu(next(layers)(h))
                out = next(layers)(normed)
                total = out if total is None else doubled(total, a.fir_kernel) + out
            if level > 0:
                if a.resblock_type == "biggan":
                    h = next(layers)(h, embedded)
                else:
                    h = next(layers)(h) if a.resamp_with_conv else doubled(h, a.fir_kernel)
        return total
