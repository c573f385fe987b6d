"""Coded diffraction: several spectra of one image, each behind another known mask."""

from __future__ import annotations

from typing import Literal, final, get_args

import torch
from torch import Tensor

from ..checks import Constant, Field, Shape, check_dtype, check_finite, check_shape, check_tensor
from ..linear import LinearOperator

Code = Literal["unimodular", "ternary", "octanary"]


@final
class CodedDiffraction(LinearOperator):
    """The waves F(d_j x) behind J masks d_j, F unitary: `Intensity() @ CodedDiffraction(masks)`.

    (B, C, H, W) to (B, J, C, H, W), both complex, frequency 0 first; `@ RealToComplex()` takes real
    images. As intensities, the patterns of a
    few random masks fix an image up to one phase for each channel (its sign, if it is real):
    about 8 masks surely, fewer in practice; shifts and flips are told apart by the masks.
    A^H A multiplies every pixel by sum_j |d_j|^2, but there is no `svd`: `solve` uses conjugate
    gradients. Cost: J fast transforms a channel.

    Args:
        masks: d, (J, H, W), real or complex; see `coded_masks`.

    Raises:
        TypeError: masks are no floating-point or complex tensor.
        ValueError: they are not (J, H, W), or not finite.

    Paper: Candes, Li, Soltanolkotabi, Phase retrieval from coded diffraction patterns, 2015,
    https://arxiv.org/abs/1310.3240
    """

    event_ndim = 3
    measurement_ndim = 4
    event_field: Field = "complex"
    measurement_field: Field = "complex"

    def __init__(self, masks: Tensor) -> None:
        check_tensor("masks", masks)
        check_dtype("masks", masks, "any")
        if masks.ndim != 3 or 0 in masks.shape:
            raise ValueError(f"masks have shape {tuple(masks.shape)}, expected (J, H, W)")
        check_finite("masks", masks)
        self._masks = Constant(masks.to(torch.complex128)[:, None])

    @property
    def masks(self) -> Tensor:
        """d, (J, H, W), in double precision."""
        return self._masks.value[:, 0]

    def output_shape(self, event_shape: Shape) -> Shape:
        count, height, width = self.masks.shape
        if event_shape[1:] != (height, width):
            raise ValueError(
                f"the masks are {height} x {width}, the image is {event_shape}; they must agree in "
                "height and width"
            )
        return (count, *event_shape)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        if self.output_shape(measurement_shape[1:]) != measurement_shape:
            raise ValueError(
                f"y holds {measurement_shape[0]} patterns, there are {len(self.masks)} masks"
            )
        return measurement_shape[1:]

    def _apply(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(self._masks.like(x) * x[:, None], norm="ortho")

    def _adjoint(self, y: Tensor) -> Tensor:
        back = torch.fft.ifft2(y, norm="ortho") * self._masks.like(y).conj()
        return back.sum(1)

    def _normal(self, x: Tensor) -> Tensor:
        return self._masks.like(x).abs().square().sum(0) * x


def coded_masks(
    count: int,
    size: tuple[int, int],
    kind: Code = "octanary",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random masks (count, H, W), complex128, independent from pixel to pixel.

    "octanary": b1 b2 with b1 one of 1, -1, i, -i and b2 = sqrt(1/2) (4 of 5) or sqrt(3) (1 of 5);
    "ternary": 1, 0, -1 with probabilities 1/4, 1/2, 1/4; "unimodular": exp(i phi), phi uniform.
    E d = 0 in all; E |d|^2 is 1, 1/2 and 1.

    Raises ValueError for a count or size (H, W) that is not positive, or an unknown kind.
    """
    (count,) = check_shape("count", (count,))
    shape = (count, *check_shape("size", size))
    if len(shape) != 3:
        raise ValueError(f"size must be (H, W), got {shape[1:]}")
    if kind not in get_args(Code):
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(get_args(Code))}")
    device = None if generator is None else generator.device
    u, v = torch.rand(2, *shape, generator=generator, dtype=torch.float64, device=device)
    if kind == "ternary":
        return ((u < 0.25).double() - (u >= 0.75).double()).to(torch.complex128)
    if kind == "unimodular":
        return torch.polar(torch.ones_like(u), 2 * torch.pi * u)
    quarter = torch.polar(torch.ones_like(u), torch.pi / 2 * torch.floor(4 * u))
    return quarter * torch.where(v < 0.8, 0.5**0.5, 3**0.5)
