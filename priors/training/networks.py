"""Networks to train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..network import SpaceToDepth


def unet(
    event_shape: tuple[int, ...],
    widths: Sequence[int] = (32, 64, 128),
    layers: int = 1,
    patch: int = 1,
    attention: bool = False,
    time: str = "positional",
    seed: int | None = None,
) -> nn.Module:
    """A diffusers UNet2DModel for images (C, H, W), fully convolutional without attention.

    Args:
        widths: channels at each resolution, halved from one to the next.
        layers: residual blocks per resolution.
        patch: side of the blocks folded into channels before the network (see SpaceToDepth);
            height and width must be multiples of patch * 2^(len(widths) - 1).
        attention: self-attention at the lowest resolution; fixes the image size in practice.
        time: how the network sees its time, "positional", or "fourier" for a score whose time is
            sigma itself: its logarithm is seen and the output divided by it.
        seed: from which the initial weights follow; None draws them from the global random state.
    """
    from diffusers import UNet2DModel

    channels, height, width = event_shape
    stride = patch * 2 ** (len(widths) - 1)
    if height % stride or width % stride:
        raise ValueError(f"height and width must be multiples of {stride}, got {event_shape}")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
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
            time_embedding_type=time,
        )
    return SpaceToDepth(network, patch) if patch > 1 else network
