"""Values of a recipe, refused by name."""

from __future__ import annotations

Span = tuple[float, float]


def need(holds: bool, name: str, value: object, expected: str) -> None:
    """Refuse a value by its name, with what came and what was expected."""
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value!r:.80}")
