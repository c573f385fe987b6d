"""How the views of a scan share the circle, and which rays they measure twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_finite


def check_angles(angles: Sequence[float] | Tensor) -> Tensor:
    """Angles of views in degrees as (A,) float64 on the CPU; raise ValueError for anything else."""
    views = torch.as_tensor(angles, dtype=torch.float64).detach().clone().cpu()
    if views.ndim != 1 or views.numel() == 0:
        raise ValueError(f"angles must be a list of degrees, got the shape {tuple(views.shape)}")
    check_finite("angles", views)
    return views


def view_shares(angles: Tensor, period: float) -> Tensor:
    """The share of the circle that each view stands for, in degrees, (A,).

    Half of the gap to either neighbour, modulo `period`, 180 for parallel rays and 360 for a fan;
    equal angles share their part. The sum is the period, or, if the views leave a wedge open (see
    `is_closed`), the part that they cover: the first and the last one reach into the wedge as far
    as towards their other neighbours.
    """
    _, index, count, gap = _gaps(angles, period)
    if not is_closed(angles, period):
        widest = int(gap.argmax())
        gap[widest] = _step(gap, widest)
    share = (gap + gap.roll(1)) / 2
    return (share / count)[index]


def redundancy(angles: Tensor, gamma: Tensor) -> Tensor:
    """Weights (A, J) of the rays of a fan, 1 in total for every line that is measured.

    The ray (beta, gamma) runs along the same line as (beta + 180 - 2 gamma, -gamma). A full circle
    measures every line twice: 1/2. An arc of 180 + 2 delta degrees measures some twice, and Parker
    weights blend the two, sin^2 and cos^2 of (pi / 4) beta / (delta + gamma) where beta, counted
    from the beginning of the arc, is at most 2 (delta + gamma), and the same from its end. Lines
    that the arc measures once have weight 1; those it misses are missing.

    Args:
        angles: in degrees, (A,).
        gamma: fan angles in radians, (J,).

    Paper: Parker, Optimal short scan convolution reconstruction for fanbeam CT,
    https://doi.org/10.1118/1.595078; Silver, A method for including redundant data in computed
    tomography, https://doi.org/10.1118/1.598939
    """
    if is_closed(angles, 360.0):
        return torch.full((len(angles), len(gamma)), 0.5, dtype=torch.float64)
    distinct, index, _, gap = _gaps(angles, 360.0)
    widest = int(gap.argmax())
    step = _step(gap, widest)
    start = distinct[(widest + 1) % len(distinct)]
    beta = torch.deg2rad(torch.remainder(distinct - start, 360.0) + step / 2)[index][:, None]
    length = math.radians(360.0 - float(gap[widest]) + float(step))
    delta = (length - math.pi) / 2
    weights = torch.ones(len(angles), len(gamma), dtype=torch.float64)
    for from_end, twice in ((beta, delta + gamma), (length - beta, delta - gamma)):
        blended = (from_end < 2 * twice) & (twice > 0)
        part = from_end / torch.where(twice > 0, twice, 1.0)
        weights = torch.where(blended, torch.sin(math.pi / 4 * part).square(), weights)
    return weights


def is_closed(angles: Tensor, period: float) -> bool:
    """Whether the views cover the circle: the widest gap is at most twice the second widest."""
    *_, gap = _gaps(angles, period)
    return len(gap) == 1 or bool(gap.max() <= 2 * gap.sort().values[-2])


def _gaps(angles: Tensor, period: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distinct angles in one period, where each angle is among them, how often, and their gaps."""
    reduced = torch.remainder(angles.to(torch.float64), period)
    distinct, index, count = torch.unique(reduced, return_inverse=True, return_counts=True)
    following = torch.cat([distinct[1:], distinct[:1] + period])
    return distinct, index, count, following - distinct


def _step(gap: Tensor, widest: int) -> Tensor:
    """The mean of the gaps beside the widest one."""
    return (gap[widest - 1] + gap[(widest + 1) % len(gap)]) / 2
