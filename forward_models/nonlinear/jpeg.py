"""JPEG: the true codec for recordings, and a differentiable imitation of it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from numbers import Integral
from typing import Literal, final, get_args

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ..checks import Constant, Shape
from ..operator import Operator

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
Rounding = Literal["straight-through", "soft"]

# Tables K.1 and K.2 of ITU-T T.81, at quality 50.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
_STEPS: dict[str, tuple[int, int]] = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}

# JFIF: R, G, B to Y, Cb - 128, Cr - 128.
_YCC = torch.tensor(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772],
        [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402],
    ],
    dtype=torch.float64,
)


def quantisation_table(quality: int, chroma: bool = False) -> Tensor:
    """libjpeg's steps of the 8 x 8 coefficients at a quality from 1 to 100, (8, 8) int64."""
    if isinstance(quality, bool) or not isinstance(quality, Integral):
        raise TypeError(f"quality must be an integer, got {type(quality).__name__}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be from 1 to 100, got {quality}")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor(_CHROMA if chroma else _LUMA)
    return torch.div(table * percent + 50, 100, rounding_mode="floor").clamp(1, 255)


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 samples."""
    n = torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi / 8 * (n + 0.5) * n[:, None]) / 2
    rows[0] *= 0.5**0.5
    return rows


def _straight_through(u: Tensor) -> Tensor:
    return u + (u.round() - u).detach()


def _soft(u: Tensor) -> Tensor:
    return u - torch.sin(2 * math.pi * u) / (2 * math.pi)


def _same(u: Tensor) -> Tensor:
    return u


@final
class JPEG(Operator):
    """y = decode(encode(x)), the picture that is left of x after JPEG compression.

    (B, C, H, W) to the same shape, any H and W, values in [0, 1]; C = 1 (grey) or 3 (RGB). Values
    outside saturate, as 8-bit numbers do. `record`, from which `simulate` starts, is the true
    codec (libjpeg by way of Pillow, on the CPU, sample by sample). `apply` computes the same steps
    in floating point - 8-bit values, YCbCr, subsampled colours, cosine transform of 8 x 8 blocks,
    quantisation, and all of it back - and deviates from libjpeg's integers by 0.1 to 0.7
    grey levels in the mean on photographs.

    The derivative of the true codec is 0 almost everywhere and useless. What autograd returns is

        "straight-through": apply() rounds, and every rounding counts as the identity in
            derivatives. This is no derivative of y: finite differences do not agree with it.
        "soft": q(u) = u - sin(2 pi u) / (2 pi) replaces the rounding of coefficients, 8-bit
            roundings are left out. apply() is then smooth (but for saturation) and its derivative
            is exact, 0 at whole multiples of a quantisation step; its values lie between the
            true codec's and the image's.

    The derivative is 0 where values saturate. Cost: two cosine transforms.

    Args:
        quality: 1 to 100, libjpeg's scaling of the standard's tables.
        subsampling: of the colours; "4:2:0" is the common one. Without meaning for C = 1.
        rounding: "straight-through" or "soft", see above.

    Raises:
        TypeError: a quality that is no integer.
        ValueError: a quality outside 1 to 100, an unknown subsampling or rounding; at use, a
            number of channels other than 1 and 3.

    Paper: Wallace, The JPEG still picture compression standard, 1992,
    https://doi.org/10.1109/30.125072; Bengio et al., Estimating or propagating gradients through
    stochastic neurons, 2013, https://arxiv.org/abs/1308.3432
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self,
        quality: int = 50,
        subsampling: Subsampling = "4:2:0",
        rounding: Rounding = "straight-through",
    ) -> None:
        luma, chroma = quantisation_table(quality), quantisation_table(quality, chroma=True)
        if subsampling not in get_args(Subsampling):
            raise ValueError(
                f"unknown subsampling {subsampling!r}; known: {', '.join(get_args(Subsampling))}"
            )
        if rounding not in get_args(Rounding):
            raise ValueError(
                f"unknown rounding {rounding!r}; known: {', '.join(get_args(Rounding))}"
            )
        self.quality = int(quality)
        self.subsampling: Subsampling = subsampling
        self.rounding: Rounding = rounding
        # Rows of the coefficients, blocks along the width, columns of the coefficients.
        self._luma, self._chroma = (Constant(t.double()[:, None]) for t in (luma, chroma))
        self._cosines = Constant(_cosines())
        self._to_ycc, self._to_rgb = Constant(_YCC), Constant(torch.linalg.inv(_YCC))

    def output_shape(self, event_shape: Shape) -> Shape:
        if event_shape[0] not in (1, 3):
            raise ValueError(f"JPEG takes 1 or 3 channels, the image is {event_shape}")
        return event_shape

    def input_shape(self, measurement_shape: Shape) -> Shape:
        return self.output_shape(measurement_shape)

    # ---- the imitation ---------------------------------------------------------------------

    def _apply(self, x: Tensor) -> Tensor:
        exact = self.rounding == "straight-through"
        whole = _straight_through if exact else _same
        pixels = whole(255 * x.clamp(0, 1))
        if x.shape[1] == 1:
            return self._component(pixels - 128, self._luma, whole).add(128) / 255
        ycc = whole(torch.einsum("dc,bchw->bdhw", self._to_ycc.like(x), pixels))
        # Luminance is stored around 128, colours are differences around 0.
        luma = self._component(ycc[:, :1] - 128, self._luma, whole) + 128
        colours = self._colours(ycc[:, 1:], whole)
        decoded = torch.cat([luma, colours], 1)
        rgb = torch.einsum("cd,bdhw->bchw", self._to_rgb.like(x), decoded)
        return whole(rgb).clamp(0, 255) / 255

    def _component(self, plane: Tensor, table: Constant, whole: Callable[..., Tensor]) -> Tensor:
        """One component, of values from -128 to 127, through quantisation and back."""
        height, width = plane.shape[-2:]
        padded = _extend(plane, -height % 8, -width % 8)
        cosines, q = self._cosines.like(plane), table.like(plane)
        blocks = cosines @ padded.unflatten(-2, (-1, 8))
        coefficients = blocks.unflatten(-1, (-1, 8)) @ cosines.mT / q
        rounded = _straight_through if self.rounding == "straight-through" else _soft
        blocks = (rounded(coefficients) * q @ cosines).flatten(-2)
        back = (cosines.mT @ blocks).flatten(-3, -2)
        return whole(back[..., :height, :width]).clamp(-128, 127)

    def _colours(self, cc: Tensor, whole: Callable[..., Tensor]) -> Tensor:
        """Cb and Cr, subsampled by block means and brought back as libjpeg interpolates."""
        rows, columns = _STEPS[self.subsampling]
        if (rows, columns) == (1, 1):
            return self._component(cc, self._chroma, whole)
        height, width = cc.shape[-2:]
        small = -(-height // rows), -(-width // columns)
        # libjpeg repeats the last column before it takes means and the last row after.
        wide = _extend(cc, -height % rows, -width % (8 * columns))
        means = whole(avg_pool2d(wide, (rows, columns)))
        stored = self._component(means, self._chroma, whole)[..., : small[0], : small[1]]
        # It interpolates nothing that is two pixels wide or less.
        mode = "bilinear" if small[1] > 2 else "nearest"
        corners = {"align_corners": False} if mode == "bilinear" else {}
        full = interpolate(stored, scale_factor=(rows, columns), mode=mode, **corners)
        return whole(full[..., :height, :width])

    # ---- the codec -------------------------------------------------------------------------

    def record(self, x: Tensor) -> Tensor:
        """The picture that libjpeg returns, (B, C, H, W), whole multiples of 1 / 255."""
        self.check_image(x)
        import numpy as np
        from PIL import Image

        options = {} if x.shape[1] == 1 else {"subsampling": self.subsampling}
        decoded = []
        for image in (255 * x.detach().clamp(0, 1)).round().to("cpu", torch.uint8):
            array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
            file = io.BytesIO()
            Image.fromarray(array).save(file, "JPEG", quality=self.quality, **options)
            picture = torch.from_numpy(np.array(Image.open(file)))
            decoded.append(picture[None] if len(image) == 1 else picture.permute(2, 0, 1))
        return torch.stack(decoded).to(device=x.device, dtype=x.dtype) / 255


def _extend(x: Tensor, bottom: int, right: int) -> Tensor:
    """Repeat the last row and the last column."""
    return pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
