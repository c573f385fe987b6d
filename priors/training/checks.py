"""Values of a recipe, refused by name, all that are wrong at once."""

from __future__ import annotations

from collections.abc import Sequence

from ..ranges import pair

Span = tuple[float, float]
Requirement = tuple[bool, str, object, str]
"""(whether it holds, the value's name, the value, what is expected)."""


class RecipeError(ValueError):
    """What is wrong with a recipe; `faults` has a sentence for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        text = self.faults[0]
        if len(self.faults) > 1:
            each = "; ".join(f"({i}) {fault}" for i, fault in enumerate(self.faults, 1))
            text = f"{len(self.faults)} faults: {each}"
        super().__init__(text)


def faults_of(error: ValueError) -> tuple[str, ...]:
    return error.faults if isinstance(error, RecipeError) else (str(error),)


def needs(*requirements: Requirement) -> None:
    """Refuse the values whose requirement does not hold, with what came and what was expected."""
    faults = [
        f"{name} must be {expected}, got {value!r:.80}"
        for holds, name, value, expected in requirements
        if not holds
    ]
    if faults:
        raise RecipeError(faults)


def increasing(name: str, value: object, positive: bool = False) -> Requirement:
    """That the value is (low, high), finite, with low < high, and 0 < low where positive."""
    try:
        pair(name, value, positive)
        holds = True
    except ValueError:
        holds = False
    return holds, name, value, f"(low, high) with {'0 < ' * positive}low < high, finite"
