"""Free-space propagation of a coherent wave, as in-line holography needs it."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from ..checks import Constant, Field, check_number, check_positive
from ..linear import LinearOperator


@final
class AngularSpectrum(LinearOperator):
    """The wave at `distance` behind a plane, z = F^-1 h F x; `Intensity() @` it is a hologram.

    h(f) = exp(2 pi i distance sqrt(1 / wavelength^2 - |f|^2)) for plane waves of spatial
    frequency f; those beyond 1 / wavelength are evanescent and decay. Exact for an image that
    repeats periodically: put a border of 1 or 0 around the object that is as wide as its light
    spreads. (B, C, H, W) to (B, C, H, W), both complex, with the same sampling.

    Unitary, and so solved in closed form, for pixels of at least wavelength / sqrt(2), where no
    wave is evanescent. No `svd`. Cost: two fast transforms.

    In-line hologram of a complex transmission: `Intensity() @ AngularSpectrum(...)`; of absorption
    alone: `... @ RealToComplex()`; of a phase object: `... @ PhaseObject(scale)`. The conjugate of
    a wave at the opposite distance has the same intensity: the twin image.

    Args:
        wavelength: > 0, in metres or any unit of length.
        pixel: side of a pixel, > 0, in the same unit.
        distance: of the detector, in the same unit; negative goes back.

    Raises:
        TypeError: arguments that are no numbers.
        ValueError: lengths that are not positive, a distance that is not finite or whose evanescent
            waves would grow without bound (negative, with pixels below the limit above).

    Paper: Goodman, Introduction to Fourier Optics, section 3.10.
    """

    event_ndim = 3
    measurement_ndim = 3
    event_field: Field = "complex"
    measurement_field: Field = "complex"

    def __init__(self, wavelength: float, pixel: float, distance: float) -> None:
        self.wavelength = check_positive("wavelength", wavelength)
        self.pixel = check_positive("pixel", pixel)
        self.distance = check_number("distance", distance)
        self._propagates = self.pixel >= self.wavelength / math.sqrt(2)
        if self.distance < 0 and not self._propagates:
            raise ValueError(
                f"pixels of {pixel} resolve evanescent waves of wavelength {wavelength}, which "
                "grow without bound backwards; take larger pixels or a positive distance"
            )
        self._transfer: dict[tuple[int, int], Constant] = {}

    def _h(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        if size not in self._transfer:
            rows, columns = (torch.fft.fftfreq(n, self.pixel, dtype=torch.float64) for n in size)
            square = 1 / self.wavelength**2 - rows[:, None].square() - columns.square()
            along = torch.sqrt(square.to(torch.complex128))
            self._transfer[size] = Constant(torch.exp(2j * math.pi * self.distance * along))
        return self._transfer[size].like(x)

    def _apply(self, x: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(x) * self._h(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(y) * self._h(y).conj())

    def _normal(self, x: Tensor) -> Tensor:
        return x if self._propagates else super()._normal(x)

    def _gram_diagonal(self, y: Tensor) -> Tensor | None:
        if not self._propagates:
            return None
        return torch.ones((), dtype=y.dtype.to_real(), device=y.device)
