"""Checks of arguments that both samplers and likelihoods take."""

from __future__ import annotations

import math

import torch


def positive(value: float, name: str) -> float:
    """A finite number > 0, else ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")
    return float(value)


def between(value: float, name: str, low: float, high: float = math.inf) -> float:
    """A finite number in [low, high], else ValueError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or math.isinf(value):
        within = (
            f"be a finite number >= {low:g}" if math.isinf(high) else f"lie in [{low:g}, {high:g}]"
        )
        raise ValueError(f"{name} must {within}, got {value!r}")
    return float(value)


def whole(value: int, name: str, least: int = 1) -> int:
    """An integer >= least, else ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return value


def flag(value: bool, name: str) -> bool:
    """True or False, else ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def usable(device: torch.device | str) -> torch.device:
    """The device, if torch knows it and this machine has it, else ValueError."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {device!r} is none of torch: {error}") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(found)!r} is not there: torch sees {torch.cuda.device_count()} CUDA "
            "devices; install a torch built for CUDA and its driver, or pass device='cpu'"
        )
    return found
