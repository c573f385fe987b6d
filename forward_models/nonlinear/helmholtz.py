"""Waves in the plane: sources, sensors and Green's function on a grid of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from ..checks import Constant, check_positive, check_shape

Source = Literal["plane", "line"]


@dataclass(frozen=True)
class Scene:
    """A grid of pixels with sources and sensors around it, evenly on a circle; lengths in one unit.

    Waves obey (laplace + k^2 (1 + f)) u = 0 with u = u_in + u_scattered outgoing, time factor
    exp(-i omega t), k = 2 pi / wavelength; g(r) = i/4 H0(k |r|) is Green's function. Pixel (row,
    column) lies at x = (column - (W - 1) / 2) pixel, y = ((H - 1) / 2 - row) pixel. Fields are
    constant over a pixel, and integrals over it are those over the disk of the same area, closed
    forms of Bessel functions.

    Attributes:
        image_shape: (H, W).
        pixel: side of a pixel.
        wavelength: in the background.
        illuminations, receivers: T and R, at the angles 2 pi j / T and 2 pi j / R from the x axis.
        radius: of the circle of receivers, and of line sources.
        source: "plane" waves that travel in the direction of their angle, amplitude 1; or "line"
            sources at their angle on the circle, amplitude g.
    """

    image_shape: tuple[int, int]
    pixel: float
    wavelength: float
    illuminations: int
    receivers: int
    radius: float
    source: Source = "plane"
    incident: Constant = field(init=False, repr=False, compare=False)
    to_receivers: Constant = field(init=False, repr=False, compare=False)
    kernel: Constant = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = check_shape("image_shape", self.image_shape)
        if len(size) != 2:
            raise ValueError(f"image_shape must be (H, W), got {size}")
        height, width = size
        for name in ("pixel", "wavelength", "radius"):
            check_positive(name, getattr(self, name))
        counts = check_shape("illuminations and receivers", (self.illuminations, self.receivers))
        if self.source not in get_args(Source):
            raise ValueError(
                f"unknown source {self.source!r}; known: {', '.join(get_args(Source))}"
            )
        if self.radius <= self.pixel * math.hypot(height, width) / 2:
            raise ValueError(
                f"the circle of radius {self.radius} cuts the grid of {height} x {width} pixels "
                f"of {self.pixel}; it must surround it"
            )
        for name, value in (
            ("image_shape", (height, width)),
            ("illuminations", counts[0]),
            ("receivers", counts[1]),
            ("incident", Constant(self._incident())),
            ("to_receivers", Constant(self._to_receivers())),
            ("kernel", Constant(self._kernel())),
        ):
            object.__setattr__(self, name, value)

    @property
    def k(self) -> float:
        """The wave number in the background."""
        return 2 * math.pi / self.wavelength

    def _grid(self) -> tuple[Tensor, Tensor]:
        """x and y of every pixel, (H W,)."""
        height, width = self.image_shape
        x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * self.pixel
        y = ((height - 1) / 2 - torch.arange(height, dtype=torch.float64)) * self.pixel
        return x.repeat(height), y.repeat_interleave(width)

    def _distance(self, count: int) -> Tensor:
        """From `count` points on the circle to every pixel, (count, H W)."""
        angle = 2 * math.pi / count * torch.arange(count, dtype=torch.float64)[:, None]
        x, y = self._grid()
        return torch.hypot(x - self.radius * angle.cos(), y - self.radius * angle.sin())

    def _incident(self) -> Tensor:
        """u_in on the grid, (T, H W)."""
        if self.source == "line":
            return 0.25j * hankel(0, self.k * self._distance(self.illuminations))
        count = self.illuminations
        angle = 2 * math.pi / count * torch.arange(count, dtype=torch.float64)[:, None]
        x, y = self._grid()
        return torch.exp(1j * self.k * (x * angle.cos() + y * angle.sin()))

    @property
    def _disk(self) -> tuple[float, complex]:
        """Radius a of the disk of a pixel's area; k^2 times the integral of g over it, over H0."""
        from scipy.special import j1

        a = self.pixel / math.sqrt(math.pi)
        return a, 0.5j * math.pi * self.k * a * float(j1(self.k * a))

    def _to_receivers(self) -> Tensor:
        """k^2 times the integral of g over each pixel, seen from each receiver, (R, H W)."""
        return self._disk[1] * hankel(0, self.k * self._distance(self.receivers))

    def _kernel(self) -> Tensor:
        """The spectrum of k^2 g, integrated over a pixel, on the doubled grid, (2 H, 2 W)."""
        height, width = self.image_shape
        rows, columns = (torch.fft.fftfreq(2 * n, 1 / (2 * n)).double() for n in (height, width))
        distance = self.pixel * torch.hypot(rows[:, None], columns)
        a, factor = self._disk
        distance[0, 0] = a
        kernel = factor * hankel(0, self.k * distance)
        self_term = 0.5j * math.pi * self.k * a * hankel(1, torch.tensor([self.k * a]).double())
        kernel[0, 0] = self_term[0] - 1
        return torch.fft.fft2(kernel)

    def green(self, source: Tensor) -> Tensor:
        """k^2 times the convolution of g with a source (..., H, W), by fast transforms."""
        height, width = self.image_shape
        spectrum = torch.fft.fft2(source, s=(2 * height, 2 * width)) * self.kernel.like(source)
        return torch.fft.ifft2(spectrum)[..., :height, :width]


def hankel(order: int, x: Tensor) -> Tensor:
    """The Hankel function of the first kind, complex128."""
    from scipy.special import hankel1

    return torch.from_numpy(hankel1(order, x.numpy()))
