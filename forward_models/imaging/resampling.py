"""Downsampling: a coarse image from a fine one."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..checks import Shape, check_image_shape, check_shape
from ..linear import SVD, LinearOperator
from ..linear.linear_operator import is_uniform
from ..linear.svd import OrthogonalRowsSVD, divide
from .blur import Blur
from .borders import Padding


@final
class Downsampling(LinearOperator):
    """y = every f-th pixel of the image averaged over f x f boxes, or of a blurred image.

    "box": y[i, j] = mean of x[f i : f (i + 1), f j : f (j + 1)]. A A^T = I / f^2, so that `solve`
    with C = c I is one division; `svd` is known once `image_shape` is set.

    A kernel: y = (k * x)[::f, ::f] with the convolution of `Blur` and the given padding. With
    padding "circular" and C = c I `solve` is two transforms of the coarse image; else conjugate
    gradients. No `svd`.

    Cost: one sum over the pixels for boxes; for a kernel that of `Blur` at the pixels that are kept
    alone, or of the whole `Blur` where that is faster by Fourier transforms.

    Height and width must be multiples of f; with a kernel any size is served if `image_shape` is
    set, because the adjoint has to know it.

    Args:
        factor: f, an integer >= 1.
        method: "box", or a kernel (h, w).
        padding: for a kernel, see `Blur`.
        image_shape: (C, H, W); default any size.

    Raises:
        ValueError: an impossible factor, an unknown method, or a size that f does not divide.

    Paper: Zhao et al., Fast single image super-resolution using a new analytical solution for l2-l2
    problems, 2016, https://doi.org/10.1109/TIP.2016.2567075
    """

    event_ndim = 3
    measurement_ndim = 3

    def __init__(
        self,
        factor: int,
        method: Literal["box"] | Tensor = "box",
        padding: Padding = "circular",
        image_shape: Shape | None = None,
    ) -> None:
        (self.factor,) = check_shape("factor", (factor,))
        self.blur: Blur | None = None
        if isinstance(method, Tensor):
            self.blur = Blur(method, padding)
        elif method != "box":
            raise ValueError(f"unknown method {method!r}; known: 'box', or a kernel as a tensor")
        if image_shape is not None:
            shape = check_image_shape(image_shape)
            if self.blur is None:
                self._check_divisible(shape)
            self.event_shape = shape
            self.measurement_shape = self._coarse(shape)

    def _check_divisible(self, shape: Shape) -> None:
        if shape[-2] % self.factor or shape[-1] % self.factor:
            advice = "crop or pad the image"
            if self.blur is not None:
                advice += ", or pass image_shape=(C, H, W)"
            raise ValueError(
                f"the image is {shape}: factor {self.factor} must divide height and width; {advice}"
            )

    def _coarse(self, shape: Shape) -> Shape:
        c, height, width = shape if self.blur is None else self.blur.output_shape(shape)
        return (c, -(-height // self.factor), -(-width // self.factor))

    def output_shape(self, event_shape: Shape) -> Shape:
        if self.event_shape is None:
            fine = event_shape if self.blur is None else self.blur.output_shape(event_shape)
            self._check_divisible(fine)
        return self._coarse(event_shape)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        if self.event_shape is not None:
            return self.event_shape
        c, height, width = measurement_shape
        fine = (c, height * self.factor, width * self.factor)
        return fine if self.blur is None else self.blur.input_shape(fine)

    def _apply(self, x: Tensor) -> Tensor:
        if self.blur is None:
            return avg_pool2d(x, self.factor)
        return self.blur.apply_coarse(x, self.factor)

    def _adjoint(self, y: Tensor) -> Tensor:
        f = self.factor
        if self.blur is None:
            return y.repeat_interleave(f, -2).repeat_interleave(f, -1) / f**2
        _, height, width = self.input_shape(tuple(y.shape[1:]))
        return self.blur.adjoint_coarse(y, self.factor, (height, width))

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        if self.blur is not None:
            return None
        return torch.full((), 1 / self.factor**2, dtype=y.dtype, device=y.device)

    def _solve_isotropic(self, r: Tensor, c: Tensor, s: Tensor) -> Tensor | None:
        if self.blur is None:
            return super()._solve_isotropic(r, c, s)
        _, height, width = self.input_shape(tuple(r.shape[1:]))
        divisible = height % self.factor == 0 and width % self.factor == 0
        if self.blur.padding != "circular" or not divisible or not is_uniform(s, r):
            return None
        v = divide(torch.fft.rfft2(r), c * self.blur.circular_gram(r, self.factor) + s)
        return torch.fft.irfft2(v, s=r.shape[-2:])

    @property
    def svd(self) -> SVD | None:
        if self.blur is not None or self.measurement_shape is None:
            return None
        return OrthogonalRowsSVD(self, self.measurement_shape, 1 / self.factor)
