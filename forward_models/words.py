"""Objects in one line: what `repr` says of operators, forward models and noise."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def described(thing: object, **facts: Any) -> str:
    """Its class with facts of it: a shape of None is any, of a tensor only the range is told."""
    shown = ", ".join(f"{name}={_shown(fact)}" for name, fact in facts.items())
    return f"{type(thing).__name__}({shown})"


def _shown(fact: Any) -> str:
    if fact is None:
        return "any"
    if isinstance(fact, type):
        return fact.__name__
    if isinstance(fact, Tensor):
        return f"{float(fact.min()):.4g} to {float(fact.max()):.4g}"
    return f"{fact:.4g}" if isinstance(fact, float) else repr(fact)
