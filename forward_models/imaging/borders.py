"""How an image continues beyond its border, and the adjoint of that."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

Padding = Literal["circular", "reflect", "replicate", "constant", "valid"]
Margins = tuple[tuple[int, int], tuple[int, int]]  # rows before and after, columns before and after


def check_padding(padding: str) -> None:
    """Raise ValueError for an unknown padding."""
    if padding not in get_args(Padding):
        raise ValueError(f"unknown padding {padding!r}; known: {', '.join(get_args(Padding))}")


def extend(x: Tensor, padding: Padding, margins: Margins) -> Tensor:
    """x (..., H, W) with margins of any width around it, filled as `padding` says.

    "circular" repeats the image, "reflect" mirrors it about its border pixels, "replicate" repeats
    the border pixels, "constant" is zero, and "valid" adds nothing.
    """
    if padding == "valid":
        return x
    rows, columns = margins
    height, width = x.shape[-2:]
    if padding == "constant":
        return pad(x, (*columns, *rows))
    if max(rows) < height and max(columns) < width:
        return pad(x, (*columns, *rows), mode=padding)  # torch goes no further than one image
    for axis, size, (before, after) in ((-2, height, rows), (-1, width, columns)):
        centre = torch.arange(size)
        margin = _sources(padding, size, before, after)
        source = torch.cat([margin[:before], centre, margin[before:]])
        x = x.index_select(axis, source.to(x.device))
    return x


def fold(y: Tensor, padding: Padding, margins: Margins) -> Tensor:
    """The adjoint of `extend`: every copy of a pixel is added back to it, in place in y."""
    if padding == "valid":
        return y
    for axis, (before, after) in zip((-1, -2), reversed(margins), strict=True):
        if before or after:
            size = y.shape[axis] - before - after
            centre = y.narrow(axis, before, size)
            if padding == "constant":
                y = centre
                continue
            strips = y.narrow(axis, 0, before), y.narrow(axis, before + size, after)
            source = _sources(padding, size, before, after).to(y.device)
            y = centre.index_add_(axis, source, torch.cat(strips, dim=axis))
    return y


def _sources(padding: Padding, size: int, before: int, after: int) -> Tensor:
    """Which pixel of an axis each position of its margins repeats, at any width."""
    positions = (*range(-before, 0), *range(size, size + after))
    if padding == "circular":
        return torch.tensor([i % size for i in positions])
    if padding == "replicate":
        return torch.tensor([min(max(i, 0), size - 1) for i in positions])
    period = max(2 * (size - 1), 1)
    return torch.tensor([min(i % period, period - i % period) % size for i in positions])
