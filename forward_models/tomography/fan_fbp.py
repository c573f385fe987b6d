"""Filtered back-projection of a fan beam."""

from __future__ import annotations

import torch
from torch import Tensor

from .fan import FanBeam
from .filters import Filter, ramp_filter
from .scan import redundancy, view_shares


def fan_fbp(operator: FanBeam, sinogram: Tensor, filter: Filter) -> Tensor:
    """Weighted filtered back-projection of a checked sinogram, (B, 1, A, J) to (B, 1, H, W).

    With the weights w of `redundancy`, the share d_a of each view in radians, the fan angle gamma,
    and the distance L of a pixel from the source, L0 = R + depth of it along the central ray:

        flat     x = sum over a of d_a (R / L0)^2 [h * (w cos(gamma) y)],  bins scaled to the axis
        curved   x = sum over a of d_a / L^2 [h * (w R cos(gamma) y)],  bins in radians

    with the ramp filter h (on an arc for the curved detector), taken at the pixel's shadow by
    linear interpolation between bins. Pixels outside the fan of a view get nothing from it. The
    shadow of the whole object must fall on the detector; a detector shifted so far that it sees
    only half of it needs other weights, which are not here.
    """
    R, D = operator.source_origin, operator.source_detector
    curved = operator.detector == "curved"
    gamma = torch.from_numpy(operator.fan_angles)
    weights = redundancy(operator.angles, gamma) * torch.cos(gamma) * (R if curved else 1.0)
    spacing = operator.detector_spacing * (1.0 if curved else R) / D
    filtered = ramp_filter(sinogram * weights.to(sinogram), spacing, filter, arc=curved)
    shares = torch.deg2rad(view_shares(operator.angles, 360.0))

    # A zero beyond either end of the detector: what lies outside contributes nothing.
    filtered = torch.nn.functional.pad(filtered, (1, 1)).flatten(0, 1)
    image = torch.zeros(len(filtered), *operator.grid.shape).to(filtered)
    y, x = (torch.from_numpy(line) for line in operator.grid.lines())
    for a, angle in enumerate(torch.deg2rad(operator.angles)):
        cos, sin = torch.cos(angle), torch.sin(angle)
        lateral, depth = sin * y[:, None] + cos * x, cos * y[:, None] - sin * x
        square = (R + depth).square() + (lateral.square() if curved else 0.0)
        weight = shares[a] * (1.0 if curved else R**2) / square
        shadow = torch.from_numpy(operator._shadow(lateral.numpy(), depth.numpy())) + 1
        shadow = shadow.clamp(0, operator.detectors + 1)
        left = shadow.floor().clamp(max=operator.detectors).long()
        part = (shadow - left).to(image)
        left = left.to(image.device)
        row = filtered[:, a]
        image = image + weight.to(image) * ((1 - part) * row[:, left] + part * row[:, left + 1])
    return image[:, None]
