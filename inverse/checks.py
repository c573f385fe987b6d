"""Checks of arguments that both samplers and likelihoods take."""

from __future__ import annotations

import math


def positive(value: float, name: str) -> float:
    """A finite number > 0, else ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")
    return float(value)


def whole(value: int, name: str) -> int:
    """An integer >= 1, else ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    return value
