"""The layers of NCSN++, DDPM++ and DDPM; names of their parts are those of published weights.

A residual block is (x, e) -> (x' + h) / c. It makes h from x by norm, swish, resampling,
convolution, the addition of an affine map of swish(e), norm, swish and convolution; and x' from x
by the same resampling and, where anything changed, a pointwise map. c is sqrt(2) where `rescale`,
which keeps the variance, else 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import fir as filters

Kernel = Sequence[float] | None
_PARTS = {
    "ddpm": ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1", "NIN_0"),
    "biggan": ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1", "Conv_2"),
    "original": ("GroupNorm_0", "GroupNorm_1", "Conv_0", "Conv_1", "Dense_0", "NIN_0"),
}


def groups(channels: int) -> int:
    """Groups of a normalisation: four channels each, at most 32 groups."""
    return min(channels // 4, 32)


def halved(x: Tensor, kernel: Kernel) -> Tensor:
    """Half the height and width: the mean of 2 x 2 pixels, or by an FIR filter."""
    return functional.avg_pool2d(x, 2) if kernel is None else filters.down(x, kernel)


def doubled(x: Tensor, kernel: Kernel) -> Tensor:
    """Twice the height and width: every pixel four times, or by an FIR filter."""
    return functional.interpolate(x, scale_factor=2.0) if kernel is None else filters.up(x, kernel)


def positional(time: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width): sines, then cosines, of time at width / 2 rates from 1 to 1 / 10000."""
    half = width // 2
    exponent = torch.arange(half, dtype=time.dtype, device=time.device) / (half - 1)
    angle = time[:, None] * torch.exp(-math.log(10_000) * exponent)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class FourierFeatures(nn.Module):
    """(B,) -> (B, 2 width): sin, then cos, of 2 pi W value; W is fixed when training starts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(width), requires_grad=False)

    def forward(self, value: Tensor) -> Tensor:
        angle = 2 * math.pi * value[:, None] * self.W
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class NIN(nn.Module):
    """Network in network: one linear map W (in, out) and b at every pixel."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels, width))
        self.b = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[:, None, None]


class ResidualBlock(nn.Module):
    """See above; `kind` names the parts and their order, in which averaged weights are stored."""

    GroupNorm_0: nn.GroupNorm
    GroupNorm_1: nn.GroupNorm
    Conv_0: nn.Conv2d
    Conv_1: nn.Conv2d
    Dense_0: nn.Linear

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        embedding: int,
        kind: str,
        norm_groups: Callable[[int], int],
        rescale: bool,
        kernel: Kernel = None,
        resample: Callable[[Tensor, Kernel], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.scale = 2**-0.5 if rescale else 1.0
        self.kernel, self.resample = kernel, resample
        parts: dict[str, nn.Module] = {
            "GroupNorm_0": nn.GroupNorm(norm_groups(channels), channels, eps=1e-6),
            "Conv_0": nn.Conv2d(channels, width, 3, padding=1),
            "Dense_0": nn.Linear(embedding, width),
            "GroupNorm_1": nn.GroupNorm(norm_groups(width), width, eps=1e-6),
            "Conv_1": nn.Conv2d(width, width, 3, padding=1),
        }
        self.shortcut = None
        if channels != width or resample is not None:
            self.shortcut = _PARTS[kind][-1]
            pointwise = kind == "biggan"
            parts[self.shortcut] = (
                nn.Conv2d(channels, width, 1) if pointwise else NIN(channels, width)
            )
        for name in _PARTS[kind]:
            if name in parts:
                self.add_module(name, parts[name])

    def forward(self, x: Tensor, embedded: Tensor | None) -> Tensor:
        h = functional.silu(self.GroupNorm_0(x))
        if self.resample is not None:
            h, x = self.resample(h, self.kernel), self.resample(x, self.kernel)
        h = self.Conv_0(h)
        if embedded is not None:
            h = h + self.Dense_0(functional.silu(embedded))[:, :, None, None]
        h = self.Conv_1(functional.silu(self.GroupNorm_1(h)))
        if self.shortcut is not None:
            x = self.get_submodule(self.shortcut)(x)
        return (x + h) * self.scale


class Attention(nn.Module):
    """Self-attention of all pixels, one head: x + NIN_3(softmax(q k^T / sqrt(C)) v), rescaled."""

    def __init__(self, channels: int, *, norm_groups: Callable[[int], int], rescale: bool) -> None:
        super().__init__()
        self.scale = 2**-0.5 if rescale else 1.0
        self.GroupNorm_0 = nn.GroupNorm(norm_groups(channels), channels, eps=1e-6)
        self.NIN_0 = NIN(channels, channels)
        self.NIN_1 = NIN(channels, channels)
        self.NIN_2 = NIN(channels, channels)
        self.NIN_3 = NIN(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (nin(h).flatten(2).mT for nin in (self.NIN_0, self.NIN_1, self.NIN_2))
        attended = functional.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape)
        return (x + self.NIN_3(attended)) * self.scale


class Downsample(nn.Module):
    """A convolution that halves the image, after an FIR filter where there is one."""

    Conv_0: nn.Conv2d
    Conv2d_0: nn.Conv2d

    def __init__(self, channels: int, width: int, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        name = "Conv_0" if kernel is None else "Conv2d_0"
        self.add_module(name, nn.Conv2d(channels, width, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel is None:
            return self.Conv_0(functional.pad(x, (0, 1, 0, 1)))
        return filters.down_convolution(x, self.Conv2d_0, self.kernel)


class Upsample(nn.Module):
    """Every pixel four times, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.Conv_0(doubled(x, None))


class Combine(nn.Module):
    """h + a pointwise map of the image."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, width, 1)

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        return h + self.Conv_0(image)
