"""Ranges of images and of noise levels, and levels carried from one image range to another."""

from __future__ import annotations

import math
from typing import Any


def pair(name: str, value: Any, positive: bool = False) -> tuple[float, float]:
    """Two finite numbers, low < high, from a user or a file."""
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be two numbers (low, high), got {value!r:.80}") from error
    if not -math.inf < low < high < math.inf or (positive and low <= 0):
        need = "0 < low < high" if positive else "low < high"
        raise ValueError(f"{name} must be (low, high) with {need}, finite, got {(low, high)}")
    return low, high


def rescaled(
    levels: tuple[float, float], units: tuple[float, float], wanted: tuple[float, float]
) -> tuple[float, float]:
    """Noise levels in the units of one image range, in those of another."""
    ratio = (wanted[1] - wanted[0]) / (units[1] - units[0])
    return levels[0] * ratio, levels[1] * ratio
