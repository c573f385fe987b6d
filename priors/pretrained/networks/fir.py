"""Resampling of images by two with a finite impulse response (FIR) filter, as in StyleGAN 2.

With k (K, K) of unit sum, zeros outside the image and a factor of two,

    down(x) = (k * x) at every second pixel,      up(x) = 4 k * (x with zeros between its pixels)

where * is convolution. Both keep constants, away from the border. `down` and `up` keep the image's
centre: k is padded by K - 2, one more before than after where that is odd.

Paper: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020,
https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def up(x: Tensor, kernel: Sequence[float]) -> Tensor:
    """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
    # A transposed convolution of stride 2 is the convolution of the image with zeros between.
    extra = len(kernel) - 2
    first, last = (extra + 1) // 2, extra // 2
    full = functional.conv_transpose2d(x, 4 * _filters(kernel, x), stride=2, groups=x.shape[1])
    return full[..., last : full.shape[-2] - first, last : full.shape[-1] - first]


def down(x: Tensor, kernel: Sequence[float]) -> Tensor:
    """(B, C, H, W) -> (B, C, H / 2, W / 2), H and W even."""
    return _filtered(x, kernel, extra=len(kernel) - 2, stride=2)


def down_convolution(x: Tensor, convolution: nn.Conv2d, kernel: Sequence[float]) -> Tensor:
    """The filter, then a convolution of stride 2; the image is padded once, before both."""
    extra = len(kernel) - 2 + convolution.kernel_size[0] - 1
    return convolution(_filtered(x, kernel, extra, stride=1))


def _filtered(x: Tensor, kernel: Sequence[float], extra: int, stride: int) -> Tensor:
    first, last = (extra + 1) // 2, extra // 2
    padded = functional.pad(x, (first, last, first, last))
    # conv2d correlates: it wants the mirrored kernel.
    mirrored = _filters(kernel, x).flip(-1, -2)
    return functional.conv2d(padded, mirrored, stride=stride, groups=x.shape[1])


def _filters(kernel: Sequence[float], x: Tensor) -> Tensor:
    """k of unit sum for every channel of x, (C, 1, K, K)."""
    k = torch.tensor(kernel, dtype=x.dtype, device=x.device)
    k = k / k.sum()
    return torch.outer(k, k).expand(x.shape[1], 1, -1, -1)
