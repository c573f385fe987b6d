"""Orthonormal transforms drawn at random, which spread every image over all measurements."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Shape
from .orthonormal import Orthonormal


@final
class RandomConvolution(Orthonormal):
    """y = F^-1 (sigma . F x): circular convolution with a filter of random phases, |sigma| = 1.

    The phases are uniform and independent, up to sigma(-k) = conj sigma(k), which keeps y real, and
    the same for every channel. Any rows of it (`Subsampled`) are incoherent with every fixed basis
    in which images are sparse. Two FFTs, O(N log N), and N numbers instead of a dense matrix.

    Args:
        image_shape: (C, H, W).
        generator: of the phases.

    Example:
        rows = random_mask((64, 64), keep=0.25)
        A = Subsampled(RandomConvolution((1, 64, 64)), rows)

    Paper: Romberg, Compressive sensing by random convolution, https://doi.org/10.1137/08072975X
    """

    def __init__(self, image_shape: Shape, generator: torch.Generator | None = None) -> None:
        super().__init__(image_shape)
        # The spectrum of white noise has just these phases, with their symmetry.
        device = "cpu" if generator is None else generator.device
        noise = torch.randn(
            self.image_shape[1:], generator=generator, dtype=torch.float64, device=device
        )
        self._phase = Constant(torch.fft.rfft2(noise).sgn())

    def _apply(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * self._phase.like(x), s=x.shape[-2:])

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(y) * self._phase.like(y).conj(), s=y.shape[-2:])


@final
class RandomSigns(Orthonormal):
    """y = eps . x: every pixel times +1 or -1 with equal odds, the same for every channel.

    Before a fixed transform it takes the place of a random one: the rows of `HadamardTransform(s) @
    RandomSigns(s)` or `CosineTransform(s) @ RandomSigns(s)` measure any sparse image equally well.

    Args:
        image_shape: (C, H, W).
        generator: of the signs.

    Paper: Do, Gan, Nguyen and Tran, Fast and efficient compressive sensing using structurally
    random matrices, https://doi.org/10.1109/TSP.2011.2170977
    """

    entrywise = True

    def __init__(self, image_shape: Shape, generator: torch.Generator | None = None) -> None:
        super().__init__(image_shape)
        device = "cpu" if generator is None else generator.device
        bits = torch.randint(2, self.image_shape[1:], generator=generator, device=device)
        self._signs = Constant(2.0 * bits.double() - 1)

    def _apply(self, x: Tensor) -> Tensor:
        return x * self._signs.like(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y)
