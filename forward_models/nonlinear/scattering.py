"""Inverse scattering: the waves that an object sends back, with and without multiple scattering."""

from __future__ import annotations

import warnings
from typing import Any, final

import torch
from torch import Tensor

from ..checks import Field, Shape, check_shape
from ..linear import LinearOperator
from ..operator import Operator
from .helmholtz import Scene, Source
from .krylov import bicgstab

_TOLERANCE = {torch.complex64: 1e-6, torch.complex128: 1e-12}


class _Field(torch.autograd.Function):
    """u, (B, T, H, W), that solves (I - G diag f) u = b; derivatives by one more solve.

    G is symmetric, so that M^-T = I + diag(f) M^-1 G for M = I - G diag(f): the transposed system
    needs no solver of its own, and derivatives of any order are made of the same solve.
    """

    @staticmethod
    def forward(medium: Scattering, f: Tensor, b: Tensor) -> Tensor:
        return medium._solve(f, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.medium, f, _ = inputs
        ctx.save_for_backward(f, output)
        ctx.save_for_forward(f, output)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[None, Tensor | None, Tensor | None]:  # type: ignore[override]
        f, u = ctx.saved_tensors
        medium, c = ctx.medium, w.conj()
        c = c + f * _Field.apply(medium, f, medium.scene.green(c))
        grad_f = (u * medium.scene.green(c)).real.sum(1, keepdim=True)
        return None, grad_f, c.conj()

    @staticmethod
    def jvp(ctx: Any, _: None, df: Tensor | None, db: Tensor | None) -> Tensor:  # type: ignore[override]
        f, u = ctx.saved_tensors
        b = torch.zeros_like(u) if db is None else db
        if df is not None:
            b = b + ctx.medium.scene.green(df * u)
        result: Tensor = _Field.apply(ctx.medium, f, b)
        return result

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], medium: Scattering, f: Tensor, b: Tensor
    ) -> tuple[Tensor, int]:
        count = info.batch_size
        f, b = (
            t.expand(count, *t.shape) if axis is None else t.movedim(axis, 0)
            for t, axis in ((f, dims[1]), (b, dims[2]))
        )
        u: Tensor = _Field.apply(medium, f.flatten(0, 1), b.flatten(0, 1))
        return u.unflatten(0, (count, -1)), 0


