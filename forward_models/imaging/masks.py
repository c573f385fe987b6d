"""Masks: which entries of an image are seen, drawn at random or cut out."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

from ..checks import Shape, check_number, check_shape


def random_mask(shape: Shape, keep: float, generator: torch.Generator | None = None) -> Tensor:
    """A bool mask with exactly round(keep * entries) entries seen, at least one, drawn uniformly.

    Args:
        shape: (H, W), the same for every channel, or an image's shape, where every entry is drawn.
        keep: fraction seen, in (0, 1].

    Raises:
        TypeError: keep is no number.
        ValueError: a shape that is not positive, or keep outside (0, 1].
    """
    sizes = check_shape("shape", shape)
    if not 0 < check_number("keep", keep) <= 1:
        raise ValueError(f"keep must be in (0, 1], got {keep}")
    total = math.prod(sizes)
    device = "cpu" if generator is None else generator.device
    order = torch.randperm(total, generator=generator, device=device)
    mask = torch.zeros(total, dtype=torch.bool, device=device)
    mask[order[: max(1, round(keep * total))]] = True
    return mask.reshape(sizes)


def bernoulli_mask(
    shape: Shape, probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """A bool mask whose entries are seen independently, each with the given probability.

    Args:
        shape: (H, W), the same for every channel, or an image's shape, where every entry is drawn.
        probability: of being seen, in (0, 1].

    Raises:
        TypeError: probability is no number.
        ValueError: a shape that is not positive, or a probability outside (0, 1];
            no entry was seen in this draw, an event of probability (1 - p)^entries.
    """
    sizes = check_shape("shape", shape)
    if not 0 < check_number("probability", probability) <= 1:
        raise ValueError(f"probability must be in (0, 1], got {probability}")
    device = "cpu" if generator is None else generator.device
    mask = torch.rand(sizes, generator=generator, device=device) < probability
    if not bool(mask.any()):
        raise ValueError(
            f"none of {mask.numel()} entries was seen with probability {probability}; draw again, "
            "raise it, or use random_mask, which sees at least one"
        )
    return mask


def box_mask(shape: Shape, top: int, left: int, height: int, width: int) -> Tensor:
    """A bool mask (..., H, W) that sees everything except one box of the image.

    Args:
        shape: (..., H, W).
        top, left: row and column of the box's first pixel, integers.
        height, width: its size in pixels, integers.

    Raises:
        TypeError: numbers of the box that are no integers.
        ValueError: a shape without height and width, or a box that does not lie inside it.
    """
    sizes = _with_plane(shape)
    top, left = _integer("top", top), _integer("left", left)
    height, width = _integer("height", height), _integer("width", width)
    inside = top >= 0 and left >= 0 and height > 0 and width > 0
    if not inside or top + height > sizes[-2] or left + width > sizes[-1]:
        raise ValueError(
            f"the box of {height} x {width} at ({top}, {left}) does not lie inside {sizes[-2:]}"
        )
    mask = torch.ones(sizes, dtype=torch.bool)
    mask[..., top : top + height, left : left + width] = False
    return mask


def centre_box_mask(shape: Shape, height: int, width: int) -> Tensor:
    """A bool mask (..., H, W) that sees everything except a box in the middle of the image.

    The box starts at ((H - height) // 2, (W - width) // 2). Raises as `box_mask`.
    """
    sizes = _with_plane(shape)
    height, width = _integer("height", height), _integer("width", width)
    return box_mask(sizes, (sizes[-2] - height) // 2, (sizes[-1] - width) // 2, height, width)


def _with_plane(shape: Shape) -> Shape:
    sizes = check_shape("shape", shape)
    if len(sizes) < 2:
        raise ValueError(f"shape must be (H, W) or (..., H, W), got {sizes}: a box needs both")
    return sizes


def _integer(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, a number of pixels, got {value!r}")
    return int(value)
