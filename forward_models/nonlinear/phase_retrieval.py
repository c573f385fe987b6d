"""Fourier phase retrieval: the modulus of the spectrum of an image surrounded by zeros."""

from __future__ import annotations

from typing import Literal, final, get_args

import torch
from torch import Tensor

from ..checks import Field, Shape, check_image_shape, check_positive, check_same
from ..operator import Operator
from .detection import intensity, modulus

Kind = Literal["amplitude", "intensity"]


def _all_columns(half: Tensor, width: int) -> Tensor:
    """|F| at every frequency from the columns 0 to width // 2: |F(-k)| = |F(k)| for real images."""
    mirrored = half[..., 1 : (width + 1) // 2].flip((-2, -1)).roll(1, -2)
    return torch.cat([half, mirrored], -1)


@final
class PhaseRetrieval(Operator):
    """y = |F P x| or |F P x|^2: P puts zeros around the image, F is the unitary Fourier transform.

    (B, C, H, W) real or complex to (B, C, round(ratio H), round(ratio W)) real, every channel
    alone, frequency 0 first (`torch.fft.fftshift(y, dim=(-2, -1))` puts it in the middle). The
    benchmark called "oversampling 2" (Chung et al. 2023; Zhang et al. 2024) pads 256 pixels by 64
    on each side: it is ratio 1.5, amplitude, images in [0, 1], sigma 0.05.

    What y cannot tell apart, in each channel: c x for any |c| = 1 (the sign of a real image); x
    shifted, where its content still fits into the frame (by any circular shift at ratio 1); x
    turned by 180 degrees and conjugated. Samplers started twice may return different ones of
    these. Almost every other ambiguity is gone at ratio 2 and above. The amplitude is not
    differentiable where it is 0; the derivative taken there is 0. Nothing is smoothed. Cost: one
    fast transform; for real images half of one.

    Args:
        ratio: side of the transform over the side of the image, at least 1.
        kind: "amplitude" or "intensity".
        image_shape: (C, H, W); default any size.

    Raises:
        TypeError: ratio is no number.
        ValueError: ratio < 1, an unknown kind, or an image shape that is not (C, H, W).

    Paper: Fienup, Phase retrieval algorithms: a comparison, 1982,
    https://doi.org/10.1364/AO.21.002758
    """

    event_ndim = 3
    measurement_ndim = 3
    event_field: Field = "any"

    def __init__(
        self, ratio: float = 2.0, kind: Kind = "amplitude", image_shape: Shape | None = None
    ) -> None:
        self.ratio = check_positive("ratio", ratio)
        if self.ratio < 1:
            raise ValueError(
                f"ratio must be at least 1, got {ratio}: the transform holds the image"
            )
        if kind not in get_args(Kind):
            raise ValueError(f"unknown kind {kind!r}; known: {', '.join(get_args(Kind))}")
        self.kind: Kind = kind
        if image_shape is not None:
            self.event_shape = check_image_shape(image_shape)
            self.measurement_shape = self.output_shape(self.event_shape)

    def output_shape(self, event_shape: Shape) -> Shape:
        c, h, w = event_shape
        return (c, round(self.ratio * h), round(self.ratio * w))

    def input_shape(self, measurement_shape: Shape) -> Shape:
        if self.event_shape is not None:
            return self.event_shape
        c, h, w = measurement_shape
        # Multiples of a ratio >= 1 lie at least 1 apart: one size at most is padded to h.
        found = (c, round(h / self.ratio), round(w / self.ratio))
        if self.output_shape(found) != measurement_shape:
            raise ValueError(
                f"y is {measurement_shape}: padding by the ratio {self.ratio:g} takes no image to "
                f"this size, {found} goes to {self.output_shape(found)}"
            )
        return found

    def _spectrum(self, x: Tensor) -> Tensor:
        """F P x, of real images the columns 0 to width // 2 alone."""
        size = self.output_shape(tuple(x.shape[1:]))[1:]
        # Where the image lies within the zeros changes phases alone: it may lie in a corner.
        transform = torch.fft.fft2 if x.is_complex() else torch.fft.rfft2
        result: Tensor = transform(x, s=size, norm="ortho")
        return result

    def _apply(self, x: Tensor) -> Tensor:
        detected = (modulus if self.kind == "amplitude" else intensity)(self._spectrum(x))
        if x.is_complex():
            return detected
        return _all_columns(detected, self.output_shape(tuple(x.shape[1:]))[2])

    def vjp(self, x: Tensor, u: Tensor) -> Tensor:
        """J(x)^T u in closed form, P^T F^H (2 F P x * u) of intensities: two transforms."""
        self.check_image(x)
        shape = self.output_shape(tuple(x.shape[1:]))
        y = torch.empty((len(x), *shape), dtype=x.dtype.to_real(), device=x.device)
        check_same("u", u, "f(x)", y)
        z = self._spectrum(x)
        slope = torch.sgn(z) if self.kind == "amplitude" else 2 * z
        height, width = x.shape[-2:]
        if x.is_complex():
            return torch.fft.ifft2(slope * u, norm="ortho")[..., :height, :width]
        # The real part of an inverse transform is that of the Hermitian part of the spectrum.
        even = (u + u.flip((-2, -1)).roll((1, 1), (-2, -1)))[..., : z.shape[-1]] / 2
        back: Tensor = torch.fft.irfft2(slope * even, s=shape[1:], norm="ortho")
        return back[..., :height, :width]
