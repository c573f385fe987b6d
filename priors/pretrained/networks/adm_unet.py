"""The U-Net of ADM, its tensors named as in OpenAI's guided-diffusion checkpoints.

    emb = W2 silu(W1 [cos(w t), sin(w t)]) + label_emb[y],   w_i = 10000^(-i / (n/2)), n = width

    block: h = conv(silu(norm(x)))                    halved or doubled in size before conv, if so
           h = conv(silu((1 + s) norm(h) + b)),       (s, b) = W silu(emb), or b added before norm
           x <- skip(x) + h
    attention: x <- x + W softmax(q k / sqrt(d)) v    with q, k, v from a 1x1 convolution of norm(x)

Paper: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class AdmArchitecture:
    """What an ADM U-Net is made of.

    Attributes:
        width: length of the time's embedding before its two linear layers.
        channels: of each level, from the finest to the coarsest.
        blocks: residual blocks per level on the way down; one more on the way up.
        attention: whether each level attends.
        classes: how many, or None.
        scale_shift: whether the embedding scales and shifts after the norm, or adds before it.
        resblock_updown: whether residual blocks change the size, or plain convolutions.
        heads, heads_up: attention heads on the way down and in the middle, and on the way up.
        head_channels: channels per head, in place of their number.
        split_first: whether the channels of q k v are [q, k, v] of all heads, or [head][q, k, v].
        group_size: a norm has 32 groups, or fewer so that each has at least so many channels.
    """

    in_channels: int
    out_channels: int
    width: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    classes: int | None
    scale_shift: bool
    resblock_updown: bool
    split_first: bool
    heads: int = 1
    heads_up: int = 1
    head_channels: int | None = None
    group_size: int = 1

    def groups(self, channels: int) -> int:
        """How many groups a norm of so many channels has."""
        return max(min(32, channels // self.group_size), 1)


class AdmUNet(nn.Module):
    """network(x, time) -> (B, out_channels, H, W), for one class where it has classes.

    Args:
        made_of: the architecture.
        label: a class, or None: no class is added to the embedding.
    """

    def __init__(self, made_of: AdmArchitecture, label: int | None = None) -> None:
        super().__init__()
        a = made_of
        self.label = label
        size = 4 * a.width
        self.time_embed = nn.Sequential(nn.Linear(a.width, size), nn.SiLU(), nn.Linear(size, size))
        if a.classes is not None:
            self.label_emb = nn.Embedding(a.classes, size)

        def res(source: int, target: int, resize: str | None = None) -> nn.Module:
            return ResBlock(a, source, target, resize)

        def attend(channels: int, heads: int) -> nn.Module:
            heads = heads if a.head_channels is None else channels // a.head_channels
            return Attention(a, channels, heads)

        width = a.channels[0]
        coarsest = len(a.channels) - 1
        first = nn.Conv2d(a.in_channels, width, 3, padding=1)
        self.input_blocks = nn.ModuleList([Stage([first])])
        skips = [width]
        for level, channels in enumerate(a.channels):
            for _ in range(a.blocks):
                layers = [res(width, channels)]
                width = channels
                if a.attention[level]:
                    layers.append(attend(width, a.heads))
                self.input_blocks.append(Stage(layers))
                skips.append(width)
            if level < coarsest:
                down = res(width, width, "down") if a.resblock_updown else Downsample(width)
                self.input_blocks.append(Stage([down]))
                skips.append(width)
        self.middle_block = Stage([res(width, width), attend(width, a.heads), res(width, width)])
        self.output_blocks = nn.ModuleList()
        for level in range(coarsest, -1, -1):
            for block in range(a.blocks + 1):
                layers = [res(width + skips.pop(), a.channels[level])]
                width = a.channels[level]
                if a.attention[level]:
                    layers.append(attend(width, a.heads_up))
                if level and block == a.blocks:
                    layers.append(res(width, width, "up") if a.resblock_updown else Upsample(width))
                self.output_blocks.append(Stage(layers))
        last = nn.Conv2d(width, a.out_channels, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(a.groups(width), width), nn.SiLU(), last)
        self.width = a.width

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        emb = self.time_embed(positions(time, self.width).to(x.dtype))
        if self.label is not None:
            emb = emb + self.label_emb.weight[self.label]
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb)
            skips.append(x)
        x = self.middle_block(x, emb)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb)
        return self.out(x)


def positions(time: Tensor, width: int) -> Tensor:
    """[cos(w t), sin(w t)] with w falling geometrically from 1 towards 1 / 10000, (B, width)."""
    half = width // 2
    index = torch.arange(half, dtype=time.dtype, device=time.device)
    angle = time[:, None] * torch.exp(index * (-math.log(10000) / half))
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Stage(nn.ModuleList):
    """Layers in a row, of which residual blocks are given the embedding too."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ResBlock(nn.Module):
    """A residual block; resize is "down" (mean of 2 x 2), "up" (each value 2 x 2 times) or None."""

    def __init__(self, a: AdmArchitecture, source: int, target: int, resize: str | None) -> None:
        super().__init__()
        self.scale_shift, self.resize = a.scale_shift, resize
        self.in_layers = nn.Sequential(
            nn.GroupNorm(a.groups(source), source),
            nn.SiLU(),
            nn.Conv2d(source, target, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(4 * a.width, (2 if a.scale_shift else 1) * target)
        )
        # The third place is that of dropout, which a trained network has no use for.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(a.groups(target), target),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(target, target, 3, padding=1),
        )
        same = source == target
        self.skip_connection = nn.Identity() if same else nn.Conv2d(source, target, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, act, conv = self.in_layers
        h = conv(self._resized(act(norm(x))))
        shift = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = shift.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + shift)
        return self.skip_connection(self._resized(x)) + h

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize == "down":
            return functional.avg_pool2d(x, 2)
        return doubled(x) if self.resize == "up" else x


class Attention(nn.Module):
    """Every pixel attends to all others, in several heads."""

    def __init__(self, a: AdmArchitecture, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.split_first = heads, a.split_first
        self.norm = nn.GroupNorm(a.groups(channels), channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        if self.split_first:
            q, k, v = qkv.unflatten(1, (3, self.heads, -1)).unbind(1)
        else:
            q, k, v = qkv.unflatten(1, (self.heads, 3, -1)).unbind(2)
        return (flat + self.proj_out(attended(q, k, v).flatten(1, 2))).reshape(x.shape)


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """sum_s softmax_s(q_t k_s / sqrt(d)) v_s for q, k, v (B, heads, d, positions)."""
    scores = torch.einsum("bhdt,bhds->bhts", q * q.shape[2] ** -0.5, k)
    full = torch.promote_types(q.dtype, torch.float32)  # half precision is too coarse for exp
    weights = scores.softmax(dim=-1, dtype=full).to(q.dtype)
    return torch.einsum("bhts,bhds->bhdt", weights, v)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(doubled(x))


def doubled(x: Tensor) -> Tensor:
    """Twice as high and wide, each value repeated."""
    return functional.interpolate(x, scale_factor=2, mode="nearest")
