"""Filtered back-projection: the classical reconstruction of a sinogram."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_batched, check_dtype, check_finite, check_tensor
from .fan import FanBeam
from .fan_fbp import fan_fbp
from .filters import Filter, check_filter, ramp_filter
from .parallel import Tomography
from .scan import view_shares
from .slices import SliceStack


def fbp(
    operator: Tomography | FanBeam | SliceStack, sinogram: Tensor, filter: Filter = "ramp"
) -> Tensor:
    """Filtered back-projection, in the unit of the image; volumes slice by slice.

    Parallel beam: x = (detector spacing / pixel area) A^T (w * (h * y)), with the ramp filter h and
    the share w of the half circle that each angle stands for; views of a part of it, with a gap
    more than twice as wide as any other, stand for that part. Fan beam: see `fan_fbp`. Linear in y.

    Approximate: it inverts the continuous transform for views that sample the circle densely and a
    detector that sees the whole object; wide gaps leave streaks. It is not the adjoint of A: never
    put it in its place in an iteration. Cost: one A^T (parallel), or views * pixels (fan).

    Args:
        operator: A.
        sinogram: y, (B, 1, angles, detectors), in (unit of the image) * mm; of a volume,
            (B, 1, slices, angles, detectors).
        filter: "ramp" (Ram-Lak), or damped against noise, from the least to the most:
            "shepp-logan", "cosine", "hamming", "hann".

    Returns:
        (B, 1, H, W) or (B, 1, slices, H, W).

    Raises:
        TypeError: another operator.
        ValueError: an unknown filter, or a sinogram of another shape or with NaN.

    Paper: Ramachandran and Lakshminarayanan, Three-dimensional reconstruction from radiographs and
    electron micrographs, https://doi.org/10.1073/pnas.68.9.2236
    """
    check_filter(filter)
    base = operator.operator if isinstance(operator, SliceStack) else operator
    if not isinstance(base, (Tomography, FanBeam)):
        raise TypeError(
            "fbp needs a Tomography, a FanBeam or a SliceStack of one of them, "
            f"got {type(base).__name__}; cgls and sirt serve any linear operator"
        )
    check_tensor("sinogram", sinogram)
    check_dtype("sinogram", sinogram, "real")
    check_batched("sinogram", sinogram, operator.measurement_shape, operator.measurement_ndim)
    check_finite("sinogram", sinogram)
    if isinstance(operator, SliceStack):
        return operator.unfold(fbp(base, operator.fold(sinogram), filter))
    if isinstance(base, FanBeam):
        return fan_fbp(base, sinogram, filter)
    filtered = ramp_filter(sinogram, base.detector_spacing, filter)
    weights = torch.deg2rad(view_shares(base.angles, 180.0)).to(sinogram)
    dy, dx = base.grid.spacing
    return base.adjoint(base.detector_spacing / (dy * dx) * weights[:, None] * filtered)
