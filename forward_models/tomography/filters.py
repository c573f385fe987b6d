"""The ramp filter of filtered back-projection, and its damped variants."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Filter = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"]


def check_filter(name: str) -> None:
    """Raise ValueError for an unknown name."""
    if name not in get_args(Filter):
        raise ValueError(f"unknown filter {name!r}; known: {', '.join(get_args(Filter))}")


def ramp_filter(data: Tensor, spacing: float, name: Filter, arc: bool = False) -> Tensor:
    """The convolution spacing * sum over k of h[n - k] data[..., k], same shape.

    h is the band-limited ramp, h[0] = 1 / (4 d^2), h[n] = -1 / (pi n d)^2 for odd n and 0 for even
    n: sampling |f| instead would take away the mean. On an arc, where d is an angle, sin(n d)
    stands in the place of n d. The damped variants multiply the response by a window that falls
    from 1 at zero frequency r to its value at the highest frequency, r = 1.
    """
    bins = data.shape[-1]
    # Twice the length keeps the periodic convolution from wrapping into the data.
    size = 2 ** math.ceil(math.log2(max(2 * bins, 2)))
    response = ramp_response(size, spacing, name, arc).to(data)
    spectrum = torch.fft.rfft(data, n=size) * response
    return torch.fft.irfft(spectrum, n=size)[..., :bins]


def ramp_response(size: int, spacing: float, name: Filter, arc: bool = False) -> Tensor:
    """The real frequency response on `size` periodic samples, (size // 2 + 1,), float64."""
    n = torch.arange(size, dtype=torch.float64)
    n = torch.minimum(n, size - n)
    distance = torch.sin(n * spacing) if arc else n * spacing
    used = (n % 2 == 1) & (n * spacing < math.pi if arc else True)
    h = torch.where(used, -1 / (math.pi * torch.where(used, distance, 1.0)).square(), 0.0)
    h[0] = 1 / (4 * spacing**2)
    response = torch.fft.rfft(h).real * spacing
    r = torch.linspace(0, 1, size // 2 + 1, dtype=torch.float64)
    window = {
        "ramp": torch.ones_like(r),
        "shepp-logan": torch.sinc(r / 2),
        "cosine": torch.cos(math.pi / 2 * r),
        "hamming": 0.54 + 0.46 * torch.cos(math.pi * r),
        "hann": 0.5 + 0.5 * torch.cos(math.pi * r),
    }[name]
    return response * window
