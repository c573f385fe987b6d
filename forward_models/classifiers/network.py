"""A small convolutional network that gives the logits of classes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from ..checks import check_shape


class _Block(nn.Module):
    """conv, norm, FiLM (h -> (1 + a) h + b from the noise level), SiLU, twice, with a shortcut."""

    def __init__(self, inputs: int, outputs: int, embedding: int | None) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(math.gcd(8, outputs), outputs)
        self.norm2 = nn.GroupNorm(math.gcd(8, outputs), outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.film = None if embedding is None else nn.Linear(embedding, 2 * outputs)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.norm1(self.first(x))
        if self.film is not None and embedding is not None:
            a, b = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            h = (1 + a) * h + b
        h = self.norm2(self.second(self.activation(h)))
        return self.activation(h + self.shortcut(x))


@final
class ConvClassifier(nn.Module):
    """Logits of small images: residual blocks, each followed by 2 x 2 averaging, and a linear head.

    Images are in network range, log noise levels those of network units. Cost: (10 a + 9 b) b
    multiplications for each pixel in a block of a to b channels; each block sees a quarter of the
    pixels of the one before.

    Args:
        num_classes: number of classes.
        channels: width of each block; (24, 48, 80) makes 142 thousand parameters, and 168 thousand
            if noise-conditional.
        image_size: (C, H, W), at least 2^blocks pixels on each side.
        noise_conditional: whether `forward` takes the log noise level too.

    Raises:
        ValueError: sizes that are no positive integers, or images too small for the blocks.

    Paper: He et al., Deep residual learning for image recognition,
    https://arxiv.org/abs/1512.03385; Perez et al., FiLM: visual reasoning with a general
    conditioning layer, https://arxiv.org/abs/1709.07871
    """

    def __init__(
        self,
        num_classes: int,
        channels: tuple[int, ...] = (24, 48, 80),
        image_size: tuple[int, ...] = (1, 28, 28),
        noise_conditional: bool = False,
    ) -> None:
        super().__init__()
        channels, image_size = tuple(channels), tuple(image_size)
        check_shape("channels", channels)
        if len(check_shape("image_size", image_size)) != 3:
            raise ValueError(f"image_size must be (C, H, W), got {image_size}")
        if min(image_size[1:]) < 2 ** len(channels):
            raise ValueError(f"image_size {image_size} is too small for {len(channels)} blocks")
        self.config: dict[str, Any] = {
            "num_classes": num_classes,
            "channels": list(channels),
            "image_size": list(image_size),
            "noise_conditional": noise_conditional,
        }
        embedding = 64 if noise_conditional else None
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-3, 1, 16), persistent=False)
        self.frequencies: Tensor
        self.embed = (
            nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
            if noise_conditional
            else None
        )
        widths = (image_size[0], *channels)
        self.blocks = nn.ModuleList(_Block(a, b, embedding) for a, b in pairwise(widths))
        self.pool = nn.AvgPool2d(2)
        # The head sees where a feature lies: a mean over all positions would not tell 6 from 9.
        height, width = (n // 2 ** len(channels) for n in image_size[1:])
        self.head = nn.Linear(channels[-1] * height * width, num_classes)

    def forward(self, x: Tensor, log_sigma: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in network range, log noise level (B,) -> logits (B, num_classes)."""
        if (log_sigma is None) != (self.embed is None):
            raise ValueError("log_sigma goes with noise_conditional=True, and only with it")
        embedding = None
        if self.embed is not None and log_sigma is not None:
            phase = log_sigma[:, None] * self.frequencies
            embedding = self.embed(torch.cat([phase.sin(), phase.cos()], dim=1))
        for block in self.blocks:
            x = self.pool(block(x, embedding))
        logits: Tensor = self.head(x.flatten(1))
        return logits
