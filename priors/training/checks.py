"""Values of a recipe, refused by name."""

from __future__ import annotations

import math

Span = tuple[float, float]


def need(holds: bool, name: str, value: object, expected: str) -> None:
    """Refuse a value by its name, with what came and what was expected."""
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value!r:.80}")


def span(name: str, value: Span, positive: bool = False) -> None:
    """Refuse anything but a finite increasing pair."""
    low, high = value
    good = -math.inf < low < high < math.inf and (low > 0 or not positive)
    need(good, name, value, f"(low, high) with {'0 < ' if positive else ''}low < high, finite")
