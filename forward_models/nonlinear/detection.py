"""Detectors that lose the phase: the modulus and the intensity of a wave."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Field, check_number
from ..operator import Pointwise


def modulus(z: Tensor) -> Tensor:
    """|z|, with derivative 0 at z = 0."""
    return z.abs()


def intensity(z: Tensor) -> Tensor:
    """|z|^2."""
    return (z * z.conj()).real if z.is_complex() else z.square()


@final
class Magnitude(Pointwise):
    """y = |z|, the modulus of every entry: `Magnitude() @ A` measures |A x|.

    Blind to a phase, or the sign, of each entry: |A x| = |A (c x)| for every |c| = 1. Not
    differentiable at z = 0; the derivative taken there is 0, the subgradient of smallest norm.
    Nothing is smoothed. Any shape, real or complex in, real out. Cost: one pass over the entries.
    """

    event_field: Field = "any"

    def _apply(self, x: Tensor) -> Tensor:
        return modulus(x)


@final
class Intensity(Pointwise):
    """y = |z|^2, what a detector counts of a wave: `Intensity() @ A` measures |A x|^2.

    Blind to a phase, or the sign, of each entry. Differentiable everywhere; the derivative
    vanishes at z = 0. Any shape, real or complex in, real out. Cost: one pass over the entries.
    """

    event_field: Field = "any"

    def _apply(self, x: Tensor) -> Tensor:
        return intensity(x)


@final
class PhaseObject(Pointwise):
    """z = exp(i scale x), the light behind a transparent object of phase `scale` x.

    Any shape, real in, complex out: `Intensity() @ AngularSpectrum(...) @ PhaseObject(1.0)` is an
    in-line hologram of it. Phases that differ by 2 pi look the same. Cost: a sine and a cosine per
    entry.

    Args:
        scale: radians for one data unit of x.

    Raises:
        TypeError: scale is no number.
        ValueError: it is zero, or not finite.
    """

    measurement_field: Field = "complex"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = check_number("scale", scale)
        if self.scale == 0:
            raise ValueError("scale is 0: a phase that nothing depends on")

    def _apply(self, x: Tensor) -> Tensor:
        phase = self.scale * x
        return torch.complex(phase.cos(), phase.sin())
