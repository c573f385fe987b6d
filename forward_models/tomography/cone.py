"""Cone-beam computed tomography, through the library diffct."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from ..checks import Shape, check_number, check_positive, check_shape
from ..linear import LinearOperator
from .grid import Grid
from .scan import check_angles


@final
class ConeBeam(LinearOperator):
    """y = line integrals from a circling point source, (B, 1, D, H, W) to (B, 1, A, rows, columns).

    Slices are parallel to the circle of the source. In every slice the geometry is that of
    `FanBeam` with a flat detector, angles and directions included; rows of the detector run along
    the slices, and the ray to the (fractional) bin `detector_axis` meets the axis of rotation, at a
    right angle, in the plane of the source. A detector of one row and a volume of one slice are
    exactly `FanBeam`. As there, rays run through the whole volume wherever the detector is: a
    virtual detector through the axis is allowed.

    Lengths are exact for voxels of constant value, y is in (unit of x) * mm, and the adjoint is
    exact to rounding. No SVD and no closed form: `solve` uses conjugate gradients. Nothing is
    stored: each product traces every ray again, O(views * bins * (D + H + W)) a sample, which takes
    seconds on a CPU for 64^3 voxels and 30 views of 90^2 bins. The work is done by diffct, an
    optional library (`pip install inverse[ct3d]`, https://github.com/sypsyp97/diffct), always by
    its implementation in torch, for tensors on a CPU or a GPU in both precisions; diffct's compiled
    GPU code is not used.

    Args:
        volume_shape: (D, H, W).
        angles: in degrees, any numbers in any order.
        source_origin: from the source to the axis of rotation in mm.
        source_detector: from the source to the detector in mm.
        detector_shape: (rows, columns).
        detector_spacing: distance of neighbouring bins in mm, one number, or (rows, columns).
        voxel_spacing: voxel size in mm, one number, or (dz, dy, dx).
        axis: (slice0, row0, column0), where the axis of rotation meets the plane of the source, in
            voxels; default the middle.
        detector_axis: (row, column) of the bin opposite to it; default the middle.

    Raises:
        ImportError: diffct is not installed.
        TypeError, ValueError: sizes, spacings or angles that are not positive or not finite; a
            corner of the volume on or outside the cylinder of the source.

    Paper: Siddon, Fast calculation of the exact radiological path for a three-dimensional CT
    array, https://doi.org/10.1118/1.595715
    """

    event_ndim = 4
    measurement_ndim = 4

    def __init__(
        self,
        volume_shape: Shape,
        angles: Sequence[float] | Tensor,
        *,
        source_origin: float,
        source_detector: float,
        detector_shape: tuple[int, int],
        detector_spacing: float | tuple[float, float],
        voxel_spacing: float | tuple[float, float, float] = 1.0,
        axis: tuple[float, float, float] | None = None,
        detector_axis: tuple[float, float] | None = None,
    ) -> None:
        _diffct()
        shape = check_shape("volume_shape", volume_shape)
        rows_columns = check_shape("detector_shape", detector_shape)
        if len(shape) != 3 or len(rows_columns) != 2:
            raise ValueError(
                "volume_shape must be (D, H, W) and detector_shape (rows, columns), got "
                f"{shape} and {rows_columns}"
            )
        self.volume_shape, self.detector_shape = shape, rows_columns
        self.voxel_spacing = _each("voxel_spacing", voxel_spacing, 3, check_positive)
        self.detector_spacing = _each("detector_spacing", detector_spacing, 2, check_positive)
        middle = tuple((n - 1) / 2 for n in shape)
        self.axis = _each("axis", middle if axis is None else axis, 3, check_number)
        middle = tuple((n - 1) / 2 for n in rows_columns)
        self.detector_axis = _each(
            "detector_axis", middle if detector_axis is None else detector_axis, 2, check_number
        )
        self.source_origin = check_positive("source_origin", source_origin)
        self.source_detector = check_positive("source_detector", source_detector)
        slice_grid = Grid(
            (shape[1], shape[2]),
            (self.voxel_spacing[1], self.voxel_spacing[2]),
            (self.axis[1], self.axis[2]),
        )
        if slice_grid.reach >= self.source_origin:
            raise ValueError(
                f"the volume reaches {slice_grid.reach:.6g} mm from the axis of rotation, but the "
                f"source circles at {self.source_origin:.6g} mm; the object must lie inside"
            )
        self.angles = check_angles(angles)
        self.event_shape = (1, *shape)
        self.measurement_shape = (1, self.angles.numel(), *rows_columns)
        # diffct follows a ray up to its bin: k times as far, and as large, a detector has the same
        # rays and lies behind the volume.
        self._magnified = max(1.0, (self.source_origin + slice_grid.reach) / self.source_detector)
        self._projectors: dict[tuple[torch.dtype, torch.device], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_projectors": {}}

    def _trajectory(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Source, middle of the detector and directions of its columns and rows, (A, 3) each.

        diffct has (x, y, z) along (columns, rows, slices), 0 in the middle of the volume.
        """
        a = torch.deg2rad(self.angles)
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        from_axis = torch.stack([a.sin(), a.cos(), zero], 1)
        along = torch.stack([a.cos(), -a.sin(), zero], 1)
        up = torch.stack([zero, zero, one], 1)
        centre = torch.tensor(
            [
                (at - (n - 1) / 2) * d
                for at, n, d in zip(self.axis, self.volume_shape, self.voxel_spacing, strict=True)
            ][::-1],
            dtype=torch.float64,
        )
        shift = [
            ((n - 1) / 2 - at) * d
            for at, n, d in zip(
                self.detector_axis, self.detector_shape, self.detector_spacing, strict=True
            )
        ]
        source = centre + self.source_origin * from_axis
        k = self._magnified
        detector = centre - (k * self.source_detector - self.source_origin) * from_axis
        return source, detector + k * (shift[0] * up + shift[1] * along), along, up

    def _projector(self, like: Tensor) -> Any:
        key = (like.dtype, like.device)
        if key not in self._projectors:
            rows, columns = self.detector_spacing
            # diffct keeps tensors: one born in inference mode could never be differentiated.
            with torch.inference_mode(False):
                self._projectors[key] = _diffct().Projector(
                    tuple(part.to(like.device, like.dtype) for part in self._trajectory()),
                    self.volume_shape,
                    self.detector_shape[::-1],
                    beam="cone",
                    detector_spacing=(self._magnified * columns, self._magnified * rows),
                    voxel_spacing=self.voxel_spacing,
                    backend="torch",
                    precision="float64" if like.dtype == torch.float64 else "float32",
                )
        return self._projectors[key]

    def _apply(self, x: Tensor) -> Tensor:
        y: Tensor = self._projector(x).project(x)
        return y.mT.contiguous()

    def _adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = self._projector(y).backproject(y.mT.contiguous())
        return x


def _each(name: str, value: Any, count: int, check: Any) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * count
    if len(values) != count:
        raise ValueError(f"{name} must have {count} numbers, got {values}")
    return tuple(check(name, number) for number in values)


def _diffct() -> Any:
    try:
        import diffct
    except ImportError as error:
        raise ImportError("ConeBeam needs the library diffct: pip install inverse[ct3d]") from error
    return diffct
