"""DDPM++ and NCSN++, their tensors named as in EDM's checkpoints.

    emb = silu(W2 silu(W1 (e(t) + label))),   e = [sin(w t), cos(w t)]
          w fixed, 10000^(-i / (n/2 - 1)), or random, kept in the file

    block: h = conv(norm'(conv(norm'(x)) + W emb)),  norm' = silu(group norm)
           x <- (skip(x) + h) / sqrt 2
    attention: x <- (x + W softmax(q k / sqrt(c)) v) / sqrt 2, of one head

A block that halves or doubles the size filters with a small kernel, in h before its first
convolution and in the skip. The input may reach every level on the way down (encoder "residual" or
"skip"), and every level the output (decoder "skip"), through filters of their own.

Papers: Song et al., "Score-Based Generative Modeling through SDEs", 2021, appendix H,
https://arxiv.org/abs/2011.13456; Karras et al., "Elucidating the Design Space of Diffusion-Based
Generative Models", 2022, appendix F, https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .adm_unet import attended


@dataclass(frozen=True)
class SongArchitecture:
    """What a DDPM++ or NCSN++ network is made of.

    Attributes:
        size: height and width of the images that it was trained on.
        width: channels after the first convolution.
        channels: of each level, from the finest to the coarsest.
        blocks: residual blocks per level on the way down; one more on the way up.
        attention: whether each level attends.
        noise_width, embedding: lengths of the time's embedding before and after its two layers.
        classes: how many, or None.
        fourier: whether the frequencies of the time are the file's, or fixed.
        encoder: "standard", "residual" or "skip".
        decoder: "standard" or "skip".
        taps: length of the filter.
    """

    in_channels: int
    out_channels: int
    size: int
    width: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    noise_width: int
    embedding: int
    classes: int | None
    fourier: bool
    encoder: str
    decoder: str
    taps: int


class SongUNet(nn.Module):
    """network(x, time) -> (B, out_channels, H, W), for one class where it has classes.

    Args:
        made_of: the architecture.
        label: a class, or None: that of no class at all.
    """

    def __init__(self, made_of: SongArchitecture, label: int | None = None) -> None:
        super().__init__()
        a = made_of
        self.made_of, self.label = a, label
        self.map_noise = Frequencies(a.noise_width, a.fourier)
        if a.classes is not None:
            self.map_label = nn.Linear(a.classes, a.noise_width)
        self.map_layer0 = nn.Linear(a.noise_width, a.embedding)
        self.map_layer1 = nn.Linear(a.embedding, a.embedding)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self.names = [f"{a.size >> level}x{a.size >> level}_" for level in range(len(a.channels))]

        side, width, skips = a.in_channels, a.width, [a.width]
        for level, (name, channels) in enumerate(zip(self.names, a.channels, strict=True)):
            if level == 0:
                self.enc[name + "conv"] = nn.Conv2d(a.in_channels, width, 3, padding=1)
            else:
                self.enc[name + "down"] = Block(a, width, width, resize="down")
                skips.append(width)
                if a.encoder == "residual":
                    self.enc[name + "aux_residual"] = FilteredConv(
                        side, width, 3, "down", a.taps, conv_first=True
                    )
                    side = width
                elif a.encoder == "skip":
                    self.enc[name + "aux_down"] = Filter("down", a.taps)
                    self.enc[name + "aux_skip"] = nn.Conv2d(side, width, 1)
            for block in range(a.blocks):
                attends = a.attention[level]
                self.enc[f"{name}block{block}"] = Block(a, width, channels, attends)
                width = channels
                skips.append(width)

        coarsest = len(a.channels) - 1
        for level in range(coarsest, -1, -1):
            name, channels = self.names[level], a.channels[level]
            if level == coarsest:
                self.dec[name + "in0"] = Block(a, width, width, attends=True)
                self.dec[name + "in1"] = Block(a, width, width)
            else:
                self.dec[name + "up"] = Block(a, width, width, resize="up")
            for block in range(a.blocks + 1):
                attends = a.attention[level] and block == a.blocks
                self.dec[f"{name}block{block}"] = Block(a, width + skips.pop(), channels, attends)
                width = channels
            if a.decoder == "skip" or level == 0:
                if level < coarsest and a.decoder == "skip":
                    self.dec[name + "aux_up"] = Filter("up", a.taps)
                self.dec[name + "aux_norm"] = norm(width)
                self.dec[name + "aux_conv"] = nn.Conv2d(width, a.out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        a, enc, dec = self.made_of, self.enc, self.dec
        emb = self.map_noise(time).to(x.dtype)
        if a.classes is not None:
            emb = emb + self._label()
        emb = functional.silu(self.map_layer0(emb))
        emb = functional.silu(self.map_layer1(emb))

        side = x  # the input, or what has become of it, at the present size
        x = enc[self.names[0] + "conv"](x)
        skips = [x]
        for level, name in enumerate(self.names):
            if level:
                x = enc[name + "down"](x, emb)
                if a.encoder == "residual":
                    side = x = (x + enc[name + "aux_residual"](side)) / math.sqrt(2)
                elif a.encoder == "skip":
                    side = enc[name + "aux_down"](side)
                    x = x + enc[name + "aux_skip"](side)
                skips.append(x)
            for block in range(a.blocks):
                x = enc[f"{name}block{block}"](x, emb)
                skips.append(x)

        out: Tensor | None = None
        for name in reversed(self.names):
            if name + "in0" in dec:
                x = dec[name + "in1"](dec[name + "in0"](x, emb), emb)
            else:
                x = dec[name + "up"](x, emb)
            for block in range(a.blocks + 1):
                x = dec[f"{name}block{block}"](torch.cat([x, skips.pop()], dim=1), emb)
            if name + "aux_conv" in dec:
                new = dec[name + "aux_conv"](functional.silu(dec[name + "aux_norm"](x)))
                out = new if out is None else new + dec[name + "aux_up"](out)
        return out  # type: ignore[return-value]  # the finest level always adds to it

    def _label(self) -> Tensor:
        """The embedding of a vector that is sqrt(classes) at the label and 0 elsewhere."""
        linear: Any = self.map_label
        if self.label is None:
            return linear.bias
        return linear.weight[:, self.label] * math.sqrt(linear.in_features) + linear.bias


class Frequencies(nn.Module):
    """[sin(w t), cos(w t)], (B, width)."""

    freqs: Tensor | None

    def __init__(self, width: int, fourier: bool) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("freqs", torch.empty(width // 2) if fourier else None)

    def forward(self, time: Tensor) -> Tensor:
        if self.freqs is not None:
            w = self.freqs.to(time.dtype) * (2 * math.pi)
        else:
            half = self.width // 2
            index = torch.arange(half, dtype=time.dtype, device=time.device)
            w = torch.exp(index * (-math.log(10000) / (half - 1)))
        angle = time[:, None] * w
        return torch.cat([angle.sin(), angle.cos()], dim=1)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(min(32, channels // 4), 1), channels, eps=1e-6)


class Block(nn.Module):
    """A residual block, and the attention after it; resize is "down", "up" or None."""

    def __init__(
        self,
        a: SongArchitecture,
        source: int,
        target: int,
        attends: bool = False,
        resize: str | None = None,
    ) -> None:
        super().__init__()

        def conv(kernel: int) -> nn.Module:
            if resize is not None:
                return FilteredConv(source, target, kernel, resize, a.taps)
            return nn.Conv2d(source, target, kernel, padding=kernel // 2)

        self.norm0, self.conv0 = norm(source), conv(3)
        self.affine = nn.Linear(a.embedding, target)
        self.norm1 = norm(target)
        self.conv1 = nn.Conv2d(target, target, 3, padding=1)
        self.skip = nn.Identity() if source == target and resize is None else conv(1)
        self.attends = attends
        if attends:
            self.norm2 = norm(target)
            self.qkv = nn.Conv2d(target, 3 * target, 1)
            self.proj = nn.Conv2d(target, target, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(functional.silu(self.norm0(x)))
        h = h + self.affine(emb)[:, :, None, None]
        h = self.conv1(functional.silu(self.norm1(h)))
        x = (self.skip(x) + h) / math.sqrt(2)
        if not self.attends:
            return x
        # q, k and v of one channel lie side by side.
        q, k, v = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (1, -1, 3)).unbind(3)
        return (x + self.proj(attended(q, k, v).reshape(x.shape))) / math.sqrt(2)


class Filter(nn.Module):
    """Half or twice the size through a filter (1, 1, taps, taps) of sum 1, on every channel."""

    resample_filter: Tensor

    def __init__(self, resize: str, taps: int) -> None:
        super().__init__()
        self.resize = resize
        self.register_buffer("resample_filter", torch.empty(1, 1, taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        return resized(x, self.resample_filter, self.resize)


class FilteredConv(nn.Conv2d):
    """A convolution after a filter that halves or doubles the size, or before one that halves it.

    The two orders differ at the border: with conv_first the image is padded once, with zeros, for
    both.
    """

    resample_filter: Tensor

    def __init__(
        self,
        source: int,
        target: int,
        kernel: int,
        resize: str,
        taps: int,
        conv_first: bool = False,
    ) -> None:
        extra = (taps - 1) // 2 if conv_first else 0
        super().__init__(source, target, kernel, padding=kernel // 2 + extra)
        self.resize, self.conv_first = resize, conv_first
        self.register_buffer("resample_filter", torch.empty(1, 1, taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        if not self.conv_first:
            return super().forward(resized(x, self.resample_filter, self.resize))
        # The bias comes after the filter, whose sum is 1 to rounding only.
        h = functional.conv2d(x, self.weight, padding=self.padding)
        h = resized(h, self.resample_filter, self.resize, padding=0)
        return h + self.bias[:, None, None] if self.bias is not None else h


def resized(x: Tensor, kernel: Tensor, resize: str, padding: int | None = None) -> Tensor:
    """x (B, C, H, W) filtered and every second value kept, or zeros put between and filtered."""
    channels, taps = x.shape[1], kernel.shape[-1]
    padding = (taps - 1) // 2 if padding is None else padding
    each = kernel.to(x.dtype).expand(channels, 1, taps, taps)
    if resize == "down":
        return functional.conv2d(x, each, stride=2, padding=padding, groups=channels)
    return functional.conv_transpose2d(x, 4 * each, stride=2, padding=padding, groups=channels)
