"""The operators that operators.py times, each beside the same operator of its peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import forward_models as fm

Projector = tuple[Callable[[Tensor], object], Callable[[Tensor], object] | None]


@dataclass(frozen=True)
class Pair:
    """One operator of ours and the peers that compute the same.

    make: side of a square image -> our operator. peers: name -> (side, our operator) -> (forward,
    adjoint); it raises ImportError if the peer is not installed. note: why ours is slower, if so.
    """

    name: str
    make: Callable[[int], Any]
    peers: dict[str, Callable[[int, Any], Projector]] = field(default_factory=dict)
    channels: int = 3
    complex: bool = False
    note: str = ""

    def shape(self, size: int) -> tuple[int, ...]:
        return (self.channels, size, size)


def _physics() -> Any:
    import deepinv.physics

    return deepinv.physics


def _linear(other: Any) -> Projector:
    return (lambda x: other.A(x), lambda y: other.A_adjoint(y))


SMALL = fm.gaussian_kernel(1.0)[None, None].float()  # 7 x 7
LARGE = torch.rand(31, 31, generator=torch.Generator().manual_seed(0))[None, None] / 481


def _mask(size: int) -> Tensor:
    return fm.random_mask((size, size), 0.5, torch.Generator().manual_seed(0))


def _blur(kernel: Tensor, padding: Any) -> Pair:
    k = kernel[0, 0]
    return Pair(
        f"blur {k.shape[0]}x{k.shape[1]} {padding}",
        lambda n: fm.Blur(k, padding),
        {
            "deepinv": lambda n, A: _linear(
                _physics().BlurFFT(img_size=(3, n, n), filter=kernel)
                if padding == "circular"
                else _physics().Blur(filter=kernel, padding=padding)
            ),
        },
    )


def _coil_maps(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, size, size, generator=generator, dtype=torch.complex64)


def _channels(y: Tensor) -> Tensor:
    """Complex (B, C, H, W) as real (B, 2, C, H, W), without a copy."""
    return torch.view_as_real(y).movedim(-1, 1)


def _single_coil(size: int, A: Any) -> Projector:
    other = _physics().MRI(mask=_mask(size).float()[None, None], img_size=(2, size, size))
    return (lambda x: other.A(x), lambda y: other.A_adjoint(_channels(y)[:, :, 0]))


def _multi_coil(size: int, A: Any) -> Projector:
    other = _physics().MultiCoilMRI(
        mask=_mask(size).float()[None, None], coil_maps=_coil_maps(size)[None],
        img_size=(2, size, size),
    )  # fmt: skip
    return (
        lambda x: other.A(x),
        lambda y: other.A_adjoint(_channels(y)),
    )


def _spokes(size: int) -> Tensor:
    return fm.radial_trajectory(size // 4, 2 * size)


def _finufft(size: int, A: Any) -> Projector:
    import finufft

    k = 2 * torch.pi * _spokes(size).float()
    rows, columns = (axis.contiguous().numpy() for axis in k.T)
    settings = {"eps": 1e-6, "nthreads": torch.get_num_threads()}
    return (
        lambda x: finufft.nufft2d2(rows, columns, x[:, 0].numpy(), isign=-1, **settings),
        lambda y: finufft.nufft2d1(
            rows, columns, y[:, 0].numpy(), (size, size), isign=1, **settings
        ),
    )


PAIRS: list[Pair] = [
    Pair(
        "mask",
        lambda n: fm.Inpainting(_mask(n)),
        {
            "deepinv": lambda n, A: _linear(
                _physics().Inpainting(img_size=(3, n, n), mask=_mask(n).float().expand(3, n, n))
            )
        },
    ),
    *(
        _blur(kernel, padding)
        for kernel in (SMALL, LARGE)
        for padding in ("circular", "reflect", "replicate", "constant", "valid")
    ),
    Pair(
        "downsampling x4 by a kernel",
        lambda n: fm.Downsampling(4, SMALL[0, 0]),
        {
            "deepinv": lambda n, A: _linear(
                _physics().Downsampling(
                    img_size=(3, n, n), factor=4, filter=SMALL, padding="circular"
                )
            )
        },
    ),
    Pair(
        "MRI, one coil",
        lambda n: fm.MRI(_mask(n)) @ fm.ChannelsToComplex(),
        {"deepinv": _single_coil},
        channels=2,
    ),
    Pair(
        "MRI, 8 coils",
        lambda n: fm.MultiCoilMRI(_mask(n), _coil_maps(n)) @ fm.ChannelsToComplex(),
        {"deepinv": _multi_coil},
        channels=2,
    ),
    Pair(
        "MRI, n / 4 radial spokes of 2 n samples",
        lambda n: fm.Nufft((n, n), _spokes(n)),
        {"finufft alone": _finufft},
        channels=1,
        complex=True,
    ),
]
