"""Ptychography: a probe moves over an object and its diffraction is recorded at each place."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, Shape, check_dtype, check_finite, check_shape, check_tensor
from ..linear import LinearOperator


@final
class Ptychography(LinearOperator):
    """The waves F(P x_j) of a probe P on the window x_j of an object x at each of J positions.

    (B, C, H, W) to (B, J, C, h, w), both complex; F is the unitary Fourier transform, frequency 0
    first. What is recorded is `Magnitude() @ Ptychography(...)` or `Intensity() @`. Neighbouring
    windows should overlap by more than half; then one phase of the whole object stays unknown, and
    pixels that no probe reaches are not seen. A^H A multiplies every pixel by the light that falls
    on it, but there is no `svd`: `solve` uses conjugate gradients. Cost: J transforms of the size
    of the probe for each channel.

    Args:
        probe: P, (h, w), real or complex.
        positions: (J, 2), int64: row and column of each window's upper left pixel.
        image_shape: (H, W) of the object.

    Raises:
        TypeError: a probe that is no floating-point or complex tensor, positions not int64.
        ValueError: other shapes, a probe that is not finite, a window beyond the object.

    Paper: Rodenburg and Faulkner, A phase retrieval algorithm for shifting illumination, 2004,
    https://doi.org/10.1063/1.1823034
    """

    event_ndim = 3
    measurement_ndim = 4
    event_field: Field = "complex"
    measurement_field: Field = "complex"

    def __init__(self, probe: Tensor, positions: Tensor, image_shape: tuple[int, int]) -> None:
        check_tensor("probe", probe)
        check_dtype("probe", probe, "any")
        if probe.ndim != 2 or probe.numel() == 0:
            raise ValueError(f"probe has shape {tuple(probe.shape)}, expected (h, w)")
        check_finite("probe", probe)
        check_tensor("positions", positions)
        check_dtype("positions", positions, "integer")
        if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions):
            raise ValueError(f"positions have shape {tuple(positions.shape)}, expected (J, 2)")
        size = check_shape("image_shape", image_shape)
        if len(size) != 2:
            raise ValueError(f"image_shape must be (H, W), got {size}")
        self.image_shape = (size[0], size[1])
        end = positions + torch.tensor(probe.shape, device=positions.device)
        outside = (positions < 0) | (end > torch.tensor(size, device=positions.device))
        if bool(outside.any()):
            worst = int(outside.any(1).nonzero()[0])
            raise ValueError(
                f"position {worst}, {tuple(positions[worst].tolist())}, puts the probe "
                f"{tuple(probe.shape)} beyond the object {self.image_shape}"
            )
        self._probe = Constant(probe.to(torch.complex128))
        h, w = probe.shape
        rows = positions[:, 0, None, None].cpu() + torch.arange(h)[:, None]
        columns = positions[:, 1, None, None].cpu() + torch.arange(w)
        self._shape = (len(positions), h, w)
        self._corners = [(int(row), int(column)) for row, column in positions.tolist()]
        self._pixels = Constant((rows * self.image_shape[1] + columns).flatten())

    def output_shape(self, event_shape: Shape) -> Shape:
        if tuple(event_shape[1:]) != self.image_shape:
            raise ValueError(
                f"the image is {event_shape}, the scan is of objects (C, "
                f"{self.image_shape[0]}, {self.image_shape[1]})"
            )
        count, h, w = self._shape
        return (count, event_shape[0], h, w)

    def input_shape(self, measurement_shape: Shape) -> Shape:
        count, channels, h, w = measurement_shape
        if (count, h, w) != self._shape:
            raise ValueError(
                f"y is {measurement_shape}, expected (J, C, h, w) = "
                f"({self._shape[0]}, C, {self._shape[1]}, {self._shape[2]})"
            )
        return (channels, *self.image_shape)

    def _apply(self, x: Tensor) -> Tensor:
        _, h, w = self._shape
        probe = self._probe.like(x)
        exit_waves = [probe * x[..., r : r + h, c : c + w] for r, c in self._corners]
        return torch.fft.fft2(torch.stack(exit_waves, 1), norm="ortho")

    def _adjoint(self, y: Tensor) -> Tensor:
        exit_waves = torch.fft.ifft2(y, norm="ortho") * self._probe.like(y).conj()
        return self._gather(exit_waves.transpose(1, 2))

    def _normal(self, x: Tensor) -> Tensor:
        power = self._probe.like(x).abs().square().expand(1, 1, *self._shape)
        return self._gather(power) * x

    def _gather(self, windows: Tensor) -> Tensor:
        """The sum (B, C, H, W) of windows (B, C, J, h, w), each at its position."""
        height, width = self.image_shape
        flat = windows.new_zeros(*windows.shape[:2], height * width)
        flat = flat.index_add(-1, self._pixels.like(windows), windows.flatten(2))
        return flat.unflatten(-1, (height, width))