@final
class Scattering(Operator):
    """Scattered waves y[t, r] at R receivers for T illuminations of an object, multiple scattering
    included: the Lippmann-Schwinger equation in the plane,

        u = u_in + G (f u),     y = S (f u),

    for the contrast f = eps_r - 1 of a lossless object (1, H, W), real, in a background of
    contrast 0; G and S integrate Green's function over the grid and to the receivers, see `Scene`.

    (B, 1, H, W) real to (B, T, R) complex. The discretisation is of second order or nearly: take
    10 pixels or more for a wavelength inside the object, wavelength / sqrt(1 + f). The discrete
    equation is solved by BiCGSTAB to 1e-12 in double and 1e-6 in single precision; derivatives are
    implicit, one more solve each, not those of the iterations. Cost: T solves a sample, of some 10
    to 50 iterations of four fast transforms of (2 H, 2 W), more for strong contrast.

    Args:
        image_shape: (H, W).
        pixel: side of a pixel, in any unit of length.
        wavelength: in the background, in the same unit.
        illuminations, receivers: T and R, evenly on the circle.
        radius: of the circle, in the same unit; it surrounds the grid.
        source: "plane" waves of amplitude 1, or "line" sources on the circle.
        max_iterations: bound of the solver; a warning tells when it was reached.

    Raises:
        TypeError, ValueError: numbers and sizes that are not positive, an unknown source, a circle
            that cuts the grid.

    Paper: Richmond, Scattering by a dielectric cylinder of arbitrary cross section shape, 1965,
    https://doi.org/10.1109/TAP.1965.1138427
    """

    measurement_field: Field = "complex"

    def __init__(
        self,
        image_shape: tuple[int, int],
        pixel: float,
        wavelength: float,
        *,
        illuminations: int,
        receivers: int,
        radius: float,
        source: Source = "plane",
        max_iterations: int = 500,
    ) -> None:
        self.scene = Scene(image_shape, pixel, wavelength, illuminations, receivers, radius, source)
        (self.max_iterations,) = check_shape("max_iterations", (max_iterations,))
        self.event_shape: Shape = (1, *self.scene.image_shape)
        self.measurement_shape: Shape = (self.scene.illuminations, self.scene.receivers)
        self.event_ndim, self.measurement_ndim = 3, 2

    @property
    def born(self) -> BornScattering:
        """The same scene under single scattering: the derivative of this operator at f = 0."""
        return BornScattering(self.scene)

    def total_field(self, x: Tensor) -> Tensor:
        """u on the grid, (B, T, H, W), complex."""
        self.check_image(x)
        return self._total_field(x)

    def _total_field(self, x: Tensor) -> Tensor:
        incident = self.scene.incident.like(x).unflatten(-1, self.scene.image_shape)
        result: Tensor = _Field.apply(self, x, incident.expand(len(x), *incident.shape))
        return result

    def _apply(self, x: Tensor) -> Tensor:
        sources = (x * self._total_field(x)).flatten(-2)
        return sources @ self.scene.to_receivers.like(x).mT

    def _solve(self, f: Tensor, b: Tensor) -> Tensor:
        count = b.shape[1]
        contrast = f.repeat_interleave(count, 0)[:, 0]
        u, info = bicgstab(
            lambda v: v - self.scene.green(contrast * v),
            b.flatten(0, 1),
            _TOLERANCE[b.dtype],
            self.max_iterations,
        )
        if not bool(info.converged.all()):
            worst = int(info.residual.argmax())
            warnings.warn(
                f"the field of sample {worst // count}, illumination {worst % count} has a "
                f"relative residual of {float(info.residual[worst]):.1e} after "
                f"{self.max_iterations} iterations; the contrast may be too strong for the grid, "
                "or max_iterations small",
                RuntimeWarning,
                stacklevel=2,
            )
        return u.unflatten(0, (-1, count))


@final
class BornScattering(LinearOperator):
    """Singly scattered waves y = S (f u_in), the first Born approximation of `Scattering`.

    (B, 1, H, W) real to (B, T, R) complex. Linear; right to first order in the contrast f. No `svd`
    and no closed-form solve. Cost: T times R products of the size of the image. The linear problem
    of InverseBench (Zheng et al. 2025) has 128 x 128 pixels of 0.18 m / 128, 6 pixels for a
    wavelength, T = 20 line sources, R = 60, 180 or 360 receivers, radius 1.6 m, sigma 1e-4.

    Args:
        scene: see `Scene`; `Scattering(...).born` has the scene of that operator.

    Raises:
        TypeError: scene is no Scene.

    Paper: Zheng et al., InverseBench, 2025, https://arxiv.org/abs/2503.11043
    """

    measurement_field: Field = "complex"

    def __init__(self, scene: Scene) -> None:
        if not isinstance(scene, Scene):
            raise TypeError(f"scene must be a Scene, got {type(scene).__name__}")
        self.scene = scene
        self.event_shape: Shape = (1, *scene.image_shape)
        self.measurement_shape: Shape = (scene.illuminations, scene.receivers)
        self.event_ndim, self.measurement_ndim = 3, 2

    def _apply(self, x: Tensor) -> Tensor:
        sources = x.flatten(-2) * self.scene.incident.like(x)
        return sources @ self.scene.to_receivers.like(x).mT

    def _adjoint(self, y: Tensor) -> Tensor:
        back = y @ self.scene.to_receivers.like(y).conj()
        image = (back * self.scene.incident.like(y).conj()).real.sum(1, keepdim=True)
        return image.unflatten(-1, self.scene.image_shape)
