"""Images whose line integrals are known, or that have neither edges nor symmetry."""

import torch
from torch import Tensor

import forward_models as fm


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_image(height: int, width: int) -> Tensor:
    """Two blobs, (1, 1, H, W)."""
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, dtype=torch.float64),
        torch.linspace(-1, 1, width, dtype=torch.float64),
        indexing="ij",
    )
    blob = torch.exp(-((x - 0.3) ** 2 + (y + 0.2) ** 2) / 0.05)
    other = 0.5 * torch.exp(-((x + 0.35) ** 2 + (y - 0.45) ** 2) / 0.02)
    return (blob + other)[None, None]


def ellipse(
    operator: fm.Tomography | fm.FanBeam,
    radii: tuple[float, float],
    centre: tuple[float, float] = (0.0, 0.0),
    factor: int = 8,
) -> Tensor:
    """The share of each pixel inside an ellipse: radii (x, y) and centre (x, y) in mm, y up."""
    y, x = (torch.from_numpy(line.copy()) for line in operator.grid.lines())
    fine = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor - 0.5
    dy, dx = operator.grid.spacing
    y = ((y[:, None] - fine * dy).flatten() - centre[1]) / radii[1]
    x = ((x[:, None] + fine * dx).flatten() - centre[0]) / radii[0]
    inside = y[:, None] ** 2 + x[None, :] ** 2 < 1
    return torch.nn.functional.avg_pool2d(inside.double()[None, None], factor)


def disc(
    operator: fm.Tomography | fm.FanBeam, radius: float, centre: tuple[float, float] = (0.0, 0.0)
) -> Tensor:
    return ellipse(operator, (radius, radius), centre)
